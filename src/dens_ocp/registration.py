"""The one place that puts names into fairchem's registry."""

from __future__ import annotations


def register() -> None:
    """Register trainer, models and data set with fairchem. Done by ``import dens_ocp``."""
    from fairchem.core.common.registry import registry

    from dens_ocp.datasets.dens_lmdb import DeNSLmdbDataset
    from dens_ocp.models.equiformer_v2 import EquiformerV2DeNS
    from dens_ocp.models.escn import eSCNDeNS
    from dens_ocp.trainer import DeNSTrainer

    for name in TRAINER_NAMES:
        registry.register_trainer(name)(DeNSTrainer)
    registry.register_model("equiformer_v2_dens")(EquiformerV2DeNS)
    registry.register_model("escn_dens")(eSCNDeNS)
    registry.register_dataset("dens_lmdb")(DeNSLmdbDataset)


TRAINER_NAMES = ("dens", "denoising_forces")
"""``denoising_forces`` is the authors' name."""
