"""The one place that puts names into fairchem's registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

_COMMAND_LINES = ("dens-ocp", "fairchem", "-m")
"""Names of programs (``sys.argv[0]``, without ``.exe``) while this package is imported."""


def register() -> None:
    """Register trainer, models and data set with fairchem, here and in the processes that its
    command line starts. Done by ``import dens_ocp``."""
    from fairchem.core.common.registry import registry

    from dens_ocp.data.dens_lmdb import DeNSLmdbDataset
    from dens_ocp.launch.spawned import take_over
    from dens_ocp.models.equiformer.model import EquiformerDeNS
    from dens_ocp.models.equiformer_v2 import EquiformerV2DeNS
    from dens_ocp.models.escn import eSCNDeNS
    from dens_ocp.training.trainer import DeNSTrainer

    take_over()
    for name in TRAINER_NAMES:
        registry.register_trainer(name)(DeNSTrainer)
    registry.register_model("equiformer_v2_dens")(EquiformerV2DeNS)
    registry.register_model("escn_dens")(eSCNDeNS)
    registry.register_model("equiformer_dens")(EquiformerDeNS)
    registry.register_dataset("dens_lmdb")(DeNSLmdbDataset)


def register_for(argv: Sequence[str]) -> Exception | None:
    """:func:`register`, and in a command line of ours no exception leaves.

    ``dens-ocp doctor`` has to start where fairchem cannot be imported, or kills the process that
    imports it, so nothing is imported for it. The other commands say in one line what is wrong.

    Args:
        argv: the process's ``sys.argv``.

    Returns:
        What went wrong, in a command line of ours; None if all went well.

    Raises:
        Exception: anything that importing fairchem raises, in other programs.
    """
    ours = bool(argv) and PurePath(argv[0]).name.removesuffix(".exe") in _COMMAND_LINES
    if ours and list(argv[1:2]) == ["doctor"]:
        return None
    try:
        register()
    except Exception as error:
        if not ours:
            raise
        return error
    return None


TRAINER_NAMES = ("dens", "denoising_forces")
"""``denoising_forces`` is the authors' name."""
