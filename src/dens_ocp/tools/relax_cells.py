"""One run of cell relaxations, in a process of its own: ``dens-ocp evaluate`` calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from dens_ocp.errors import DensError
from dens_ocp.settings.command_line import fairchem_options


@click.command(hidden=True)
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True)
@fairchem_options("cpu", "amp", "seed")
def command(config: Path, checkpoint: Path, cpu: bool, amp: bool, seed: int | None) -> None:
    """Relax the cells that CONFIG names. `dens-ocp evaluate` writes CONFIG and runs this."""
    from tqdm import tqdm

    from dens_ocp.relaxation.cell_relaxation import CellRelaxation, of_model
    from dens_ocp.relaxation.cell_trajectories import Systems, relax_systems
    from dens_ocp.results.pipeline.folder import sha256

    given = yaml.safe_load(config.read_text())
    settings, where = CellRelaxation(**given["relaxation"]), given["where"]
    relax_systems(
        Systems(given["dataset"], where),
        of_model(calculator(checkpoint, cpu=cpu, amp=amp, seed=seed)),
        settings,
        Path(given["folder"]),
        where=where,
        claim={"checkpoint": sha256(checkpoint), "data set": given["dataset"]},
        shard=given["shard"],
        batches=lambda dealt: tqdm(dealt, desc="batches"),  # evaluate reads the percentage
    )


def calculator(checkpoint: Path, *, cpu: bool, amp: bool = False, seed: int | None = None) -> Any:
    """fairchem's calculator of a checkpoint, with our trainer.

    Raises:
        DensError: a checkpoint without the config of its training.
    """
    import torch
    from fairchem.core.common.relaxation.ase_utils import OCPCalculator

    from dens_ocp.checkpoints import checkpoint_files

    content = checkpoint_files.read(checkpoint, torch.device("cpu"))
    if not content.get("config"):
        raise DensError(
            f"{checkpoint} does not hold its training config, which relaxations with ASE need; "
            "remove evaluation.relax_cell"
        )
    return OCPCalculator(
        checkpoint_path=checkpoint,
        trainer="dens_ocp.trainer.DeNSTrainer",
        cpu=cpu,
        seed=seed or 0,
        disable_amp=not amp,
    )
