"""Lists that a checkpoint records and that the same command line appends to again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from jsonargparse import Namespace


def append_once(config: Namespace, recorded: dict[str, Any], appended: Collection[str]) -> None:
    """Give the appended lists of a resumed run the elements that they had in the first run.

    An element that was recorded isn't appended again; one with other options takes its place.

    Args:
        config: The parsed settings, whose lists begin with what was recorded where they were appended to.
        recorded: Settings recorded in the checkpoint.
        appended: Keys of the lists that the user's arguments append to, such as `trainer.callbacks`.
    """
    for name in appended:
        *parents, key = [part for part in name.split(".") if part != "init_args"]
        owner, record = _at(config, parents), _at(recorded, parents)
        if owner is None or record is None or key not in owner:
            continue
        items, before = owner[key], record.get(key)
        before = before if isinstance(before, list) else [before] if before else []
        if isinstance(items, list) and _begins(items, before):
            owner[key] = _merged(items[: len(before)], items[len(before) :])


def _at(tree: Any, keys: Sequence[str]) -> Any:
    """The mapping at dotted keys, in which `init_args` may be left out; the last element of a list."""
    for key in ("", *keys):
        if key:
            if tree is None or key not in tree:
                return None
            tree = tree[key]
        if isinstance(tree, list):
            tree = tree[-1] if tree else None
        if not isinstance(tree, (Namespace, dict)):
            return None
        if "class_path" in tree and "init_args" in tree:
            tree = tree["init_args"]
    return tree


def _begins(items: list[Any], before: list[Any]) -> bool:
    return len(items) > len(before) > 0 and all(map(_same, items, before))


def _merged(recorded: list[Any], appended: list[Any]) -> list[Any]:
    merged, free = list(recorded), list(range(len(recorded)))
    for item in appended:
        equal = [n for n in free if merged[n] == item] or [n for n in free if _same(merged[n], item)]
        if equal:
            free.remove(equal[0])
            merged[equal[0]] = item
        else:
            merged.append(item)
    return merged


def _same(one: Any, other: Any) -> bool:
    """Whether two elements are of one class, and, as Lightning tells callbacks apart, of one monitor."""
    if _value_at(one, "class_path") is None:
        return bool(one == other)
    kinds = [
        (_value_at(i, "class_path"), _value_at(_value_at(i, "init_args"), "monitor")) for i in (one, other)
    ]
    return bool(kinds[0] == kinds[1])


def _value_at(tree: Any, key: str) -> Any:
    return tree.get(key) if isinstance(tree, (Namespace, dict)) else None
