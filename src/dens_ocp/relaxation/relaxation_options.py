"""The relaxation settings of ``task``: defaults, and mistakes found before anything is relaxed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dens_ocp.errors import DensError, nearest

OPTIMIZER = "lbfgs"
_LENGTHS = ("maxstep", "damping", "alpha")
KNOWN = ("name", *_LENGTHS, "memory", "traj_dir")

_STEPS, _FMAX = 300, 0.02
"""fairchem's defaults (``trainers/ocp_trainer.py:611``)."""


def checked(task: Mapping[str, Any]) -> dict[str, Any]:
    """``task`` as fairchem's relaxations take it; the original is left as it is.

    ``relax_opt.name: lbfgs``, which published configs have, is left out of the result: fairchem
    hands it on to its only optimizer, which knows no such argument
    (``common/relaxation/ml_relaxation.py:95``). fairchem also asks for ``relax_opt`` to be there,
    and leaves a Path in the config, and so in checkpoints.

    Returns:
        A copy with ``relaxation_steps``, ``relaxation_fmax`` (eV/Angstrom) and ``relax_opt``:
        ``maxstep`` (Angstrom), ``memory``, ``damping``, ``alpha`` (eV/Angstrom²) and ``traj_dir``
        (a Path) where they are given.

    Raises:
        DensError: another optimizer, an unknown option, a value that is no positive number.
    """
    options = task.get("relax_opt")
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise DensError(
            f"task.relax_opt: {options!r} is no mapping; write for example "
            "relax_opt: {maxstep: 0.2, memory: 50, damping: 1.2, alpha: 80.0, traj_dir: FOLDER}"
        )
    for option in options:
        if option not in KNOWN:
            raise DensError(
                f"task.relax_opt.{option}: unknown option{nearest(option, KNOWN)}; "
                f"there are {', '.join(KNOWN)}"
            )
    options = dict(options)
    name = options.pop("name", OPTIMIZER)
    if str(name).lower() != OPTIMIZER:
        raise DensError(
            f"task.relax_opt.name: {name!r} is not there{nearest(name, [OPTIMIZER])}; fairchem has "
            f"one optimizer for batches, name: {OPTIMIZER}"
        )
    for option in (*_LENGTHS, "memory"):
        if option in options:
            _positive(options[option], f"task.relax_opt.{option}", whole=option == "memory")
    if options.get("traj_dir"):
        options["traj_dir"] = Path(options["traj_dir"])
    else:
        options.pop("traj_dir", None)
    result = {
        **task,
        "relax_opt": options,
        "relaxation_steps": task.get("relaxation_steps", _STEPS),
        "relaxation_fmax": task.get("relaxation_fmax", _FMAX),
    }
    if result["relaxation_steps"] != 0:  # 0: energies and forces of the initial structures
        _positive(result["relaxation_steps"], "task.relaxation_steps", whole=True)
    _positive(result["relaxation_fmax"], "task.relaxation_fmax")
    return result


def _positive(value: Any, option: str, whole: bool = False) -> None:
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not value > 0:
        what = (
            "a whole number above 0" if whole else "a number above 0 (for example 0.02, not 2e-2)"
        )
        raise DensError(f"{option}: {value!r} is not {what}")


def fingerprint(task: Mapping[str, Any]) -> dict[str, Any]:
    """What decides about a trajectory besides weights and structure, from :func:`checked`.

    Batch size and seed are left out: they move results by rounding.
    """
    optimizer = {name: value for name, value in task["relax_opt"].items() if name != "traj_dir"}
    return {
        "relaxation_steps": task["relaxation_steps"],
        "relaxation_fmax": task["relaxation_fmax"],
        "relax_opt": optimizer,
        "relax_cell": bool(task.get("relax_cell", False)),
        "relax_volume": bool(task.get("relax_volume", False)),
        "save_full_traj": bool(task.get("save_full_traj", True)),
    }
