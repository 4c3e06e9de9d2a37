"""Feed damaged and hostile files to everything that reads files: `python tests/fuzz.py --count 200`.

Each input is a valid file with one to three changes: of bytes, or of values in what it holds. A reader must
take it or refuse it in one sentence. Whatever else happens is counted: tracebacks, hangs, code that ran.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from PIL import Image

from lightning_gancompress import UserError, load_generator
from lightning_gancompress.checkpoints import load_networks, save_small
from lightning_gancompress.checkpoints.files import read_metadata, read_torch
from lightning_gancompress.checkpoints.generators import generators_in, recorded_preprocessing
from lightning_gancompress.cli import main
from lightning_gancompress.data import FolderDataModule, PairedDataModule
from lightning_gancompress.networks import NetworkSpec, ResnetGenerator
from lightning_gancompress.reporting.comparison import write_comparison
from lightning_gancompress.reporting.comparison.results import Place
from lightning_gancompress.reporting.grid import lay_out, png
from lightning_gancompress.reporting.page import write_page

OLD = Path(__file__).parent / "checkpoints" / "old"
SECONDS = 30  # of its processor, after which a reader hangs
WAIT = 600  # seconds by the clock, likewise
MEMORY = 6 * 2**30  # bytes that a reader may take
CANARY = "fuzz_canary"  # a module beside the files; nothing may import it
RUNS = ("os.system", "os.exec", "subprocess.Popen", "pty.spawn")  # audit events of code that runs


def deep(levels: int) -> Any:
    """Lists within lists."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


VALUES: list[Callable[[], Any]] = [
    *(
        lambda value=value: copy.copy(value)  # type: ignore[misc]
        for value in (
            *(None, True, -1, 0, 1, 3, 7, 10**9, 2**63, -(2**70), 0.5, -1.5, 1e300),
            *(float("nan"), float("inf"), "", "x", "x" * 3000, "0", "\0", "../../../etc/passwd", "/dev/null"),
            *(
                "os.system",
                f"{CANARY}.Net",
                f"{CANARY}.yaml",
                "generator_../../x",
                "<script>",
                "{}",
                "&a [*a]",
            ),
            *(
                [],
                {},
                [0],
                [1, 2],
                ["a"],
                {"a": 1},
                {"class_path": f"{CANARY}.Net"},
                {"class_path": "os.system"},
            ),
        )
    ),
    lambda: deep(50),
    lambda: deep(500),
]
TENSORS: list[Callable[[], Any]] = [
    lambda: torch.tensor(1.0),
    lambda: torch.zeros(0),
    lambda: torch.zeros(3, 3).to_sparse(),
    lambda: torch.zeros(1).expand(10**6, 10**6),
    lambda: torch.ones(2, 2, dtype=torch.complex64),
    lambda: torch.zeros(4, dtype=torch.int8),
    lambda: torch.empty(7, device="meta"),
]


def place(content: Any, rng: random.Random) -> tuple[Any, Any] | None:
    """A container in nested ones, and a key of it; large tables are no likelier than small ones."""
    found = None
    while isinstance(content, dict | list) and content and (found is None or rng.random() < 0.75):
        key = rng.choice(list(content) if isinstance(content, dict) else range(len(content)))
        found, content = (content, key), content[key]
    return found


def change(content: Any, rng: random.Random, values: list[Callable[[], Any]]) -> Any:
    """Content with a value replaced, removed, renamed, or in the place of another."""
    found = place(content, rng)
    kind = rng.random()
    if found is None or kind < 0.01:
        return rng.choice(values)()
    container, key = found
    if kind < 0.65:
        container[key] = rng.choice(values)()
    elif kind < 0.8:
        del container[key]
    elif kind < 0.9 and isinstance(container, dict):
        container[rng.choice(["", "x", 1, "generator_AtoB", "os.system"])] = container.pop(key)
    else:
        other, where = place(content, rng) or found
        container[key] = copy.deepcopy(other[where])
    return content


def damage(data: bytes, rng: random.Random) -> bytes:
    """Bytes with some of them changed, cut, repeated or put in."""
    data, kind = bytearray(data), rng.randrange(5)
    at, length = rng.randrange(len(data) + 1), rng.choice([1, 2, 8, 64, 1000])
    if kind == 0:
        for _ in range(rng.choice([1, 3, 20])):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        data[at:at] = data[at : at + length]
    else:
        data[at:at] = rng.randbytes(length)
    return bytes(data) if rng.random() > 0.02 else b""


def mutate(path: Path, rng: random.Random) -> None:
    """Damage a file, by its kind."""
    many, data = rng.choice([1, 1, 1, 2, 3]), path.read_bytes()
    if rng.random() < 0.3 or path.suffix not in READERS:
        for _ in range(many):
            data = damage(data, rng) or data
        path.write_bytes(data)
        return
    read, write, values = READERS[path.suffix]
    content = read(path)
    if path.suffix == ".json" and rng.random() < 0.03:
        path.write_text("[" * 100_000)
        return
    for _ in range(many):
        content = change(content, rng, values)
    with contextlib.suppress(
        RecursionError, TypeError, NotImplementedError
    ):  # can't be written, so can't be read
        write(content, path)


def read_rows(path: Path) -> Any:
    return [line.split(",") for line in path.read_text().splitlines()]


def write_rows(rows: Any, path: Path) -> None:
    path.write_text("\n".join(",".join(map(str, row if isinstance(row, list) else [row])) for row in rows))


def read_safe(path: Path) -> Any:
    return json.loads(read_metadata(path)["gancompress"])


def write_safe(description: Any, path: Path) -> None:
    metadata = {"gancompress": json.dumps(description)}
    path.write_bytes(safetensors.torch.save(read_torch(path), metadata))


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


READERS: dict[str, tuple[Callable[[Path], Any], Callable[[Any, Path], Any], list[Callable[[], Any]]]] = {
    ".json": (lambda p: json.loads(p.read_text()), lambda c, p: p.write_text(json.dumps(c)), VALUES),
    ".yaml": (lambda p: yaml.safe_load(p.read_text()), lambda c, p: p.write_text(yaml.safe_dump(c)), VALUES),
    ".csv": (read_rows, write_rows, VALUES),
    ".ckpt": (load, lambda c, p: torch.save(c, p), VALUES + TENSORS),
    ".pth": (load, lambda c, p: torch.save(c, p), VALUES + TENSORS),
    ".safetensors": (read_safe, write_safe, VALUES),
}


# -- kinds of input ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of input: makes valid files in a folder, and reads the folder."""

    make: Callable[[Path], None]
    read: Callable[[Path], None]
    names_classes: bool = False  # configurations are the user's own, and import what they name


def make_small(folder: Path, name: str = "generator", ending: str = ".pth") -> None:
    spec = NetworkSpec("lightning_gancompress.networks.ResnetGenerator", {"ngf": 2, "n_blocks": 1})
    preprocessing = {"crop_size": 32, "load_size": 36, "in_channels": 3, "out_channels": 3}
    provenance = {"budget": 0.3, "policy": "UniformWidth", "convention": "exact", "torch": "2"}
    network = ResnetGenerator(ngf=2, n_blocks=1)
    save_small(network, spec, folder / f"{name}{ending}", preprocessing=preprocessing, provenance=provenance)


def make_safe(folder: Path) -> None:
    make_small(folder, "generator", ".safetensors")


def read_small(folder: Path) -> None:
    path = next(folder.glob("generator.[ps]*"))
    recorded_preprocessing(path)
    with refusals():
        load_generator(path)
    generators_in(path)
    load_generator(path, architecture=ResnetGenerator(ngf=2, n_blocks=1))


def make_upstream(folder: Path) -> None:
    torch.save(ResnetGenerator(ngf=2, n_blocks=1).state_dict(), folder / "latest_net_G.pth")
    text = "----- Options -----\n   input_nc: 3\n  no_dropout: True\n  dropout_rate: 0\n   crop_size: 32\n"
    (folder / "train_opt.txt").write_text(text)


def read_upstream(folder: Path) -> None:
    recorded_preprocessing(folder / "latest_net_G.pth")
    load_generator(folder / "latest_net_G.pth")


def make_checkpoint(folder: Path) -> None:
    """A finished run of a random kind, with its data beside it."""
    name = random.Random(str(folder)).choice(["teacher", "search", "finetune", "cyclegan"])
    content = load(OLD / f"{name}.ckpt")
    content["run_config"]["trainer"]["default_root_dir"] = str(folder / "run")
    torch.save(content, folder / "last.ckpt")


def read_checkpoint(folder: Path) -> None:
    path = folder / "last.ckpt"
    with refusals():
        load_networks(path)
    with refusals():
        recorded_preprocessing(path)
    with refusals():
        command("profile", "--ckpt_path", path)
    command("test", "--ckpt_path", path, "--print_config")


def resume_checkpoint(folder: Path) -> None:
    """Test the run, and go on with it."""
    options = [
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--data.root=data",
        "--data.num_workers=0",
    ]
    with refusals():
        command("test", "--ckpt_path", folder / "last.ckpt", *options, "--trainer.limit_test_batches=1")
    command("fit", "--ckpt_path", folder / "last.ckpt", *options, "--trainer.limit_train_batches=1")


def make_run(folder: Path, name: str = "finetune", suffix: str = "") -> None:
    content = load(OLD / f"{name}.ckpt")
    for part in ("checkpoints", "test", "logs/version_0", "logs/version_1"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    shutil.copy(OLD / "results.json", folder / "test" / f"results{suffix}.json")
    (folder / "config.yaml").write_text(yaml.safe_dump(content["run_config"]))
    make_small(folder, f"generator{suffix}")
    rows = ["epoch,step,train/generator_l1,cost/generator_macs,train/generator_real,val/l1"]
    rows += [f"{step // 5},{step},{1 / (step + 1)},{0.5 if step < 9 else ''},0.5,0.4" for step in range(20)]
    for version in (0, 1):
        (folder / f"logs/version_{version}/metrics.csv").write_text("\n".join(rows))
    picture = Image.new("RGB", (16, 16), "red")
    columns = {name: [picture] * 2 for name in ("source", "target", "teacher", "student")}
    (folder / "test" / f"grid{suffix}.png").write_bytes(png(lay_out(columns)))


def read_run(folder: Path) -> None:
    with refusals():
        write_page(folder)
    (folder.parent / "a").mkdir(exist_ok=True)
    shutil.rmtree(folder.parent / "a" / "seed_0", ignore_errors=True)
    shutil.copytree(folder, folder.parent / "a" / "seed_0", symlinks=True)
    write_comparison(folder.parent, [Place("a", "", 0)], ["*"])


def make_images(folder: Path) -> None:
    for number, ending in enumerate(("png", "jpg", "webp", "tif", "bmp", "gif")):
        mode = ["RGB", "L", "RGBA", "P", "I;16", "CMYK"][number] if ending in ("png", "tif") else "RGB"
        Image.new("RGB", (40 + number, 33), "red").convert("L" if mode == "I;16" else mode).save(
            folder / f"a.{ending}"
        )


def read_images(folder: Path) -> None:
    for data in (
        FolderDataModule(str(folder), load_size=36, crop_size=32),
        PairedDataModule(str(folder), load_size=18, crop_size=16),
    ):
        with refusals():
            for dataset in data.datasets("train", augment=True).values():
                for index in range(len(dataset)):
                    with refusals():
                        dataset[index]


def make_config(folder: Path) -> None:
    settings = load(OLD / "finetune.ckpt")["run_config"]
    settings.pop("ckpt_path")
    settings.pop("weights_only")
    settings["trainer"] = {k: v for k, v in settings["trainer"].items() if v is not None}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    comparison = {"output": "out", "seeds": [0], "budgets": [0.1], "common": ["quickstart.yaml"]}
    (folder / "compare.yaml").write_text(
        yaml.safe_dump({**comparison, "experiments": {"a": [], "b": ["--x=1"]}})
    )


def read_config(folder: Path) -> None:
    with refusals():
        command("compare", "--config", folder / "compare.yaml", "--dry_run")
    command("fit", "--config", folder / "config.yaml", "--print_config")


def make_onnx(folder: Path) -> None:
    command("export", "--ckpt_path", OLD / "finetune.ckpt", f"--output={folder / 'generator.onnx'}")


def read_onnx(folder: Path) -> None:
    with refusals():
        load_generator(folder / "generator.onnx")
    command("export", "--ckpt_path", folder / "generator.onnx", f"--output={folder / 'other.onnx'}")


KINDS = {
    "images": Kind(make_images, read_images),
    "yaml": Kind(make_config, read_config, names_classes=True),
    "weights": Kind(make_small, read_small),
    "safetensors": Kind(make_safe, read_small),
    "upstream": Kind(make_upstream, read_upstream),
    "checkpoints": Kind(make_checkpoint, read_checkpoint),
    "resumed": Kind(make_checkpoint, resume_checkpoint),
    "runs": Kind(make_run, read_run),
    "cyclegan": Kind(lambda folder: make_run(folder, "cyclegan", "_AtoB"), read_run),
    "onnx": Kind(make_onnx, read_onnx),
}


# -- trials -----------------------------------------------------------------------------------------------


class Hang(BaseException):
    """A reader took too long."""


def command(*args: object) -> None:
    """Run a command of the command line, whose words must be one sentence if it refuses."""
    words = io.StringIO()
    try:
        with contextlib.redirect_stderr(words):
            main([str(arg) for arg in args])
    except SystemExit as stop:
        lines = [line for line in words.getvalue().splitlines() if line.startswith("error: ")]
        if stop.code not in (0, None):
            if stop.code != 2 or len(lines) != 1:
                raise AssertionError(f"exit code {stop.code}: {words.getvalue()[-300:]}") from None
            raise UserError(lines[0]) from None


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Context in which a sentence is as good as a result."""
    with contextlib.suppress(UserError):
        yield


@dataclass
class Tally:
    """What came of the trials of one kind."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    ran: list[str] = field(default_factory=list)


def trial(kind: Kind, folder: Path, rng: random.Random, tally: Tally) -> bool:
    """Make files, damage one of them, and read them; whether all went well."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    mutate(rng.choice(files), rng)
    started = len(tally.ran)
    outcome = "fine"
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAIT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind.read(folder)
    except UserError as error:
        outcome = "refused"
        if "\n" in str(error).strip():
            outcome = "traceback"
            tally.faults[f"more than one line: {error}"[:300]] += 1
    except Hang as error:
        outcome = "hang"
        tally.faults[f"hang in {where(error)}"] += 1
    except BaseException as error:
        outcome = "traceback"
        tally.faults[f"{type(error).__name__} in {where(error)}: {str(error)[:150]!r}"] += 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    if kind.names_classes:
        sys.modules.pop(CANARY, None)
    if CANARY in sys.modules or len(tally.ran) > started:
        outcome = "code"
        tally.faults[f"code ran: {[CANARY] * (CANARY in sys.modules) + tally.ran[started:]}"] += 1
        sys.modules.pop(CANARY, None)
    tally.counts[outcome] += 1
    return outcome in ("fine", "refused")


def where(error: BaseException) -> str:
    """The last line of this package in a traceback, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "lightning_gancompress" in frame.filename] or frames
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (ours[-1], frames[-1]))


def fuzz(name: str, count: int, seed: int, keep: Path | None = None) -> Tally:
    """Try `count` inputs of a kind, each with a seed of its own; the working folder is left as it was."""
    kind, tally, home = KINDS[name], Tally(), Path.cwd()

    def hang(*_: object) -> None:
        raise Hang

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event in RUNS and watching:
            tally.ran.append(f"{event} {str(args)[:80]}")

    watching = True
    sys.addaudithook(audit)
    before = {one: signal.signal(one, hang) for one in (signal.SIGALRM, signal.SIGPROF)}
    pristine = Path(tempfile.mkdtemp(prefix="fuzz_pristine"))
    try:
        for number in range(count):
            with tempfile.TemporaryDirectory(prefix="fuzz") as work:
                os.chdir(work)
                Path(f"{CANARY}.py").write_text("class Net: pass\n")
                Path(f"{CANARY}.yaml").write_text(f"class_path: {CANARY}.Net\n")
                folder = Path(work, "input")
                if number < 4:  # of checkpoints one of several kinds
                    (pristine / str(number)).mkdir()
                    watching = False
                    kind.make(pristine / str(number))
                    watching = True
                shutil.copytree(pristine / str(number % 4), folder)
                if not trial(kind, folder, random.Random(f"{name} {seed} {number}"), tally) and keep:
                    shutil.copytree(folder, keep / f"{name}_{seed}_{number}", dirs_exist_ok=True)
                os.chdir(home)
    finally:
        watching = False
        os.chdir(home)
        for one, handler in before.items():
            signal.signal(one, handler)
        shutil.rmtree(pristine)
    return tally


def run() -> int:
    """Parse arguments, try all kinds, print a table; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="inputs of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, nargs="*", default=list(KINDS))
    parser.add_argument("--keep", type=Path, help="folder for the inputs that went wrong")
    options = parser.parse_args()
    torch.set_num_threads(1)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, hard))
    outcomes, bad, faults = ("fine", "refused", "traceback", "hang", "code"), 0, []
    print("kind".ljust(14), *(outcome.rjust(10) for outcome in outcomes), flush=True)
    for name in options.kind:
        tally = fuzz(name, options.count, options.seed, options.keep)
        print(name.ljust(14), *(str(tally.counts[outcome]).rjust(10) for outcome in outcomes), flush=True)
        bad += sum(tally.counts[outcome] for outcome in outcomes[2:])
        faults += [f"{name}: {many} x {fault}" for fault, many in tally.faults.most_common()]
    print(*faults, sep="\n")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(run())
