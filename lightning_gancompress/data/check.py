"""A look at a data set before a training: what can't be read, what looks wrong, what is there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from lightning_gancompress.data.contract import Split
from lightning_gancompress.data.datasets import FileDataset, Files
from lightning_gancompress.data.image_folder import ImageDataModule
from lightning_gancompress.data.inspection import inspect
from lightning_gancompress.data.labels import LabelReader
from lightning_gancompress.data.listing import evenly
from lightning_gancompress.data.reading import Header, ImageError, read_header
from lightning_gancompress.data.survey import doubts
from lightning_gancompress.data.twins import Looks, copies, looks_of, same_files, twins
from lightning_gancompress.errors import UserError
from lightning_gancompress.tasks.role import Role

SHOWN = 3  # files in a finding
THREADS = 8  # decoding and waiting for disks leave Python's lock

Item = TypeVar("Item")
Result = TypeVar("Result")
Watch = Callable[[Iterable[Any], str, int], Iterable[Any]]  # shows progress: items, what is done, how many


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
        text: A sentence with the remedy.
        stops: Whether a training stops there; else it is only suspicious.
    """

    text: str
    stops: bool = False


@dataclass
class Checked:
    """What is known of a split.

    Attributes:
        files: Files of its samples, by the generator that reads them.
        headers: Header of each file that can be read.
        looks: What tells the looks of some samples, by generator.
    """

    files: dict[Role, Files]
    headers: dict[Path, Header] = field(default_factory=dict)
    looks: dict[Role, list[tuple[Path, Looks]]] = field(default_factory=dict)

    def sound(self, files: tuple[Path, ...]) -> bool:
        """Whether the headers of a sample's files can be read, and its sizes fit each other."""
        if not all(path in self.headers for path in files):
            return False
        sizes = {self.headers[path].size for path in files}
        return len(sizes) == 1 and (len(set(files)) == len(files) or next(iter(sizes))[0] % 2 == 0)

    def sizes(self) -> Counter[tuple[int, int]]:
        """Width and height of its images, of which two may be side by side in a file, with their numbers."""
        return Counter(size for size, _ in self.sized())

    def sized(self) -> Iterator[tuple[tuple[int, int], Path]]:
        """Width and height of the images of each sample, and its first file."""
        for files in chain(*self.files.values()):
            if files[0] in self.headers:
                width, height = self.headers[files[0]].size
                halves = len(set(files)) < len(files)
                yield (width // 2 if halves else width, height), files[0]


class Check:
    """Looks at the images of a data module.

    Args:
        data: The data module.
        limit: Samples of a split, of each generator, whose pixels are looked at; 0 is all. Headers are read
            of all.
        watch: Shows the progress of long work.
    """

    def __init__(self, data: ImageDataModule, limit: int, watch: Watch) -> None:
        self.data, self.limit, self.watch = data, limit, watch
        self.splits: dict[Split, Checked] = {}
        self.findings: list[Finding] = []

    def run(self) -> None:
        """Fill `splits` and `findings`."""
        splits: tuple[Split, ...] = ("train", "val", "test")
        for split in splits:
            try:
                self.splits[split] = Checked(self.data.files(split))
            except UserError as error:
                self._find(str(error), stops=True)
        for split, checked in self.splits.items():
            if not any(other.files == checked.files for other in self._before(split)):
                self._read_headers(split, checked)
                self._look(split, checked)
                self._find_all(_of_copies(split, checked))
        self._find_all(map(Finding, doubts({s: list(c.files.values()) for s, c in self.splits.items()})))
        self._compare()

    def _before(self, split: Split) -> list[Checked]:
        names = list(self.splits)
        return [self.splits[name] for name in names[: names.index(split)]]

    def _find(self, text: str, stops: bool = False) -> None:
        if text and Finding(text, stops) not in self.findings:
            self.findings.append(Finding(text, stops))

    def _find_all(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._find(finding.text, finding.stops)

    # -- headers -------------------------------------------------------------------------------------------

    def _read_headers(self, split: Split, checked: Checked) -> None:
        paths = list(dict.fromkeys(chain(*chain(*checked.files.values()))))
        broken: list[str] = []
        for path, header in self._mapped(_header_or_error, paths, f"{split}: headers"):
            if isinstance(header, Header):
                checked.headers[path] = header
            else:
                broken.append(header)
        if broken:
            what = _count(broken, "file")
            self._find(f"{what} of {split} that can't be read: {' '.join(broken[:SHOWN])}", stops=True)
        self._find_all(_of_headers(split, checked.headers))
        self._find_all(_of_pairs(split, checked))
        self._find_all(_of_sizes(split, checked, self.data))

    def _mapped(
        self, function: Callable[[Item], Result], items: Sequence[Item], what: str
    ) -> Iterator[tuple[Item, Result]]:
        """Items and the function's results, computed side by side, with progress."""
        with ThreadPoolExecutor(THREADS) as pool:
            yield from zip(items, self.watch(pool.map(function, items), what, len(items)), strict=True)

    # -- pixels --------------------------------------------------------------------------------------------

    def _look(self, split: Split, checked: Checked) -> None:
        for role, dataset in self.data.datasets(split).items():
            if not isinstance(dataset, FileDataset):
                continue
            known = [n for n, files in enumerate(dataset.files) if checked.sound(files)]
            some = evenly(known, self.limit) if 0 < self.limit < len(known) else known
            seen = [
                (dataset.path(number), found)
                for number, found in self._mapped(partial(_sample, dataset), some, f"{split}: pixels")
            ]
            self._find_all(_of_samples(split, seen))
            checked.looks[role] = [(path, found.looks) for path, found in seen if found.looks is not None]
            with suppress(ImageError):  # which is found above
                self._find_all(map(Finding, inspect(dataset)))

    def _compare(self) -> None:
        """Find images that are in the training and in another split."""
        train = self.splits.get("train")
        for split, checked in self.splits.items():
            if train is None or split == "train" or checked.files == train.files:
                continue
            if any(other.files == checked.files for other in self._before(split)):
                continue
            for role in train.files:
                a, b = (sorted(set(chain(*s.files.get(role, [])))) for s in (train, checked))
                copied = dict(same_files(a, b))
                # all files of a sample: different photos may share a mask without any object
                whole = [files for files in checked.files.get(role, []) if copied.keys() >= {*files}]
                copies = [(path, copied[path]) for files in whole for path in dict.fromkeys(files)]
                self._find(_twice(copies, f"a file of {split} is a copy of one of train"))
                found = twins(train.looks.get(role, []), checked.looks.get(role, []))
                told = {path for path, _ in copies}
                exact = [pair for pair, equal in found if equal and pair[0] not in told]
                near = [pair for pair, equal in found if not equal]
                self._find(_twice(exact, f"an image of {split} has the pixels of one of train"))
                self._find(_twice(near, f"an image of {split} looks nearly like one of train"))


def _of_copies(split: str, checked: Checked) -> Iterator[Finding]:
    """Samples that are copies of others of their split."""
    for samples in checked.files.values():
        if found := copies(samples):
            kind = "pair" if len(samples[0]) == 2 else "image"
            shown = ", ".join(f"{path} of {twin}" for path, twin in found[:SHOWN])
            yield Finding(
                f"{_count(found, kind)} of {split} with the bytes of another: {shown}; each copy counts as "
                "one more: remove them, unless that is meant."
            )


def _twice(pairs: Sequence[tuple[Path, Path]], what: str) -> str:
    if not pairs:
        return ""
    shown = ", ".join(f"{a} and {b}" for a, b in pairs[:SHOWN])
    return (
        f"{_count(pairs, 'time')}: {what}: {shown}; a test on what was trained on says little: remove them."
    )


# -- of headers ----------------------------------------------------------------------------------------------


def _header_or_error(path: Path) -> Header | str:
    try:
        return read_header(path)
    except ImageError as error:
        return str(error)


def _of_headers(split: str, headers: dict[Path, Header]) -> Iterator[Finding]:
    """What is special about files, and maybe meant."""
    kinds = {
        "turned by an EXIF orientation": [p for p, header in headers.items() if header.turned],
        "animated, of which the first frame is read": [p for p, h in headers.items() if h.animated],
        "with transparent pixels, which become white": [p for p, h in headers.items() if h.transparent],
    }
    for words, paths in kinds.items():
        if paths:
            yield Finding(f"{_count(paths, 'file')} of {split} {words}: {_some(paths)}.")


def _count(items: Sequence[object], what: str) -> str:
    return f"{len(items)} {what}{'s' if len(items) > 1 else ''}"


def _some(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:SHOWN])) + (", ..." if len(paths) > SHOWN else "")


def _of_pairs(split: str, checked: Checked) -> Iterator[Finding]:
    """Pairs whose sizes can't be."""
    unequal, odd = [], []
    for a, *b in chain(*checked.files.values()):
        if a not in checked.headers or not b or b[0] not in checked.headers:
            continue
        one, other = checked.headers[a].size, checked.headers[b[0]].size
        if a == b[0] and one[0] % 2:
            odd.append(a)
        elif one != other:
            unequal.append(f"{a} ({one[0]}x{one[1]}) and {b[0]} ({other[0]}x{other[1]})")
    if unequal:
        some = ", ".join(unequal[:SHOWN])
        text = f"{_count(unequal, 'pair')} of {split} of different sizes: {some}; resize one of each."
        yield Finding(text, stops=True)
    if odd:
        text = f"{_count(odd, 'file')} of {split} of odd width, so without equal halves A | B: {_some(odd)}."
        yield Finding(text, stops=True)


def _of_sizes(split: str, checked: Checked, data: ImageDataModule) -> Iterator[Finding]:
    """Sizes that the preprocessing can't take, or that can't share a training batch."""
    first: dict[tuple[int, int], Path] = {}
    for size, path in checked.sized():
        first.setdefault(size, path)
    small: dict[str, None] = {}
    for size, path in first.items():
        try:
            data.options.final_size(size, path)
        except ImageError as error:
            small[str(error)] = None
    if small:
        yield Finding(f"{split}: {next(iter(small))}", stops=True)
    elif split == "train" and data.batch_size > 1:
        results = {data.options.trained_size(size) for size in first}
        if len(results) > 1:
            some = ", ".join("x".join(map(str, size)) for size in sorted(results)[:SHOWN])
            yield Finding(
                f"Images of train have {len(results)} sizes ({some}) after data.preprocess "
                f"{data.preprocess}, but data.batch_size is {data.batch_size}: set preprocess to "
                "resize_and_crop, or batch_size to 1.",
                stops=True,
            )


# -- of pixels -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """What the pixels of a sample say.

    Attributes:
        error: Why it can't be used; empty if it can.
        flat: Its images that have a single colour.
        equal: Whether source and target have the same pixels.
        looks: What tells its looks; None if it can't be used.
    """

    error: str = ""
    flat: tuple[Path, ...] = ()
    equal: bool = False
    looks: Looks | None = None


def _sample(dataset: FileDataset, number: int) -> Sample:
    try:
        images = dataset.images(number)
        for key, side in dataset.sides.items():
            if isinstance(side, LabelReader):
                side.check(*images[key])
    except ImageError as error:
        return Sample(str(error))
    pictures = [image for image, _ in images.values()]
    equal = len(pictures) == 2 and _same(*pictures)
    flat = tuple(path for image, path in images.values() if _is_flat(image))
    return Sample("", flat, equal, looks_of(pictures))


def _is_flat(image: Image.Image) -> bool:
    values = np.asarray(image)
    return bool((values == values[:1, :1]).all())


def _same(one: Image.Image, other: Image.Image) -> bool:
    return one.mode == other.mode and one.size == other.size and one.tobytes() == other.tobytes()


def _of_samples(split: str, seen: Sequence[tuple[Path, Sample]]) -> Iterator[Finding]:
    errors = [sample.error for _, sample in seen if sample.error]
    if errors:
        text = f"{_count(errors, 'sample')} of {split} that can't be used: {' '.join(errors[:SHOWN])}"
        yield Finding(text, stops=True)
    flat = list(chain(*(sample.flat for _, sample in seen)))
    equal = [path for path, sample in seen if sample.equal]
    if flat:
        yield Finding(f"{_count(flat, 'image')} of {split} of a single colour: {_some(flat)}.")
    if equal:
        remedy = "remove them, or look whether the right files are paired"
        yield Finding(f"{_count(equal, 'source')} of {split} equal to the target: {_some(equal)}; {remedy}.")
