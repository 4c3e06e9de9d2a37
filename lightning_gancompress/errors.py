"""The one exception for what a user can mend, and others in short."""


class UserError(Exception):
    """Bad input that the user can mend.

    The message is one clear sentence (or a few) that names the thing, its value and the remedy. The command
    line prints it without a traceback and exits with code 2; nothing is left half-written.
    """


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
