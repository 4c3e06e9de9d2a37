"""Which image of A belongs to which of B: always by name, never by the order of the files.

Names are compared without their endings. Names of A and of B may end differently, as in `house.jpg` and
`house_L.png`: such a suffix is given, or found where it explains all names.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path

from lightning_gancompress.data.listing import list_images
from lightning_gancompress.errors import UserError

SHOWN = 3  # names in a message
_PHOTOS = {".jpg", ".jpeg"}  # beside a file of the same name: the photo, since a JPEG can hold no label map


@dataclass(frozen=True)
class Side:
    """The images of A, or those of B.

    Attributes:
        folder: Folder that holds them.
        suffix: What their names end in, with or without the file's ending; other images are none of them.
    """

    folder: Path
    suffix: str = ""

    def named(self, files: Iterable[Path]) -> dict[str, Path]:
        """Those of some files that belong to this side, by their relative paths without suffix and ending.

        Raises:
            UserError: Two of them have the same name.
        """
        named: dict[str, Path] = {}
        for file in files:
            if (name := self._name(file)) is not None and (other := named.setdefault(name, file)) != file:
                raise UserError(
                    f"Images {other} and {file} differ in their ending only: rename or remove one, or set "
                    f"data.source_suffix or data.target_suffix to {file.suffix} if only these are meant."
                )
        return named

    def _name(self, file: Path) -> str | None:
        relative = file.relative_to(self.folder)
        for end in (self.suffix, self.suffix + file.suffix):
            if end and file.name.lower().endswith(end.lower()):
                return str(relative.parent / file.name[: len(file.name) - len(end)])
        return None if self.suffix else str(relative.with_suffix(""))


Sides = tuple[Side, Side]  # of A and of B; equal for A | B side by side in each file


def pairs_in(sides: Sides) -> list[tuple[Path, Path]]:
    """The pairs of files of A and B, in the order of the names of A.

    Raises:
        UserError: An image has no partner, or two images of a side have the same name.
    """
    a, b = sides
    if a == b:
        return [(file, file) for file in list_images(a.folder)]
    named_a, named_b = _named(a, b)
    lonely: list[list[Path]] = []
    for suffix_a, suffix_b in _ways(sides, named_a, named_b):
        one, other = _renamed(named_a, suffix_a), _renamed(named_b, suffix_b)
        if one and one.keys() == other.keys():
            return [(file, other[name]) for name, file in one.items()]
        alone = [one[name] for name in sorted(one.keys() - other.keys())]
        lonely.append(alone + [other[name] for name in sorted(other.keys() - one.keys())])
    alone = min(lonely, key=len)
    names = ", ".join(f"{file.parent.name}/{file.name}" for file in alone[:SHOWN])
    raise UserError(
        f"{len(alone)} images of {a.folder} and {b.folder} have no partner of the same name, such as "
        f"{names}: add their partners or remove them, set data.source_suffix and data.target_suffix to what "
        "the names of sources and targets end in, or use UnpairedDataModule if these are no pairs."
    )


def _named(a: Side, b: Side) -> tuple[dict[str, Path], dict[str, Path]]:
    """The images of A and B by name; those of the inner folder, or of the longer suffix, are no other's.

    A mere ending comes after any suffix of names: `.png` would take `house_L.png` as well.
    """

    def rank(side: Side) -> tuple[int, bool, int]:
        return len(side.folder.parts), not side.suffix.startswith("."), len(side.suffix)

    first, second = sorted((a, b), key=rank, reverse=True)
    inner = first.named(list_images(first.folder))
    taken = set(inner.values())
    if second.folder != first.folder:  # with a suffix some in its folder may be of nobody
        taken |= set(list_images(first.folder))
    outer = second.named(file for file in list_images(second.folder) if file not in taken)
    return (inner, outer) if first is a else (outer, inner)


def _ways(sides: Sides, a: Collection[str], b: Collection[str]) -> Iterable[tuple[str, str]]:
    """Suffixes to take off the names of A and B: none, and those that all names of a folder share."""
    yield "", ""
    if sides[0].folder != sides[1].folder and not any(side.suffix for side in sides):
        one, other = _shared_suffix(a), _shared_suffix(b)
        # numbers may just count, or be dates: 1_0 and 1_1 are other images, 1_a and 1_b two sides of one
        if all(not suffix or _in_words(suffix) for suffix in (one, other)) and _in_words(one) != _in_words(
            other
        ):
            yield one, other


def _in_words(suffix: str) -> str:
    """The letters of a suffix."""
    return "".join(re.findall(r"[^\W\d_]", suffix)).casefold()


def _renamed(named: Mapping[str, Path], suffix: str) -> dict[str, Path]:
    """The names without a suffix; without case and in one form of Unicode where they stay different."""
    names = {name.removesuffix(suffix): file for name, file in named.items()}
    folded = {unicodedata.normalize("NFC", name).casefold(): file for name, file in names.items()}
    return folded if len(folded) == len(names) else names


def _shared_suffix(names: Collection[str]) -> str:
    """What all of several names end in, from a separator on: `_L`."""
    backwards = [name[::-1] for name in names]
    shared = commonprefix(backwards)[::-1] if len(names) > 1 else ""  # noqa: RUF071 - characters are meant
    found = re.search(r"[-_. ][^/]*$", shared)
    return found[0] if found else ""


# -- A and B in one folder -----------------------------------------------------------------------------------


def sides_of(folder: Path) -> Sides | None:
    """A and B of a folder that holds both as files of their own, told apart by their names; None if not.

    A is what has no suffix, or the photo of two files of the same name: `house.jpg` with `house_L.png`, or
    with `house.png`.

    Raises:
        UserError: The folder holds pairs, but their names don't tell which are A.
    """
    files = list_images(folder)
    if len(files) < 4 or len(files) % 2:
        return None
    suffixes = _by_ending(files) or _by_suffix([str(file.with_suffix("")) for file in files])
    if suffixes is None:
        return None
    if suffixes[0] and not (suffixes[0] in _PHOTOS and suffixes[1] not in _PHOTOS):
        raise UserError(
            f"{folder} holds pairs whose names end in {suffixes[0]} and {suffixes[1]}, which doesn't tell "
            "what to translate: set data.source_suffix to the one and data.target_suffix to the other."
        )
    return Side(folder, suffixes[0]), Side(folder, suffixes[1])


def _by_ending(files: list[Path]) -> tuple[str, str] | None:
    """The two endings of files that are there once with each."""
    names: dict[str, set[Path]] = {}
    for file in files:
        names.setdefault(file.suffix.lower(), set()).add(file.with_suffix(""))
    if len(names) != 2 or len(set(map(frozenset, names.values()))) != 1:
        return None
    one, other = sorted(names, key=lambda ending: (ending not in _PHOTOS, ending))
    return one, other


def _by_suffix(names: list[str]) -> tuple[str, str] | None:
    """The suffixes of two halves of names that are the same without them; the first may be empty."""
    counts = Counter(
        name[found.start() :] for name in names for found in re.finditer(r"[-_. ](?=[^/]*$)", name)
    )
    for suffix in sorted((s for s, n in counts.items() if 2 * n == len(names)), key=len):
        b = {name.removesuffix(suffix) for name in names if name.endswith(suffix)}
        a = {name for name in names if not name.endswith(suffix)}
        shared = _shared_suffix(a)
        # numbers may just count: 1 and 1_0
        if a == b and _in_words(suffix):
            return "", suffix
        if shared and {name.removesuffix(shared) for name in a} == b:
            one, other = sorted((shared, suffix))
            return one, other
    return None
