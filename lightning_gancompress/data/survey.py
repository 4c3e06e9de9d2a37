"""One line about the images of a run, from their paths and the headers of some."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from lightning_gancompress.data.datasets import Files
from lightning_gancompress.data.halves import SAMPLE, doubt_of_pairs
from lightning_gancompress.data.listing import evenly, skipped
from lightning_gancompress.data.reading import Header, ImageError, read_header

Size = tuple[int, int]  # width and height in pixels


def describe_images(
    splits: Mapping[str, Sequence[Files]],
    root: Path | None,
    result: Callable[[Size], Size],
    kinds: Sequence[str],
) -> str:
    """The line about a run's images: numbers, folders, sizes, channels and what is special.

    Args:
        splits: Files of each split: those of the pairs, or of each domain.
        root: Folder to which names are relative; None keeps them whole.
        result: The size of an image after preprocessing.
        kinds: What the networks read of each side, in words.
    """
    words = " / ".join(dict.fromkeys(kinds))
    texts = [(split, _describe(domains, root, result, words)) for split, domains in splits.items()]
    return f"Data: {'; '.join(f'{split}: {text}' if n else text for n, (split, text) in enumerate(texts))}."


def doubts(splits: Mapping[str, Sequence[Files]]) -> list[str]:
    """Warnings about single images that may be meant as pairs."""
    warnings = []
    for files in chain.from_iterable(splits.values()):
        if len(files[0]) == 2:
            continue
        if (text := doubt_of_pairs([path for (path,) in files])) is not None:
            warnings.append(text)
        names: dict[Path, set[str]] = {}
        for (path,) in files:
            names.setdefault(path.parent, set()).add(path.stem)
        if len(names) == 2 and len(set(map(frozenset, names.values()))) == 1:
            warnings.append(
                f"{' and '.join(map(str, names))} hold images of the same names, and all are read alike: "
                "name one of the folders if these are sources and targets."
            )
    return warnings


def _describe(domains: Sequence[Files], root: Path | None, result: Callable[[Size], Size], kinds: str) -> str:
    folders = _folders(domains)
    paths = [path for files in domains for path in dict.fromkeys(chain(*files))]
    headers = _headers(paths)
    pairs, halves = len(domains[0][0]) == 2, len(set(domains[0][0])) < len(domains[0][0])
    kind, one = "pair" if pairs else "image", [len(files) for files in domains] == [1]
    places = paths if len(paths) == 1 else folders
    names = " + ".join(_name(place, root) for place in places)
    parts = [
        f"{' + '.join(str(len(files)) for files in domains)} {kind if one else f'{kind}s'}",
        f"{names} (A | B side by side)" if halves else names,
        _sizes([header.size for header in headers], result, halves),
        kinds,
        *(["transparent pixels on white"] if any(header.transparent for header in headers) else []),
        *(["the first frame of animations"] if any(header.animated for header in headers) else []),
        *(_not_read(folders) if places is folders else []),
    ]
    return ", ".join(part for part in parts if part)


def _name(place: Path, root: Path | None) -> str:
    return str(place.relative_to(root)) if root is not None and root in place.parents else str(place)


def _folders(domains: Sequence[Files]) -> list[Path]:
    """The folder that holds all files of A, or of a domain, and that of B."""
    columns = [column for files in domains for column in zip(*files, strict=True)]
    return list(
        dict.fromkeys(Path(os.path.commonpath([path.parent for path in column])) for column in columns)
    )


def _headers(paths: Iterable[Path]) -> list[Header]:
    """Headers of some images of each ending; those that can't be read are left for later."""
    by_ending: dict[str, list[Path]] = {}
    for path in paths:
        by_ending.setdefault(path.suffix.lower(), []).append(path)
    headers = []
    for path in chain.from_iterable(evenly(group, SAMPLE) for group in by_ending.values()):
        with suppress(ImageError):
            headers.append(read_header(path))
    return headers


def _sizes(sizes: Sequence[Size], result: Callable[[Size], Size], halves: bool) -> str:
    found = Counter((width // 2, height) if halves else (width, height) for width, height in sizes)
    if not found:
        return ""
    (width, height), _ = found.most_common(1)[0]
    text = f"{width}x{height}" + (f" and {len(found) - 1} other sizes" if len(found) > 1 else "")
    with suppress(ImageError):  # which is told when all are looked at
        results = {result(size) for size in found}
        if len(results) == 1:
            text += f" to {'x'.join(map(str, results.pop()))}"
    return text


def _not_read(folders: Sequence[Path]) -> list[str]:
    others: Counter[str] = sum((skipped(folder) for folder in folders), Counter())
    counts = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in sorted(others.items()))
    return [f"not read as images: {counts}"] if others else []
