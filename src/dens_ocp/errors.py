"""The one error users meet: it names the option or file, the value, and the fix."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class DensError(ValueError):
    """A mistake in the user's config, data or command.

    The message names the option or file, its value, and what to do. A data loader worker hands
    errors to the main process as text with the worker's whole traceback in front; only our own
    message is kept of it.
    """

    def __init__(self, message: str) -> None:
        marker = f"{type(self).__module__}.{type(self).__qualname__}: "
        if message.startswith("Caught ") and marker in message:
            message = message.rsplit(marker, 1)[1].strip()
        super().__init__(message)


def nearest(name: str, known: Iterable[str]) -> str:
    """``", did you mean 'x'?"`` for the closest of ``known``, or an empty string.

    >>> nearest("simga", ["sigma", "p", "r"])
    ", did you mean 'sigma'?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""


_NO_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}


def no_place(error: OSError) -> DensError | None:
    """The message for a file or folder that cannot be written, or read, for lack of rights, of
    space or of a folder; None for other errors of the system.

    >>> print(no_place(PermissionError(13, "Permission denied", "/data/out")))
    /data/out: Permission denied; give a writable place with free space
    """
    if error.errno not in _NO_PLACE:
        return None
    where = "" if error.filename is None else f"{error.filename}: "
    return DensError(f"{where}{error.strerror}; give a writable place with free space")
