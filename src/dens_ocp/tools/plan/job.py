"""What is to be planned: config and options, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dens_ocp.errors import DensError
from dens_ocp.tools.plan.paper_runs import ATOMS, LOOSE_DEGREE, PaperRun, matching


@dataclass(frozen=True)
class Job:
    """A training run to plan.

    Attributes:
        gpus, nodes: in all.
        batch: structures per GPU.
        epochs, structures: of the training set.
        atoms, degree: means per structure, edges per atom.
        amsgrad, ema: as configured.
        sources: where ``structures`` and ``atoms`` come from, for people.
        paper: the paper's run with this model and number of epochs.
    """

    gpus: int
    nodes: int
    batch: int
    epochs: int
    structures: int
    atoms: float
    degree: float
    amsgrad: bool
    ema: bool
    sources: dict[str, str]
    paper: PaperRun | None


def job_of(
    config: Mapping[str, Any],
    gpus: int,
    nodes: int | None,
    structures: int | None,
    atoms: float | None,
    neighbors: float | None,
) -> Job:
    """The job of a config and the options of ``dens-ocp plan``.

    Raises:
        DensError: options that make no sense; no way to know the size of the training set.
    """
    nodes = nodes or math.ceil(gpus / 8)
    if gpus < 1 or nodes < 1 or gpus % nodes:
        raise DensError(
            f"--gpus: {gpus} GPUs cannot be spread over {nodes} nodes evenly; --gpus is their "
            "number in all, for example --gpus 16 --nodes 2"
        )
    optim, model = config["optim"], config["model"]
    for option in ("batch_size", "max_epochs"):
        if not isinstance(optim.get(option), int) or optim[option] < 1:
            raise DensError(
                f"optim.{option}: {optim.get(option)!r} is not a positive number; for example "
                f"--optim.{option}=4"
            )
    paper = matching(config)
    path, counts = _metadata(config)
    sources = {"structures": "--structures", "atoms": "--atoms"}
    if not structures and counts is not None:
        structures, sources["structures"] = len(counts), str(path)
    elif not structures and paper is not None:
        structures, sources["structures"] = paper.structures, f"the paper's data for {paper.recipe}"
    elif not structures:
        raise DensError(
            "--structures is missing: the training set is not on this machine (no metadata.npz in "
            "dataset.train.src) and the config is none of the paper's; for example "
            "--structures 2000000"
        )
    if not atoms and counts is not None:
        atoms, sources["atoms"] = float(counts.mean()), str(path)
    elif not atoms:
        atoms, sources["atoms"] = ATOMS, "mean of OC20"
    strict = model.get("enforce_max_neighbors_strictly", True)
    degree = int(model.get("max_neighbors", 20)) * (1.0 if strict else LOOSE_DEGREE / 20)
    amsgrad = bool((optim.get("optimizer_params") or {}).get("amsgrad"))
    return Job(
        gpus, nodes, optim["batch_size"], optim["max_epochs"], structures, atoms,
        neighbors or degree, amsgrad, bool(optim.get("ema_decay")), sources, paper,
    )  # fmt: skip


def _metadata(config: Mapping[str, Any]) -> tuple[Path, np.ndarray | None]:
    """Atoms of each structure of the training set, if it is on this machine."""
    src = Path(str((config["dataset"].get("train") or {}).get("src")))
    path = (src if src.is_dir() else src.parent) / "metadata.npz"
    try:
        with np.load(path) as file:
            return path, file["natoms"]
    except (OSError, ValueError, KeyError):
        return path, None
