"""One clear sentence for what a user can mend."""

from __future__ import annotations

import errno
import re

from lightning.pytorch.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from lightning_gancompress.errors import UserError

_DISK = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def explain(error: BaseException) -> str | None:
    """One sentence for an error that the user can mend, None for any other."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError) or "errors.UserError: " in str(cause):
            # from another process it comes as text, below a traceback
            return str(cause).rpartition("UserError: ")[2].strip()
        if isinstance(cause, OSError) and cause.errno in _DISK:
            return f"{cause.filename or 'The output'} can't be written: {cause.strerror}."
        cause = cause.__cause__ or cause.__context__
    return str(error) if isinstance(error, MisconfigurationException) else None


def condense(message: str) -> str:
    """Shorten a nested report of jsonargparse to where, what, and what was given."""
    lines = [line.strip(" -") for line in message.splitlines()]
    where = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    noise = (
        "Does not validate",
        "Subtypes",
        "Errors",
        "Given value",
        "Problem with",
        "Expected a <class 'NoneType'>",
    )
    reasons = [re.sub(r'^Parser key "[^"]+":\s*', "", line) for line in lines if not line.startswith(noise)]
    given = [
        line for line in lines if line.startswith("Given value:") and "{" not in line and "(" not in line
    ]
    text = "; ".join(dict.fromkeys([*filter(None, reasons), *given]))
    text = re.sub(r"<class '(?:builtins\.)?([\w.]+)'>", r"\1", text).replace("typing.", "")
    return f"{where}: {text.rstrip('.')}." if where else f"{text.rstrip('.')}."
