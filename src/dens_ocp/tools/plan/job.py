"""What is to be planned: config and options, checked."""

from __future__ import annotations

import argparse
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

    @property
    def edges(self) -> float:
        """Mean edges of a structure."""
        return self.atoms * self.degree


def job_of(config: Mapping[str, Any], args: argparse.Namespace) -> Job:
    """The job of a config and the options of ``dens-ocp plan``.

    Raises:
        DensError: options that make no sense; no way to know the size of the training set.
    """
    nodes = args.nodes or math.ceil(args.gpus / 8)
    if args.gpus < 1 or nodes < 1 or args.gpus % nodes:
        raise DensError(
            f"--gpus: {args.gpus} GPUs cannot be spread over {nodes} nodes evenly; --gpus is their "
            "number in all, for example --gpus 16 --nodes 2"
        )
    if not 0 <= args.overlap <= 1:
        raise DensError(f"--overlap: {args.overlap} is no share; give 0 to 1")
    optim = config["optim"]
    for option in ("batch_size", "max_epochs"):
        if not isinstance(optim.get(option), int) or optim[option] < 1:
            raise DensError(
                f"optim.{option}: {optim.get(option)!r} is not a positive number; for example "
                f"--optim.{option}=4"
            )
    paper = matching(config)
    counts, place = _metadata(config)
    sources = {}
    if args.structures:
        structures, sources["structures"] = args.structures, "--structures"
    elif counts is not None:
        structures, sources["structures"] = len(counts), str(place)
    elif paper is not None:
        structures, sources["structures"] = paper.structures, f"the paper's data for {paper.recipe}"
    else:
        raise DensError(
            "--structures is missing: the training set is not on this machine (no metadata.npz in "
            "dataset.train.src) and the config is none of the paper's; for example "
            "--structures 2000000"
        )
    if args.atoms:
        atoms, sources["atoms"] = args.atoms, "--atoms"
    elif counts is not None:
        atoms, sources["atoms"] = float(counts.mean()), str(place)
    else:
        atoms, sources["atoms"] = ATOMS, "mean of OC20"
    most = int(config["model"].get("max_neighbors", 20))
    strict = config["model"].get("enforce_max_neighbors_strictly", True)
    degree = most if strict else most * LOOSE_DEGREE / 20
    params = optim.get("optimizer_params") or {}
    return Job(
        args.gpus, nodes, optim["batch_size"], optim["max_epochs"], structures, atoms,
        args.neighbors or degree, bool(params.get("amsgrad")), bool(optim.get("ema_decay")),
        sources, paper,
    )  # fmt: skip


def _metadata(config: Mapping[str, Any]) -> tuple[np.ndarray | None, Path | None]:
    """Atoms of each structure of the training set, if it is on this machine."""
    src = (config["dataset"].get("train") or {}).get("src")
    if not isinstance(src, (str, Path)):
        return None, None
    folder = Path(src) if Path(src).is_dir() else Path(src).parent
    path = folder / "metadata.npz"
    try:
        with np.load(path) as file:
            return file["natoms"], path
    except (OSError, ValueError, KeyError):
        return None, None
