"""From a job, a GPU and what was measured to memory, time and GPU-hours with their ranges."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dens_ocp.tools.plan import cost, paper_runs
from dens_ocp.tools.plan.hardware import GPUS, PAPER, Gpu, speed_range
from dens_ocp.tools.plan.job import Job
from dens_ocp.tools.plan.measure import Measured

USABLE = 0.9
"""Share of a GPU's memory that tensors can have; the rest goes to CUDA, cuDNN, fragmentation."""


@dataclass(frozen=True)
class Network:
    """Assumptions on communication: bandwidths in bytes/s, share of backward that hides it."""

    intra_node: float
    inter_node: float
    overlap: float


@dataclass(frozen=True)
class Speed:
    """Seconds of forward and backward of one structure, with a range, and where they are from."""

    seconds: float
    low: float
    high: float
    basis: str


FLOAT32_AT_MOST = 2.0
"""How much longer float32 may take than mixed precision. An assumption: the paper's hours, all
there is, are of mixed precision."""


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
    seconds = measured.seconds.at(flops * batch) / batch
    error = max(0.2, 2 * measured.seconds.spread)
    return Speed(
        seconds,
        seconds * max(0.0, 1 - error),
        seconds * (1 + error),
        f"measured here ({measured.device}), line over FLOP, points off by "
        f"{100 * measured.seconds.spread:.0f} %",
    )


def make_plan(
    job: Job,
    parameters: int,
    memory: float | None,
    network: Network,
    speed: Speed | None,
    flops: float | None,
    activations: float | None,
    optimizer_seconds: float = 0.0,
) -> dict[str, Any]:
    """All numbers of a plan; those that are not known are None.

    Args:
        job: the run.
        parameters: of the model.
        memory: of a GPU, bytes; None where it is not limited by one (CPU).
        network: assumptions.
        speed: seconds of a structure.
        flops: of a structure, forward and backward.
        activations: bytes of a structure at the peak.
        optimizer_seconds: of a step.
    """
    static = cost.static_bytes(parameters, job.amsgrad, job.ema, job.gpus > 1)
    epoch = cost.steps_per_epoch(job.structures, job.gpus, job.batch)
    bandwidth = network.intra_node if job.nodes == 1 else network.inter_node
    communication = cost.ring_all_reduce_seconds(parameters, job.gpus, bandwidth)
    plan: dict[str, Any] = {
        "job": {**asdict(job), "paper": job.paper.recipe if job.paper else None},
        "exact": {
            "parameters": parameters,
            "static_bytes": static,
            "static_bytes_sum": sum(static.values()),
            "global_batch": job.gpus * job.batch,
            "steps_per_epoch": epoch,
            "steps": epoch * job.epochs,
        },
        "communication": {
            **asdict(network),
            "all_reduce_seconds": communication,
            "bytes_per_gpu": 2 * (job.gpus - 1) / job.gpus * cost.FLOAT * parameters,
        },
        "flops_per_structure": flops,
        "memory": None,
        "time": None,
        "paper_gpu_hours": job.paper.hours if job.paper else None,
    }
    if activations is not None:
        total = sum(static.values()) + activations * job.batch
        plan["memory"] = {
            "activation_bytes_per_structure": activations,
            "bytes_per_gpu": total,
            "gpu_bytes": memory,
            "fits": None if memory is None else total <= USABLE * memory,
            "largest_batch": None if memory is None else cost.structures_that_fit(
                memory, sum(static.values()), activations, USABLE
            ),
        }  # fmt: skip
    if speed is not None:
        plan["time"] = {"basis": speed.basis}
        for name, each in (("expected", speed.seconds), ("low", speed.low), ("high", speed.high)):
            step = optimizer_seconds + cost.step_seconds(
                each, job.batch, communication, network.overlap
            )
            plan["time"][name] = {
                "structure_seconds": each,
                "step_seconds": step,
                "exposed_communication_seconds": cost.exposed_seconds(
                    communication, each * job.batch, network.overlap
                ),
                "samples_per_second": job.gpus * job.batch / step,
                "gpu_hours": cost.gpu_hours(epoch * job.epochs, step, job.gpus),
                "wall_hours": cost.gpu_hours(epoch * job.epochs, step, 1),
            }
    return plan
