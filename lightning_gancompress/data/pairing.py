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
from itertools import combinations
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
    other_kind = "FolderDataModule" if a.folder == b.folder else "UnpairedDataModule"
    raise UserError(
        f"{len(alone)} images of {' and '.join(dict.fromkeys((str(a.folder), str(b.folder))))} have no "
        f"partner of the same name, such as {names}: add their partners or remove them, set "
        "data.source_suffix and data.target_suffix to what the names of sources and targets end in, or use "
        f"{other_kind} if these are no pairs."
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
    if sides[0].folder != sides[1].folder and not any(side.suffix.partition(".")[0] for side in sides):
        one, other = _shared_suffix(a), _shared_suffix(b)
        # numbers may just count, or be dates: 1_0 and 1_1 are other images, 1_a and 1_b two sides of one
        if all(not suffix or _in_words(suffix) for suffix in (one, other)) and _in_words(one) != _in_words(
            other
        ):
            yield one, other


def share_names(a: Collection[str], b: Collection[str]) -> bool:
    """Whether at least half of some names are among others, as they are or without their usual suffixes."""
    one, other = _usual_suffix(a), _usual_suffix(b)
    ways = [("", "")] + [(one, other)] * (_in_words(one) != _in_words(other))
    return any(
        2 * len({name.removesuffix(x) for name in a} & {name.removesuffix(y) for name in b}) >= len(a) > 0
        for x, y in ways
    )


def _usual_suffix(names: Collection[str]) -> str:
    """The longest suffix with letters that more than half of some names have; empty if there is none."""
    usual = (tail for tail, count in _tails(names).items() if 2 * count > len(names) and _in_words(tail))
    return max(usual, key=len, default="")


def _tails(names: Iterable[str]) -> Counter[str]:
    """What names end in, from each of their separators on, with the numbers of names."""
    return Counter(
        name[found.start() :] for name in names for found in re.finditer(r"[-_. ](?=[^/]*$)", name)
    )


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
    with `house.png`. Half of the files make it a folder of pairs, so that `pairs_in` tells which are none.

    Raises:
        UserError: The folder holds pairs, but their names don't tell which are A, or other images too.
    """
    files = list_images(folder)
    suffixes = _by_ending(files) or _by_suffix([str(file.with_suffix("")) for file in files])
    if suffixes is None:
        return None
    a, b = suffixes
    if a and not (a in _PHOTOS and b not in _PHOTOS):
        raise UserError(
            f"{folder} holds pairs whose names end in {a} and {b}, which doesn't tell "
            "what to translate: set data.source_suffix to the one and data.target_suffix to the other."
        )
    if a and (others := [file for file in files if file.suffix.lower() not in suffixes]):
        names = ", ".join(file.name for file in others[:SHOWN])
        raise UserError(
            f"{folder} holds pairs whose names end in {a} and {b}, and {len(others)} other images, such as "
            f"{names}: remove these, or set data.source_suffix and data.target_suffix, to {a} and {b} if "
            "these are meant, or use FolderDataModule if these are no pairs."
        )
    return Side(folder, a), Side(folder, b)


def _are_pairs(pairs: int, files: int) -> bool:
    """Whether so many pairs make files those of pairs, of which some may be wrong."""
    return pairs >= 2 and 4 * pairs >= files


def _by_ending(files: list[Path]) -> tuple[str, str] | None:
    """The two endings of most files of the same names."""
    names: dict[str, set[Path]] = {}
    for file in files:
        names.setdefault(file.suffix.lower(), set()).add(file.with_suffix(""))
    shared = {both: len(names[both[0]] & names[both[1]]) for both in combinations(sorted(names), 2)}
    most = max(shared, key=lambda both: shared[both], default=None)
    if most is None or not _are_pairs(shared[most], len(files)):
        return None
    one, other = sorted(most, key=lambda ending: (ending not in _PHOTOS, ending))
    return one, other


def _by_suffix(names: list[str]) -> tuple[str, str] | None:
    """The suffixes of A and B among names that are mostly the same without them; the first may be empty."""
    found: dict[tuple[str, str], int] = {}
    tails = [tail for tail, count in _tails(names).items() if _are_pairs(count, len(names))]
    without = {
        tail: {name.removesuffix(tail) for name in names if name.endswith(tail)} for tail in ["", *tails]
    }
    for one, other in combinations(sorted(without), 2):
        if _in_words(one) != _in_words(other):  # numbers may just count: 1 and 1_0
            found[one, other] = len(without[one] & without[other])
    best = max(found, key=lambda both: (found[both], -len(both[0] + both[1])), default=None)
    return best if best is not None and _are_pairs(found[best], len(names)) else None
