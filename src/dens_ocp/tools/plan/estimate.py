"""From a config, options and what was measured to a plan: one dictionary, which is printed as JSON
or made into text. Units: bytes, seconds, FLOP; rates per second.

docs/planning.md derives the model of cost and says where it stops being valid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dens_ocp.errors import DensError
from dens_ocp.tools.plan.measure import Measured
from dens_ocp.tools.plan.paper_runs import ATOMS, BAND, LOOSE_DEGREE, RATE, V100, Gpu, PaperRun

FLOAT = 4
"""Bytes of a float32, in which everything is trained and averaged."""

LATENCY = 10e-6
"""Seconds for a message from one GPU to the next."""

BACKWARD_SHARE = 2 / 3
"""Of forward and backward: the backward pass has two matrix products for each of the forward's."""

USABLE = 0.9
"""Share of a GPU's memory that tensors can have; the rest goes to CUDA, cuDNN, fragmentation."""

FLOAT32_AT_MOST = 2.0
"""How much longer float32 may take than mixed precision. An assumption: the paper's hours, all
there is, are of mixed precision."""


def job_of(
    config: Mapping[str, Any],
    paper: PaperRun | None,
    gpus: int,
    nodes: int | None = None,
    structures: int | None = None,
    atoms: float | None = None,
    neighbors: float | None = None,
) -> dict[str, Any]:
    """What is to be planned: the part ``job`` of a plan.

    Args:
        config: as of ``settings.run_config.read``.
        paper: the paper's run with this model and number of epochs.
        gpus, nodes, structures, atoms, neighbors: options of ``dens-ocp plan``; None: not given.

    Raises:
        DensError: options that make no sense; no way to know the size of the training set.
    """
    nodes = nodes or math.ceil(gpus / 8)
    if gpus < 1 or nodes < 1 or gpus % nodes:
        raise DensError(
            f"--gpus: {gpus} GPUs cannot be divided evenly between {nodes} nodes; --gpus is the "
            "total number, for example --gpus 16 --nodes 2"
        )
    optim, model = config["optim"], config["model"]
    for option in ("batch_size", "max_epochs"):
        if not isinstance(optim.get(option), int) or optim[option] < 1:
            raise DensError(
                f"optim.{option}: {optim.get(option)!r} is not a positive number; for example "
                f"--optim.{option}=4"
            )
    src = Path(str((config["dataset"].get("train") or {}).get("src")))
    path = (src if src.is_dir() else src.parent) / "metadata.npz"
    try:
        with np.load(path) as file:
            counts = file["natoms"]
    except (OSError, ValueError, KeyError):  # the training set is not on this machine
        counts = None
    sources = {"structures": "--structures", "atoms": "--atoms"}
    if not structures and counts is not None:
        structures, sources["structures"] = len(counts), str(path)
    elif not structures and paper is not None:
        structures, sources["structures"] = paper.structures, f"the paper's data for {paper.recipe}"
    elif not structures:
        raise DensError(
            "--structures is missing: the training set is not on this machine (no metadata.npz "
            "in dataset.train.src) and the config is not one of the paper's; give for example "
            "--structures 2000000"
        )
    if not atoms and counts is not None:
        atoms, sources["atoms"] = float(counts.mean()), str(path)
    elif not atoms:
        atoms, sources["atoms"] = ATOMS, "mean of OC20"
    strict = model.get("enforce_max_neighbors_strictly", True)
    degree = int(model.get("max_neighbors", 20)) * (1.0 if strict else LOOSE_DEGREE / 20)
    return {
        "gpus": gpus,
        "nodes": nodes,
        "batch": optim["batch_size"],
        "epochs": optim["max_epochs"],
        "structures": structures,
        "atoms": atoms,
        "degree": neighbors or degree,
        "amsgrad": bool((optim.get("optimizer_params") or {}).get("amsgrad")),
        "ema": bool(optim.get("ema_decay")),
        "sources": sources,
        "paper": paper.recipe if paper else None,
    }


def speed_range(gpu: Gpu) -> tuple[float, float]:
    """How much faster ``gpu`` is than a V100: lowest and highest of two bounds.

    Work bound by arithmetic gains the ratio of peaks, work bound by memory the ratio of
    bandwidths. EquiformerV2 is a mix of both. Tensor cores are left out: the paper's runs, in mixed
    precision, reach 5 % of a V100's (6.6 of 125 TFLOP/s), so they are not what limits.
    """
    ratios = (gpu.flops / V100.flops, gpu.bandwidth / V100.bandwidth)
    return min(ratios), max(ratios)


def speed_from_paper(flops: float, gpu: Gpu, amp: bool = True) -> dict[str, Any]:
    """FLOP by the rate that the paper's V100 hours mean, times how much faster ``gpu`` is.

    Returns:
        Seconds of forward and backward of a structure: ``expected``, ``low``, ``high``; ``basis``:
        where they are from.
    """
    (slow, fast), (cheap, dear) = speed_range(gpu), BAND
    at_v100 = flops / RATE
    basis = f"FLOP / (V100 peak x {RATE / V100.flops:.2f}), from the paper's GPU-hours"
    if gpu != V100:
        basis += f"; {gpu.name} assumed {slow:.1f} to {fast:.1f} times as fast"
    if not amp:
        dear *= FLOAT32_AT_MOST
        basis += (
            f"; these are with --amp, float32 may take up to {FLOAT32_AT_MOST:g} times as "
            "long (guess)"
        )
    return {
        "expected": at_v100 / (slow * fast) ** 0.5,
        "low": cheap * at_v100 / fast,
        "high": dear * at_v100 / slow,
        "basis": basis,
    }


def speed_measured(flops: float, batch: int, measured: Measured) -> dict[str, Any]:
    """The same from the measuring machine, for its own kind of device."""
    offset, slope, spread = measured.line()
    seconds, error = offset / batch + slope * flops, max(0.2, 2 * spread)
    return {
        "expected": seconds,
        "low": seconds / (1 + error),  # a factor, so that it stays above 0 however noisy
        "high": seconds * (1 + error),
        "basis": f"measured here ({measured.device}), linear in FLOP, deviation "
        f"{100 * spread:.0f} %",
    }


def make_plan(
    job: Mapping[str, Any],
    parameters: int,
    gpu: Gpu,
    overlap: float,
    speed: Mapping[str, Any] | None,
    flops: float | None,
    activations: float | None,
) -> dict[str, Any]:
    """All numbers of a plan; those that are not known are None.

    Args:
        job: of :func:`job_of`.
        parameters: of the model.
        gpu: its memory and its links.
        overlap: share (0 to 1) of the backward pass that hides communication.
        speed: seconds of a structure.
        flops: of a structure, forward and backward.
        activations: bytes of a structure at the peak.
    """
    gpus, batch, weights = job["gpus"], job["batch"], FLOAT * parameters
    static = {
        "weights": weights,
        "gradients": weights,
        "optimizer": weights * (3 if job["amsgrad"] else 2),  # AdamW's moments
        "EMA": weights if job["ema"] else 0,
        # gradients are copied into them: gradient_as_bucket_view is off in fairchem
        "DDP buckets": weights if gpus > 1 else 0,
    }
    fixed = sum(static.values())
    # each rank has its share of the structures, in batches; none is dropped
    epoch = math.ceil(math.ceil(job["structures"] / gpus) / batch)
    steps = epoch * job["epochs"]
    # a ring: each GPU sends and receives 2 (N-1)/N of the gradients, in 2 (N-1) messages
    sent = 2 * (gpus - 1) / gpus * weights
    bandwidth = gpu.intra_node if job["nodes"] == 1 else gpu.inter_node
    communication = sent / bandwidth + 2 * (gpus - 1) * LATENCY
    memory = times = None
    if activations is not None:
        total = fixed + activations * batch
        usable = None if gpu.memory is None else USABLE * gpu.memory
        memory = {
            "activation_bytes_per_structure": activations,
            "bytes_per_gpu": total,
            "gpu_bytes": gpu.memory,
            "fits": usable and total <= usable,
            "largest_batch": usable and max(0, int((usable - fixed) // activations)),
        }
    if speed is not None:
        times = {"basis": speed["basis"]}
        for name in ("expected", "low", "high"):
            compute = batch * speed[name]
            exposed = max(0.0, communication - overlap * BACKWARD_SHARE * compute)
            wall = steps * (compute + exposed) / 3600
            times[name] = {
                "structure_seconds": speed[name],
                "step_seconds": compute + exposed,
                "exposed_communication_seconds": exposed,
                "samples_per_second": gpus * batch / (compute + exposed),
                "gpu_hours": wall * gpus,
                "wall_hours": wall,
            }
    return {
        "gpu": gpu.name,
        "job": dict(job),
        "exact": {
            "parameters": parameters,
            "static_bytes": static,
            "static_bytes_sum": fixed,
            "global_batch": gpus * batch,
            "steps_per_epoch": epoch,
            "steps": steps,
        },
        "communication": {
            "intra_node": gpu.intra_node,
            "inter_node": gpu.inter_node,
            "overlap": overlap,
            "all_reduce_seconds": communication,
            "bytes_per_gpu": sent,
        },
        "flops_per_structure": flops,
        "memory": memory,
        "time": times,
    }
