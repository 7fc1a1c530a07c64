"""The relaxations of a data set's cells: trajectories on the disk, kept when a run is restarted.

A folder holds ``<sid>.traj`` for each system, as those of fairchem's relaxations
(:mod:`dens_ocp.relaxation.trajectories`), and ``summary.json`` when all of them are there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms
from ase.io.trajectory import TrajectoryReader
from fairchem.core.common.registry import registry
from tqdm import tqdm

from dens_ocp import whole_files
from dens_ocp.data.checks import ASE_FORMATS, check_dataset_paths
from dens_ocp.errors import DensError
from dens_ocp.relaxation import trajectories
from dens_ocp.relaxation.cell_relaxation import CellRelaxation, Evaluate, relax
from dens_ocp.relaxation.dealt_batches import DealtBatches

SUMMARY = "summary.json"


class System(NamedTuple):
    """A structure and its name: ``sid`` of its record or, as in fairchem, the record's number;
    ``material_id`` goes before the number."""

    name: str
    atoms: Atoms


class Systems:
    """The structures of a data set of ASE's files, each read when it is asked for.

    Args:
        section: of the data set: ``src``, ``format``. where: its name, for messages.

    Raises:
        DensError: a format that has no structures of ASE; a path that is missing.
    """

    def __init__(self, section: Mapping[str, Any], where: str) -> None:
        form = section.get("format", "lmdb")
        if form not in ASE_FORMATS:
            raise DensError(
                f"{where}: format: {form} does not give ASE structures, which the relaxation of "
                f"cells needs; use one of the formats {', '.join(ASE_FORMATS)} (dens-ocp data "
                "writes ase_db)"
            )
        check_dataset_paths(section, where)
        self.dataset = registry.get_dataset_class(form)(
            {**section, "a2g_args": {}, "transforms": {}}
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> System:
        atoms = self.dataset.get_atoms(self.dataset.ids[index])
        given = (atoms.info.get(name) for name in ("sid", "material_id"))
        name = next((each for each in given if each is not None), self.dataset.ids[index])
        return System(str(name), atoms)


def check(systems: Sequence[System], settings: CellRelaxation, where: str) -> None:
    """Look at all structures before the first is relaxed.

    Args:
        where: the data set, for messages.

    Raises:
        DensError: a cell is to move and a structure has none, or is not periodic in all
            directions; two structures with one name, or a name that is no name of a file.
    """
    seen: set[str] = set()
    for name, atoms in systems:
        if name in seen:
            raise DensError(
                f"{where}: two structures have the name {name}; give every record its own sid"
            )
        seen.add(name)
        if os.sep in name:
            raise DensError(
                f"{where}: the name {name} of a structure cannot be the name of a file; give "
                "every record a sid, or a material_id, without a slash"
            )
        if not settings.moves_cells:
            continue
        lacks = None
        if not atoms.cell.volume > 0:
            lacks = "has no cell" if not atoms.cell.any() else "has a cell without a volume"
        elif not atoms.pbc.all():
            lacks = "is not periodic in all three directions"
        if lacks:
            raise DensError(
                f"{where}: the structure {name} {lacks}, so its cell cannot be relaxed; leave it "
                "out, or relax only positions: evaluation.relaxation.cell_filter: none"
            )


def relax_systems(
    systems: Sequence[System],
    evaluate: Evaluate,
    settings: CellRelaxation,
    folder: Path,
    *,
    where: str,
    claim: Mapping[str, Any],
    shard: int = 0,
    batches: Callable[..., Any] = tqdm,
) -> dict[str, dict[str, Any]]:
    """Relax the structures of a shard, or the rest of them.

    Which structures are in one batch depends on ``batch_size`` alone. The trajectories of a batch
    get their names when all of them have ended; a batch that was not finished is begun again, so
    that a restarted run has the numbers of an undisturbed one.

    Args:
        systems: of the data set. evaluate: gives results of structures; see
            :func:`~dens_ocp.relaxation.cell_relaxation.relax`.
        folder: for the trajectories of this shard.
        where: the data set, for messages.
        claim: what decides about the results besides the structures: checkpoint and data.
        shard: the batches of this number modulo ``settings.shards``.
        batches: a progress bar around the batches.

    Returns:
        What ``summary.json`` holds: by name ``energy`` (eV) or null, ``n_steps``, ``converged``,
        ``failure`` and ``volume_change_percent`` of each structure of the shard.

    Raises:
        DensError: as :func:`check`; trajectories of other settings in the folder.
    """
    check(tqdm(systems, desc="structures", leave=False, disable=None), settings, where)
    dealt = DealtBatches(
        len(systems), settings.batch_size, shard, settings.shards, every_rank=False
    )
    own = sum(map(len, dealt))
    decides = {**claim, "shard": shard, **settings.model_dump(exclude={"batch_size"})}
    trajectories.claim(folder, decides, systems=own, where="--out")
    summary: dict[str, dict[str, Any]] = {}
    for indices in batches(dealt):
        batch = [systems[index] for index in indices]
        if not all(_is_finished(folder, each) for each in batch):
            relaxed = relax([each.atoms for each in batch], evaluate, settings)
            with trajectories.writing(folder, [each.name for each in batch]) as writers:
                for writer, relaxation in zip(writers, relaxed, strict=True):
                    for frame in relaxation.frames:
                        writer.write(frame)
        summary |= {each.name: _summary(folder / f"{each.name}.traj") for each in batch}
    whole_files.write_text(folder / SUMMARY, json.dumps(summary, indent=1) + "\n")
    return summary


def _is_finished(folder: Path, system: System) -> bool:
    numbers, positions = system.atoms.numbers, system.atoms.positions
    return trajectories.read_of(folder, system.name, numbers, positions, "--out") is not None


def _summary(path: Path) -> dict[str, Any]:
    """Of a trajectory that has just been written or found whole."""
    with TrajectoryReader(path) as frames:
        first, last = frames[0], frames[-1]
    energy = None if last.calc is None else float(last.calc.results["energy"])
    volume = float(first.cell.volume)
    change = 100 * (float(last.cell.volume) / volume - 1) if volume > 0 else 0.0
    info = {name: last.info[name] for name in ("n_steps", "converged", "failure")}
    return {"energy": energy, **info, "volume_change_percent": change}


def relaxed_of(folder: Path, name: str) -> Atoms:
    """The relaxed structure of a system, with its energy and forces.

    Raises:
        DensError: there is none.
    """
    finished = trajectories.read(folder / f"{name}.traj")
    if finished is None:
        raise DensError(
            f"{folder / name}.traj is missing or damaged; remove {folder / SUMMARY} and run "
            "dens-ocp evaluate again"
        )
    return finished.relaxed


def read_summary(path: Path) -> dict[str, dict[str, Any]]:
    """``summary.json`` of a shard.

    Raises:
        DensError: it cannot be read.
    """
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DensError(
            f"{path} cannot be read ({error}); remove it and run dens-ocp evaluate again"
        ) from None
