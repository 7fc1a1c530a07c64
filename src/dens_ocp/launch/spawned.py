"""What fairchem's command line runs in the processes that it starts.

Stock ``fairchem.core._cli.main`` hands functions and classes of its own over to ranks (torch's
launcher) and jobs (submitit), by name. A process that imports them knows nothing of this package,
so ``trainer: dens`` is not found there. Those of this module are found in it, and importing it
imports the package, which makes its names known. Importing it puts them in fairchem's places too.
"""

from __future__ import annotations

from typing import Any

from fairchem.core import _cli


class Runner(_cli.Runner):
    """fairchem's."""


def run(config: dict[str, Any]) -> None:
    """fairchem's ``runner_wrapper``."""
    Runner()(config)


_cli.Runner, _cli.runner_wrapper = Runner, run
