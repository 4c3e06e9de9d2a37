"""The exception for errors that a user can fix, and parts of its messages."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Bad input that the user can fix.

    The message names argument, value and remedy, in one sentence if possible. The command line prints it
    without a traceback and exits with code 2; no file is left half-written.
    """


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its class name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def did_you_mean(word: str, known: Iterable[str], ending: str = "") -> str:
    """` Did you mean X?` with the known word that is closest to a mistyped one; empty if none is close.

    Args:
        word: What was given.
        known: What could have been meant.
        ending: Follows the known word, as it did the given one.
    """
    closest = get_close_matches(word, sorted(known), n=1, cutoff=0.75)
    return f" Did you mean {closest[0]}{ending}?" if closest else ""
