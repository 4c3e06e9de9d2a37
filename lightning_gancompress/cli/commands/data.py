"""The commands `data check`, `data pair` and `data download`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from lightning.pytorch import LightningDataModule
from PIL import Image

from lightning_gancompress.data.check import Check, Checked
from lightning_gancompress.data.contract import GANDataModule
from lightning_gancompress.data.download import download_set
from lightning_gancompress.data.image_folder import ImageDataModule
from lightning_gancompress.data.joining import join_pairs
from lightning_gancompress.data.known_sets import SETS
from lightning_gancompress.data.labels import as_picture
from lightning_gancompress.data.pictures import to_picture
from lightning_gancompress.errors import UserError
from lightning_gancompress.files import require_writable, user_path, write_files
from lightning_gancompress.options import CountOrNone, checked
from lightning_gancompress.reporting.grid import cut, lay_out, png

ROWS = 8  # pictures of the first batches
COLUMNS = ("source", "target", "A", "B")

Item = TypeVar("Item")


def data() -> None:
    """Look at a data set before training (check), join two folders (pair), fetch a known set (download)."""


@checked
def check(
    data: LightningDataModule,
    output: str = "data_check.png",
    limit: CountOrNone = 2000,
) -> None:
    """Say what a training would see in a folder, what is broken or looks wrong, and draw the first batch.

    Exit code 1 says that a training would stop; 0 that it would not, though something may look suspicious.

    Args:
        data: The data module.
        output: PNG file to write: the first training images as networks see them, source beside target.
        limit: Samples of a split whose pixels are looked at, evenly spread; headers are read of all. 0 is
            all.
    """
    if not isinstance(data, ImageDataModule):
        kind = "a data set" if isinstance(data, GANDataModule) else "a data module"
        raise UserError(
            f"data is a {type(data).__name__}, {kind} of its own: `data check` looks at folders of images."
        )
    path = user_path(output)
    _require_own(path)
    require_writable(path.parent, "output")
    data.prepare_data()
    inspection = Check(data, limit, _progress)
    inspection.run()
    told: dict[str, Checked] = {}
    for split, seen in inspection.splits.items():
        same = next((name for name, other in told.items() if other.files == seen.files), None)
        print(f"{split}: {f'as {same}' if same else _describe(seen, data)}")
        told[split] = seen
    _say_limit(inspection)
    stops = [finding.text for finding in inspection.findings if finding.stops]
    for finding in inspection.findings:
        if not finding.stops:
            print(f"note: {finding.text}")
    if not stops:
        try:
            columns = first_pictures(data)
            write_files({path: png(lay_out(columns))})
            count = len(next(iter(columns.values())))
            print(f"Wrote {path}: {' | '.join(columns)} of the first {count}, as networks see them.")
        except UserError as error:
            stops.append(str(error))
    for text in stops:
        print(f"stops a training: {text}")
    if stops:
        print(f"{path} is not written until a training could start.")
        raise SystemExit(1)
    print(f"Fine. In a configuration:\n{_section(data)}")


def _require_own(path: Path) -> None:
    """Refuse to replace a picture that is no grid."""
    if path.exists():
        try:
            own = path.suffix.lower() == ".png" and "" not in cut(path)[0]
        except UserError:
            own = False
        if not own:
            raise UserError(f"output {path} exists and was not written by this command: choose another name.")


def _describe(seen: Checked, data: ImageDataModule) -> str:
    """Numbers, folders and sizes of a split."""
    domains = seen.files.values()
    sizes = seen.sizes()
    one = next(iter(domains))[0]
    kind = "pairs" if len(one) == 2 else "images"
    text = f"{' + '.join(str(len(files)) for files in domains)} {kind}, {_places(seen, data)}"
    if not sizes:
        return text
    (most, count), ordered = sizes.most_common(1)[0], sorted(sizes, key=lambda size: size[0] * size[1])
    if len(sizes) == 1:
        return f"{text}, all {_x(most)}"
    share = f"{count} of {sum(sizes.values())}"
    return f"{text}, {_x(ordered[0])} to {_x(ordered[-1])}, most often {_x(most)} ({share})"


def _x(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _places(seen: Checked, data: ImageDataModule) -> str:
    """What is the source and what the target of a pair, by the example of the first; or the first images."""
    first = [files[0] for files in seen.files.values()]
    names = [[str(_below(path, data.folder)) for path in files] for files in first]
    if len(first) == 1 and len(first[0]) == 2:
        backwards = data.preprocessing.get("direction") == "BtoA"
        if first[0][0] == first[0][1]:
            return f"A | B side by side, {'B' if backwards else 'A'} is the source, such as {names[0][0]}"
        source, target = names[0][::-1] if backwards else names[0]
        return f"source and target such as {source} and {target}"
    return "such as " + " and ".join(name for one in names for name in one)


def _below(path: Path, folder: Path) -> Path:
    return path.relative_to(folder) if folder in path.parents else path


def _say_limit(inspection: Check) -> None:
    numbers = {
        split: (sum(map(len, seen.looks.values())), sum(map(len, seen.files.values())))
        for split, seen in inspection.splits.items()
        if seen.looks
    }
    if any(looked < total for looked, total in numbers.values()):
        words = ", ".join(f"{looked} of {total} of {split}" for split, (looked, total) in numbers.items())
        print(f"Pixels: {words} (--limit={inspection.limit}); headers and copies of files: all.")


def first_pictures(data: ImageDataModule) -> dict[str, list[Image.Image]]:
    """The first images of a training as pictures, by what they are: source, and target if there is one."""
    columns: dict[str, list[Image.Image]] = {}
    for batch in data.train_dataloader():
        for key in (key for key in COLUMNS if key in batch):
            images = as_picture(batch[key], data.preprocessing) if key in ("source", "A") else batch[key]
            columns.setdefault(key, []).extend(map(to_picture, images))
        if len(next(iter(columns.values()))) >= ROWS:
            break
    return {key: pictures[:ROWS] for key, pictures in columns.items()}


def _section(data: ImageDataModule) -> str:
    """The part `data` of a configuration: class and the options that differ from their defaults."""
    defaults = {name: field.default for name, field in data.__dataclass_fields__.items() if field.init}
    given = {name: getattr(data, name) for name in defaults if getattr(data, name) != defaults[name]}
    plain: Mapping[str, Any] = {
        name: vars(value)
        if hasattr(value, "__dict__")
        else list(value)
        if isinstance(value, tuple)
        else value
        for name, value in given.items()
    }
    section = {"data": {"class_path": type(data).__name__, "init_args": dict(plain)}}
    return str(yaml.safe_dump(section, sort_keys=False)).rstrip()


def _progress(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Items as they come; what takes long tells on standard error how far it is."""
    began = spoke = time.monotonic()
    every = 0.5 if sys.stderr.isatty() else 20.0
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - spoke > every and number < total:
            spoke, rate = now, number / (now - began)
            left = (total - number) / rate
            end = "\r" if sys.stderr.isatty() else "\n"
            words = f"{what}: {number} of {total}, {rate:.0f} a second, {left:.0f} s left"
            print(f"{words:<79}", end=end, file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(" " * 79, end="\r", file=sys.stderr, flush=True)


@checked
def pair(a: str, b: str, output: str, a_suffix: str | None = None, b_suffix: str | None = None) -> None:
    """Join the images of two folders side by side, A | B, as pytorch-CycleGAN-and-pix2pix reads pairs.

    Images are paired by name, whatever their endings; folders within A and B, such as train and test, become
    the same folders in OUTPUT. Files are PNG, which loses nothing but the numbers of a palette's
    colours: label maps with a palette train as two folders. The same command goes on after a stop.

    Args:
        a: Folder of A, which becomes the left half.
        b: Folder of B.
        output: Folder to write to; nothing in A and B changes.
        a_suffix: What the names of A end in, such as `_photo`, if that is not recognised.
        b_suffix: The same for B.
    """
    written, kept = join_pairs(
        user_path(a), user_path(b), user_path(output), (a_suffix or "", b_suffix or ""), _progress
    )
    already = f"; {kept} were there already" if kept else ""
    print(f"Wrote {written} pairs to {output}{already}.")


@checked
def download(
    name: str | None = None, output: str | None = None, url: str | None = None, sha256: str | None = None
) -> None:
    """Fetch one of the known data sets, and unpack it; without a name list them.

    An interrupted download goes on where it stopped. Read the licence of a set before you use it.

    Args:
        name: Name of the set.
        output: Folder to make; None is `data/NAME`.
        url: Address of the archive (.tar.gz, .tgz, .tar or .zip), for a mirror or for a set of another name.
        sha256: Its digest, which the archive must have; None is the known one, if there is one.
    """
    if name is None:
        options = {"output": output, "url": url, "sha256": sha256}
        if given := [option for option, value in options.items() if value is not None]:
            raise UserError(f"{given[0]} is for one set: give its name too, as in `data download facades`.")
        for known in SETS.values():
            print(f"{known.name:<24} {known.what}")
        return
    download_set(name, user_path(output or f"data/{name}"), url, sha256, _report)


def _report(text: str, fleeting: bool = False) -> None:
    """Print a line; one that will be replaced goes to standard error, if somebody looks."""
    if not fleeting:
        print(text, flush=True)
    elif sys.stderr.isatty():
        print(f"{text:<79}", end="\r", file=sys.stderr, flush=True)
