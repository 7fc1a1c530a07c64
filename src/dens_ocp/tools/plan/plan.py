"""From a job, a GPU and what was measured to memory, time and GPU-hours with their ranges."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

from dens_ocp.tools.plan import cost, paper_runs
from dens_ocp.tools.plan.hardware import GPUS, PAPER, Gpu, speed_range
from dens_ocp.tools.plan.job import Job
from dens_ocp.tools.plan.measure import Measured

USABLE = 0.9
"""Share of a GPU's memory that tensors can have; the rest goes to CUDA, cuDNN, fragmentation."""

FLOAT32_AT_MOST = 2.0
"""How much longer float32 may take than mixed precision. An assumption: the paper's hours, all
there is, are of mixed precision."""


class Speed(NamedTuple):
    """Seconds of forward and backward of one structure, with a range, and where they are from."""

    expected: float
    low: float
    high: float
    basis: str


def speed_from_paper(flops: float, gpu: Gpu, amp: bool = True) -> Speed:
    """FLOP by the rate that the paper's V100 hours mean, times how much faster ``gpu`` is."""
    slow, fast = speed_range(gpu, GPUS[PAPER])
    cheap, dear = paper_runs.band()
    at_v100 = flops / paper_runs.rate()
    share = paper_runs.rate() / GPUS[PAPER].flops
    basis = f"FLOP / (V100 peak x {share:.2f}), from the paper's GPU-hours"
    if gpu != GPUS[PAPER]:
        basis += f"; {gpu.name} taken as {slow:.1f} to {fast:.1f} times as fast"
    if not amp:
        dear *= FLOAT32_AT_MOST
        basis += f"; those are with --amp, float32 up to {FLOAT32_AT_MOST:g} times as long (guess)"
    middle = at_v100 / (slow * fast) ** 0.5
    return Speed(middle, cheap * at_v100 / fast, dear * at_v100 / slow, basis)


def speed_measured(flops: float, batch: int, measured: Measured) -> Speed:
    """Seconds of the measuring machine, for its own kind of device."""
    offset, slope, spread = measured.line()
    seconds = offset / batch + slope * flops
    error = max(0.2, 2 * spread)
    basis = f"measured here ({measured.device}), line over FLOP, points off by {100 * spread:.0f} %"
    return Speed(seconds, seconds * max(0.0, 1 - error), seconds * (1 + error), basis)


def make_plan(
    job: Job,
    parameters: int,
    gpu: Gpu,
    overlap: float,
    speed: Speed | None,
    flops: float | None,
    activations: float | None,
) -> dict[str, Any]:
    """All numbers of a plan; those that are not known are None.

    Args:
        job: the run.
        parameters: of the model.
        gpu: its memory and its links.
        overlap: share of the backward pass that hides communication.
        speed: seconds of a structure.
        flops: of a structure, forward and backward.
        activations: bytes of a structure at the peak.
    """
    static = cost.static_bytes(parameters, job.amsgrad, job.ema, job.gpus > 1)
    fixed = sum(static.values())
    epoch = cost.steps_per_epoch(job.structures, job.gpus, job.batch)
    steps, global_batch = epoch * job.epochs, job.gpus * job.batch
    bandwidth = gpu.intra_node if job.nodes == 1 else gpu.inter_node
    communication = cost.ring_all_reduce_seconds(parameters, job.gpus, bandwidth)
    memory = times = None
    if activations is not None:
        total = fixed + activations * job.batch
        usable = None if gpu.memory is None else USABLE * gpu.memory
        memory = {
            "activation_bytes_per_structure": activations,
            "bytes_per_gpu": total,
            "gpu_bytes": gpu.memory,
            "fits": usable and total <= usable,
            "largest_batch": usable and max(0, int((usable - fixed) // activations)),
        }
    if speed is not None:
        times = {"basis": speed.basis}
        for name in ("expected", "low", "high"):
            compute = job.batch * getattr(speed, name)
            exposed = cost.exposed_seconds(communication, compute, overlap)
            wall = steps * (compute + exposed) / 3600
            times[name] = {
                "structure_seconds": getattr(speed, name),
                "step_seconds": compute + exposed,
                "exposed_communication_seconds": exposed,
                "samples_per_second": global_batch / (compute + exposed),
                "gpu_hours": wall * job.gpus,
                "wall_hours": wall,
            }
    return {
        "gpu": gpu.name,
        "job": {**asdict(job), "paper": job.paper.recipe if job.paper else None},
        "exact": {
            "parameters": parameters,
            "static_bytes": static,
            "static_bytes_sum": fixed,
            "global_batch": global_batch,
            "steps_per_epoch": epoch,
            "steps": steps,
        },
        "communication": {
            "intra_node": gpu.intra_node,
            "inter_node": gpu.inter_node,
            "overlap": overlap,
            "all_reduce_seconds": communication,
            "bytes_per_gpu": 2 * (job.gpus - 1) / job.gpus * cost.FLOAT * parameters,
        },
        "flops_per_structure": flops,
        "memory": memory,
        "time": times,
        "paper_gpu_hours": job.paper.hours if job.paper else None,
    }
