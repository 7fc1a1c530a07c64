"""What a check found, in one line and, for problems, with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from dens_ocp.tools.doctor import archives

OK, WARNING, PROBLEM = "ok", "warning", "problem"


class Finding(NamedTuple):
    """One line of the doctor's.

    Attributes:
        status: :data:`OK`, :data:`WARNING` (works, but look at it) or :data:`PROBLEM` (a run will
            fail or give wrong results).
        check: what was looked at, ``torch-scatter`` or ``dataset.train`` for example.
        text: what was found.
        fix: what to do, a command where there is one; problems have it.
    """

    status: str
    check: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        line = f"{self.status:<8} {self.check:<20} {self.text}"
        return f"{line}\n{'':<9}-> {self.fix}" if self.fix else line


def refused(check: str, error: Exception) -> Finding:
    """The problem that a ``DensError`` tells; such messages end with the fix, after a semicolon."""
    text, _, fix = str(error).rpartition("; ")
    if fix == "correct the path" and ": " in text:
        option, _, rest = text.partition(": ")
        fix = f"give --{option}=PATH, or correct it in the config"
        if advice := archives.to_download(rest.partition(" does not exist")[0]):
            fix = f"{advice}; or {fix}"
    return Finding(PROBLEM, check, text or fix, fix if text else "see the message")


def guarded(check: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of ``look``; a check that fails itself is a problem and ends no others."""
    from dens_ocp.errors import DensError

    try:
        yield from look()
    except DensError as error:
        yield refused(check, error)
    except Exception as error:
        said = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        fix = "repair the problems above first; if there are none, please report this line"
        yield Finding(PROBLEM, check, f"the check failed: {said}", fix)
