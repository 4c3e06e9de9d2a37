"""The exception for errors that a user can fix."""


class UserError(Exception):
    """Bad input that the user can fix.

    The message names argument, value and remedy, in one sentence if possible. The command line prints it
    without a traceback and exits with code 2; no file is left half-written.
    """


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its class name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
