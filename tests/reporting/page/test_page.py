"""Pages of whole runs."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import tiny
from PIL import Image

from lightning_gancompress.callbacks.image_grid import draw_grid
from lightning_gancompress.cli import main
from lightning_gancompress.reporting.page.pictures import cut_grid
from lightning_gancompress.reporting.page.quality import quality_table

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
    teacher = {"params": 2_000_000, "fid_768": 2.0, "novelty": 0.5, "latency_ms": {"median_ms": 8.0}}
    student = {"params": 1_000_000, "fid_768": 3.0, "nested": {"deep": [1]}, "latency_ms": {"median_ms": 2.0}}
    table = quality_table({"teacher": teacher, "student": student})
    for words in ("50&thinsp;%", "FID-768", "150&thinsp;%", "novelty", "25&thinsp;%"):
        assert words in table
    assert "nested" not in table


def test_grid_is_cut_into_the_pictures_it_was_drawn_from(tmp_path):
    import torch

    images = {name: [torch.full((3, 16, 48), n / 2 - 1)] * 2 for n, name in enumerate(("a", "b", "c"))}
    draw_grid(images).save(tmp_path / "grid.png")
    rows = cut_grid(tmp_path / "grid.png", ["a", "b", "c"], (16, 48))
    assert len(rows) == 2
    for level, picture in zip((0, 64, 128), rows[1].values(), strict=True):
        assert picture.size == (48, 16)
        assert all(abs(edge - level) <= 1 for pair in picture.getextrema() for edge in pair)
    Image.new("RGB", (31, 77)).save(tmp_path / "other.png")
    assert list(cut_grid(tmp_path / "other.png", ["a", "b", "c"], (16, 48))[0]) == [""]
