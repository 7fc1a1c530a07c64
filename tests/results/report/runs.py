"""Makes what a report is made from: metrics, checkpoints, evaluation folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import Trajectory

from dens_ocp.checkpoints import metrics_file
from dens_ocp.data.structures import Structure, open_structures
from tests.lmdbs import write_is2re, write_s2ef

NAME = "2024-01-01-00-00-00-000001-first"
STEPS, EVERY = 40, 10


def write_metrics(folder: Path, terms=("energy", "forces", "noise"), **changes) -> Path:
    """``metrics.jsonl`` of 40 steps, a line of training every ten, two validations per 20 steps.

    ``changes``: values by tag (``val_forces_mae=[...]``) at evenly spaced steps.
    """
    lines = []
    for step in range(EVERY, STEPS + 1, EVERY):
        line = {"lr": 1e-3 * (1.02 - step / STEPS)}
        line |= {f"loss_{term}": 100 / step for term in terms}
        if "noise" in terms:
            line["dens_noise_mae"] = 0.1 / step
            line |= {"dens_structures": 0.5, "dens_corrupted_atoms": 0.25}
        lines.append({"split": "train", "step": step, "epoch": step / 20, "time": 1.7e9, **line})
    for name, series in {"val_forces_mae": [0.2, 0.15, 0.11, 0.109], **changes}.items():
        split, _, metric = name.partition("_")
        for index, value in enumerate(series):
            step = STEPS * (index + 1) // len(series)
            lines.append({"split": split, "step": step, "epoch": 1.0, "time": 1.7e9, metric: value})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / metrics_file.NAME).write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder


def write_run(run_dir: Path, config: dict | None = None, **changes) -> Path:
    """Checkpoints and metrics of a run; returns the folder of checkpoints."""
    folder = run_dir / "checkpoints" / NAME
    folder.mkdir(parents=True)
    config = config or {
        "model": {"name": "equiformer_v2_dens"},
        "optim": {"batch_size": 4, "max_epochs": 2, "dens": {"p": 0.5, "r": 0.5, "sigma": 0.1}},
        "cmd": {"print_every": EVERY, "version": "1.10.0", "commit": "core:abc", "seed": 7},
        "task": {"relaxation_fmax": 0.02, "relaxation_steps": 10},
        "outputs": {"forces": {"level": "atom"}},
    }
    content = {
        "state_dict": {}, "config": config, "step": STEPS, "epoch": 2.0,
        "best_val_metric": 0.109, "primary_metric": "forces_mae",
    }  # fmt: skip
    torch.save(content, folder / "checkpoint.pt")
    torch.save({**content, "step": STEPS // 2, "epoch": 1.0}, folder / "best_checkpoint.pt")
    return write_metrics(folder, **changes)


def noisy(structure: Structure, rng) -> tuple[float, np.ndarray]:
    """A prediction with errors of about 0.1 eV and 0.1 eV/Angstrom."""
    forces = structure.forces[structure.free]
    return structure.energy + 0.1 * rng.normal(), forces + 0.1 * rng.normal(size=forces.shape)


def write_predictions(path: Path, structures, predict=noisy, seed: int = 0) -> Path:
    """A prediction file as fairchem's."""
    rng = np.random.default_rng(seed)
    ids, energies, forces = [], [], []
    for each in structures:
        energy, force = predict(each, rng)
        ids.append(each.id)
        energies.append([energy])
        forces.append(force)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        ids=np.array(ids),
        energy=np.array(energies, np.float32),
        forces=np.concatenate(forces).astype(np.float32),
        chunk_idx=np.cumsum([len(each) for each in forces])[:-1],
    )
    return path


def write_trajectory(path: Path, structure: Structure, energies, force: float = 0.01) -> Path:
    """A trajectory whose last frames have ``force`` (eV/Angstrom) on the last atom, and much more
    on a fixed one, which does not count."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Trajectory(path, "w") as frames:
        for energy in energies:
            atoms = Atoms(structure.atomic_numbers, structure.pos, cell=structure.cell, pbc=True)
            atoms.set_constraint(FixAtoms(mask=structure.fixed))
            forces = np.zeros((len(atoms), 3))
            forces[np.flatnonzero(structure.free)[-1], 0] = force
            forces[structure.fixed] = 5.0
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            frames.write(atoms)
    return path


def write_evaluation(
    folder: Path, checkpoint: Path | None = None, splits=("id", "ood_ads")
) -> Path:
    """An evaluation folder with predictions and relaxations of small data sets."""
    description = {"board": "OC20", "checkpoint": None, "splits": {}, "versions": {"torch": "x.y"}}
    description["checkpoint"] = None if checkpoint is None else str(checkpoint)
    for number, split in enumerate(splits):
        s2ef = {"src": str(write_s2ef(folder / "data" / split / "s2ef", 8, seed=number))}
        is2re = {"src": str(write_is2re(folder / "data" / split / "is2re", 3, seed=number))}
        description["splits"][split] = {"s2ef": s2ef, "is2re": is2re}
        write_predictions(folder / "predictions" / f"{split}.npz", open_structures(s2ef), seed=1)
        for each in open_structures(is2re):
            path = folder / "relaxations" / split / "trajectories" / f"{each.sid}.traj"
            label = each.energy_relaxed
            write_trajectory(path, each, [label + 1, label + 0.4, label + 0.25])
    (folder / "evaluation.json").write_text(json.dumps(description))
    return folder
