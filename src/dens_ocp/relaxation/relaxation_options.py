"""The relaxation settings of ``task`` as fairchem's relaxations take them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dens_ocp.dens.options import read
from dens_ocp.settings.sections.task import Task, relax_options

_DEFAULTS = {
    name: Task.model_fields[name].default for name in ("relaxation_steps", "relaxation_fmax")
}


def checked(task: Mapping[str, Any]) -> dict[str, Any]:
    """``task`` as fairchem's relaxations take it; the original is left as it is.

    ``relax_opt.name: lbfgs``, which published configs have, is left out of the result: fairchem
    hands it on to its only optimizer, which knows no such argument
    (``common/relaxation/ml_relaxation.py:95``). fairchem also asks for ``relax_opt`` to be there,
    and leaves a Path in the config, and so in checkpoints.

    Returns:
        A copy with ``relaxation_steps`` (0: energies and forces of the initial structures),
        ``relaxation_fmax`` (eV/Angstrom) and ``relax_opt``: ``maxstep`` (Angstrom), ``memory``,
        ``damping``, ``alpha`` (eV/Angstrom²) and ``traj_dir`` (a Path) where they are given.

    Raises:
        DensError: another optimizer, an unknown option, a value that is no positive number.
    """
    options = relax_options(task.get("relax_opt"))
    options.pop("name", None)
    if "traj_dir" in options:
        options["traj_dir"] = Path(options["traj_dir"])
    given = read(Task, {name: task[name] for name in _DEFAULTS if name in task}, "task")
    return {**task, **_DEFAULTS, **given, "relax_opt": options}


def fingerprint(task: Mapping[str, Any]) -> dict[str, Any]:
    """What decides about a trajectory besides weights and structure, from :func:`checked`.

    Batch size and seed are left out: they move results by rounding.
    """
    flags = {"relax_cell": False, "relax_volume": False, "save_full_traj": True}
    return {
        **{name: task[name] for name in _DEFAULTS},
        "relax_opt": {name: each for name, each in task["relax_opt"].items() if name != "traj_dir"},
        **{name: bool(task.get(name, default)) for name, default in flags.items()},
    }
