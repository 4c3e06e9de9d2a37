"""Pages of whole runs."""

import csv
import html
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tiny
from PIL import Image
from torch import Tensor, nn

from lightning_gancompress import load_generator
from lightning_gancompress.callbacks.image_grid import draw_grid
from lightning_gancompress.cli import main
from lightning_gancompress.cli.entry import GanCompressCLI
from lightning_gancompress.evaluation.evaluation import Evaluation
from lightning_gancompress.evaluation.measures.set_distances import SetDistances
from lightning_gancompress.evaluation.metrics import metric
from lightning_gancompress.evaluation.results import (
    LatencyResult,
    NetworkResults,
    RuntimeFacts,
    TestResults,
)
from lightning_gancompress.metrics import fid
from lightning_gancompress.networks import blank_image
from lightning_gancompress.pruning import count_macs, count_params
from lightning_gancompress.reporting.grid import cut, lay_out, png
from lightning_gancompress.reporting.page import write_page
from lightning_gancompress.reporting.page.headline import tiles
from lightning_gancompress.reporting.page.pictures import data_uri, pictures
from lightning_gancompress.reporting.page.quality import quality_rows
from lightning_gancompress.reporting.page.rendering import render
from lightning_gancompress.reporting.page.run import Generator
from lightning_gancompress.tasks import Role

VOID = {"meta", "img", "path", "circle"}


class Balanced(HTMLParser):
    """Fails on tags that aren't closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            assert dict(attrs)["alt"]
            assert dict(attrs)["src"].startswith("data:image/webp;base64,")

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def check(path: Path) -> tuple[str, list[str]]:
    """The page's text and second headings."""
    text, parser = path.read_text(), Balanced()
    parser.feed(text)
    assert parser.open == []
    assert not re.search(r"https?://|<script|<link|url\(", text)
    assert len(text) < 2e6
    return text, parser.headings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, facades: list[str], unet: Path) -> Path:
    folder = tmp_path_factory.mktemp("page") / "run"
    options = [o for o in tiny.compression(folder, unet) if "logger" not in o]
    main([*options, *facades, "--trainer.log_every_n_steps=1"])
    return folder


def test_fit_and_test_leave_a_page(run, tmp_path):
    text, headings = check(run / "report.html")
    assert len(headings) == 5
    assert re.fullmatch(
        r"\d+ % of the generator\u2019s and \d+ % of the discriminator\u2019s channels stay", headings[1]
    )
    assert "Quality has not been measured yet" in text
    assert "fine-tuning</text>" in text
    assert text.count(">draw 0.69</text>") == 2  # of the search, and of the recorded gan_mode
    folder = shutil.copytree(run, tmp_path / "run")
    where = f"--trainer.default_root_dir={folder}"
    main(["test", f"--ckpt_path={tiny.last(folder)}", where])
    text, _ = check(folder / "report.html")
    assert "Quality has not been measured yet" not in text
    assert ("PSNR" in text, "FID has not been measured" in text) == (True, True)
    assert text.count("<img") == 4 * 5  # images; source, target, teacher, student, difference


def test_page_is_rebuilt_from_files_alone_and_escapes_names(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(folder / "logs")
    shutil.rmtree(folder / "images")
    description = json.loads((folder / "generator.json").read_text())
    description["provenance"]["teacher"] = "<script>&.pth"
    (folder / "generator.json").write_text(json.dumps(description))
    (folder / "report.html").unlink()
    main(["report", f"--folder={folder}"])
    text, headings = check(folder / "report.html")
    assert len(headings) == 5
    assert "&lt;script&gt;&amp;.pth" in text
    assert ("No curves were logged" in text, "No pictures yet" in text) == (True, True)


def test_the_page_is_written_last_wherever_it_is_listed(tmp_path, facades, unet):
    options = tiny.compression(tmp_path, unet, "HtmlReport", "--trainer.callbacks+=UniformWidth")
    main([*options, *facades])
    text, _ = check(tmp_path / "report.html")
    assert "UniformWidth chose the channels" in text
    assert f"<code>{unet}</code>" in text
    assert "gancompress export" in text


def test_both_directions(tmp_path, domains, cyclegan):
    options = tiny.compression(tmp_path, cyclegan, "UniformWidth")
    main([*options, *tiny.cyclegan(), *domains])
    text, headings = check(tmp_path / "report.html")
    assert text.count("<h3>A to B</h3>") == text.count("<h3>B to A</h3>") == 3
    assert text.count('class="widths generator"') == 2
    assert len(headings) == 5


def test_failure_harms_no_run(run, tmp_path, facades, monkeypatch):
    def fail(*args):
        raise ZeroDivisionError

    monkeypatch.setattr("lightning_gancompress.callbacks.html_report.write_page", fail)
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "report.html").unlink()
    with pytest.warns(UserWarning, match="report could not be drawn"):
        main(["test", f"--ckpt_path={tiny.last(folder)}", f"--trainer.default_root_dir={folder}"])
    assert (folder / "test" / "results.json").is_file()


def test_unknown_figures_get_rows():
    times = {"p10_ms": 1.0, "p90_ms": 9.0, "repetitions": 20}
    teacher = {"params": 2_000_000, "fid_768": 2.0, "novelty": 0.5, "latency_ms": {"median_ms": 8.0} | times}
    student = {"params": 1_000_000, "fid_768": 3.0, "nested": {"deep": [1]}}
    student |= {"latency_ms": {"median_ms": 2.0} | times}
    networks = {
        name: NetworkResults.parse(facts, name)
        for name, facts in (("teacher", teacher), ("student", student))
    }
    table = render("quality_table.html", names=networks, rows=quality_rows(networks))
    for words in ("50&thinsp;%", "FID-768", "150&thinsp;%", "novelty", "25&thinsp;%"):
        assert words in table
    assert "nested" not in table


def test_pictures_are_spread_over_the_grid(tmp_path):
    columns = {"source": [Image.new("RGB", (8, 8), (30 * n, 0, 0)) for n in range(8)]}
    (tmp_path / "grid.png").write_bytes(png(lay_out(columns)))
    uris = [row[0].uri for row in pictures(tmp_path / "grid.png")]
    assert uris == [data_uri(columns["source"][n]) for n in (0, 1, 2, 4, 5, 6)]


def test_grid_is_cut_into_the_pictures_it_was_drawn_from(tmp_path):
    import torch

    images = {name: [torch.full((3, 16, 48), n / 2 - 1)] * 2 for n, name in enumerate(("a", "b", "c"))}
    (tmp_path / "grid.png").write_bytes(png(draw_grid(images)))
    rows = cut(tmp_path / "grid.png")
    assert len(rows) == 2
    for level, picture in zip((0, 64, 128), rows[1].values(), strict=True):
        assert picture.size == (48, 16)
        assert all(abs(edge - level) <= 1 for pair in picture.getextrema() for edge in pair)
    Image.new("RGB", (31, 77)).save(tmp_path / "other.png")
    assert list(cut(tmp_path / "other.png")[0]) == [""]


EVIL = "<script>&'\""


class Evil(nn.Module):
    """A network whose class and layers have names that no page should take for its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.add_module(EVIL, nn.Conv2d(3, width, 1))
        self.add_module("tail", nn.Conv2d(width, 3, 1))

    def forward(self, source: Tensor) -> Tensor:
        return self.tail(getattr(self, EVIL)(source))


Evil.__name__ = EVIL


def test_nothing_enters_the_page_unescaped(tmp_path):
    folder, role = tmp_path / f"run {EVIL}", "generator_AtoB"  # another would be no role
    (folder / "test").mkdir(parents=True)
    provenance = dict.fromkeys(
        ("teacher", "policy", "budget", "epochs", "torch", "lightning_gancompress"), EVIL
    )
    description = {
        "version": 1,
        "preprocessing": {"crop_size": 8},
        "provenance": provenance | {"gan_mode": EVIL},
    }
    (folder / f"{role}.json").write_text(json.dumps(description))
    (folder / f"{role}.pth").touch()
    (folder / "config.yaml").write_text(f"model: {EVIL}\n")
    figures = {"macs_exact": 9, "macs_literature": 9, "params": 9, EVIL: 1.0, f"fid_{EVIL}": 2.0, "miou": 0.5}
    results = {
        "phase": "finetune",
        "images": 1,
        "size": [8, 8],
        "networks": {"teacher": figures, EVIL: figures, "student": figures},
        "latency": {EVIL: {"failed": EVIL}},
        "teacher_l1": 0.5,
        "miou": {"network": EVIL, "protocol": EVIL, "classes": 2, "ceiling": 0.5},
        "metrics": {EVIL: {"label": EVIL, "unit": EVIL}},
    }
    (folder / "test" / "results_AtoB.json").write_text(json.dumps(results))
    picture = Image.new("RGB", (8, 8))
    (folder / "test" / "grid_AtoB.png").write_bytes(png(lay_out({EVIL: [picture], "student": [picture]})))
    logs = folder / "logs" / "version_0"
    logs.mkdir(parents=True)
    with (logs / "metrics.csv").open("w", newline="") as file:
        names = [f"train/{EVIL}", f"train/discriminator_{EVIL}_real", f"val/{EVIL}/l1", "cost/generator_macs"]
        csv.writer(file).writerows([["step", *names], [1, 0.5, 0.5, 0.5, 0.5], [2, 0.5, 0.5, 0.5, 0.5]])
    networks = {f"teacher.{role}": Evil(4), f"student.{role}": Evil(2)}
    discriminators = {"teacher.discriminator": Evil(4), "student.discriminator": Evil(2)}
    text, _ = check(write_page(folder, networks | discriminators))
    assert text.count("&lt;script&gt;") > 30


@pytest.fixture
def parse(monkeypatch) -> Callable[[str], Any]:
    """Parse a command and make what it names, without running it."""
    seen: list[Any] = []
    monkeypatch.setattr(
        GanCompressCLI, "_run_subcommand", lambda cli, name: seen.append(cli.config_init[name])
    )

    def parsed(command: str) -> Any:
        program, *arguments = shlex.split(command)
        assert program == "gancompress"
        main(arguments)
        return seen.pop()

    return parsed


def test_commands_on_the_page_parse(run, tmp_path, parse):
    folder = shutil.copytree(run, tmp_path / "a run's folder")
    shutil.rmtree(folder / "images")
    commands = commands_in(write_page(folder))
    assert [words.split()[1] for words in commands] == ["test", "test", "export"]  # pictures, quality, export
    for command in commands:
        assert Path(parse(command).ckpt_path).is_file()
    (folder / "test").mkdir()
    shutil.copy(Path(__file__).parents[2] / "checkpoints/old/results.json", folder / "test")
    measure_fid = next(words for words in commands_in(write_page(folder)) if "fid" in words)
    callbacks = parse(measure_fid).trainer.callbacks
    (evaluation,) = [callback for callback in callbacks if isinstance(callback, Evaluation)]
    (fid,) = [measure for measure in evaluation.measures if isinstance(measure, SetDistances)]
    assert (fid.feature, fid.weights) == (2048, "WEIGHTS.pth")


class Corners(nn.Module):
    """In place of Inception: a few pixels of an image."""

    Conv2d_1a_3x3 = nn.Identity()

    def forward(self, images):
        return (images[:, :, ::8, ::8].flatten(1) / 255,)


def test_commands_and_figures_of_the_page_hold(tmp_path, facades, unet, monkeypatch):
    """All that the page tells to type is typed, and what it says is counted and measured again."""
    folder = tmp_path / "a run's folder"
    page, file = folder / "report.html", folder / "generator.pth"
    main([*tiny.compression(folder, unet, "UniformWidth"), *facades])
    monkeypatch.setattr(fid, "load_inception", lambda *_: Corners())
    for kinds in (["test", "export"], ["test", "export"], ["export"]):
        commands = commands_in(page)
        assert [command.split()[1] for command in commands] == kinds
        for command in commands:
            main(shlex.split(command)[1:])
    text = html.unescape(page.read_text())
    names: dict[str, Any] = {}
    exec(re.search(r"<pre>(from .*?)</pre>", text, re.DOTALL)[1], names)
    teacher, student = load_generator(unet), names["generator"]
    results = TestResults.read(folder / "test" / "results.json")
    tiles = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd><dd>(.*?)</dd>", text)
    figures = {label: figure for label, figure, _ in tiles}
    macs = count_macs(teacher, [blank_image(teacher, 32)]) / count_macs(student, [blank_image(student, 32)])
    params = count_params(teacher) / count_params(student)
    assert figures["Fewer MACs, exact"] == f"{macs:.1f}\u00d7"
    assert f"with {macs:.1f}\u00d7 fewer MACs" in text
    assert figures["Fewer parameters"] == f"{params:.1f}\u00d7"
    assert results.networks["student"].figures["bytes"] == pytest.approx(file.stat().st_size, rel=0.05)
    assert figures["FID-48"] == f"{results.networks['student'].figures['fid_48']:.4g}"
    assert figures["Student to teacher"] == f"{results.comparison['teacher_l1']:.3f}"
    speedup = results.latency["torch"].speedup
    assert figures["Faster"] == f"{speedup:.1f}\u00d7"
    assert f"speed-up {speedup:.2f}." in text
    rows = re.findall(r'<th scope="row">(.*?)</th>\s(.*?)</tr>', text, re.DOTALL)
    cells = {label: re.findall(r"<td class=\"n.*?\">(.*?)</td>", row) for label, row in rows}
    for name in results.names:
        if not name.startswith("teacher_"):
            measured = [network.figures[name] for network in results.networks.values()]
            shown = [float(cell.split("\u2009")[0]) for cell in cells[metric(name).heading][:2]]
            assert shown == [float(metric(name).number(value)) for value in measured], name


def commands_in(page: Path) -> list[str]:
    """What stands on the page to be typed."""
    found = re.findall(r"<(?:code|pre)>(gancompress .*?)</", page.read_text(), re.DOTALL)
    return [command for block in found for command in html.unescape(block).splitlines()]


def test_the_measured_speedup_is_shown(tmp_path):
    times = {name: LatencyResult(ms, ms, ms, 20) for name, ms in (("teacher", 8.0), ("student", 2.0))}
    networks = {
        name: NetworkResults({"latency_ms": t.median_ms}, {"latency_ms": t}) for name, t in times.items()
    }
    results = TestResults("finetune", 1, (8, 8), networks, latency={"torch": RuntimeFacts(speedup=3.5)})
    generator = Generator(Role("generator"), networks, results, (8, 8), None, {}, None)
    assert tiles(generator) == [("Faster", "3.5\u00d7", "8 → 2 ms an image")]
    untold = replace(generator, results=replace(results, latency={}))
    assert tiles(untold) == [("Faster", "4.0\u00d7", "8 → 2 ms an image")]


def test_runs_of_earlier_releases(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    description = json.loads((folder / "generator.json").read_text())
    assert description["provenance"].pop("gan_mode") == "vanilla"
    (folder / "generator.json").write_text(json.dumps(description))
    for path in (folder / "images").iterdir():
        Image.open(path).save(path)  # without its layout
    text, _ = check(write_page(folder))
    assert text.count("<img") == text.count('class="whole"') == 1
    assert text.count(">draw 0.69</text>") == 1


def test_page_and_comparison_load_no_lightning():
    code = (
        "import sys, lightning_gancompress.reporting.page, lightning_gancompress.reporting.comparison\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('lightning', 'pytorch_lightning')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
