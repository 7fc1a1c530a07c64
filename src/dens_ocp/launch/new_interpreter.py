"""New processes of this Python that import nothing from the folder they are started in.

``python -m`` and ``python -c`` put that folder first on ``sys.path``: a user's ``queue.py`` in it
would run in place of Python's. The script ``dens-ocp`` does not, and what it starts must not either
(``python -P``, which does it, is of Python 3.11).
"""

from __future__ import annotations

import sys

_LEAVE_OUT = "import sys; sys.path[:] = filter(None, sys.path)\n"


def of_program(program: str, *arguments: str) -> list[str]:
    """Words of a command that runs Python code, with ``arguments`` in ``sys.argv[1:]``."""
    return [sys.executable, "-c", _LEAVE_OUT + program, *arguments]


def of_command_line(*arguments: str) -> list[str]:
    """Words of ``dens-ocp ARGUMENTS``, also where its script is not installed."""
    return of_program("from dens_ocp.tools.cli import main; sys.exit(main())", *arguments)


def of_module(name: str, *arguments: str) -> list[str]:
    """Words of ``python -m NAME ARGUMENTS``."""
    run = f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    return of_program(run, *arguments)
