"""A plan as text."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

from dens_ocp.tools.plan.estimate import USABLE
from dens_ocp.tools.plan.measure import Measured, extended
from dens_ocp.tools.plan.paper_runs import RATE, RUNS

LIMITS = (
    "Limits of this plan (docs/planning.md):",
    "- It covers training only; validation, checkpoints, start-up, restarts and queues are not "
    "included.",
    "- It assumes mean structures; in a run the largest batch determines the peak memory, and "
    "the slowest GPU the time of each step.",
    "- The paper's GPU-hours, and so the rate, are for mixed precision (--amp in the authors' "
    "scripts).",
    "- It uses one rate for all matrix products, from V100s with 4 to 6 structures per GPU; "
    "smaller batches and faster GPUs reach a smaller fraction of their peak.",
    "- For GPUs other than the V100 it uses data sheets; nothing was measured on them.",
    "- It does not include data loading, slow nodes and shared networks.",
)


def _gb(value: float) -> str:
    return f"{value / 1e9:.1f} GB"


def text_of(plan: dict[str, Any], measured: Measured | None) -> str:
    """The plan for people.

    Args:
        plan: of ``estimate.make_plan``, with ``amp`` and ``paper_gpu_hours``.
        measured: what the plan was made from, if anything was measured.
    """
    job, exact, comm = plan["job"], plan["exact"], plan["communication"]
    memory, time, flops = plan["memory"], plan["time"], plan["flops_per_structure"]
    static = ", ".join(f"{key} {_gb(value)}" for key, value in exact["static_bytes"].items())
    link = comm["intra_node"] if job["nodes"] == 1 else comm["inter_node"]
    rows = [  # name, value, where it is from
        ("parameters", f"{exact['parameters']:,}", "exact"),
        ("structures", f"{job['structures']:,}", job["sources"]["structures"]),
        ("atoms, edges", f"{job['atoms']:.1f}, {job['atoms'] * job['degree']:.0f}",
         f"{job['sources']['atoms']}; {job['degree']:.1f} edges per atom"),
        ("global batch", f"{exact['global_batch']}", "exact"),
        ("steps", f"{exact['steps_per_epoch']:,} x {job['epochs']} epochs = {exact['steps']:,}",
         "exact"),
        ("memory without batch", _gb(exact["static_bytes_sum"]), f"exact: {static}"),
    ]  # fmt: skip
    if memory is None:
        rows.append(("memory of the batch", "unknown", "not measured"))
    else:
        each, total, there = (memory[name] for name in (
            "activation_bytes_per_structure", "bytes_per_gpu", "gpu_bytes"))  # fmt: skip
        batch = f"{job['batch']} x {_gb(each)} = {_gb(job['batch'] * each)}"
        rows.append(
            ("memory of the batch", batch, ("measured with two depths and two sizes, extrapolated"))
        )
        if there is None:
            rows.append(("memory of a process", _gb(total), "sum"))
        else:
            verdict = "fits" if memory["fits"] else "DOES NOT FIT" if total > there else "TIGHT"
            rows.append(("memory of a GPU", f"{_gb(total)} of {_gb(there)}: {verdict}",
                         f"sum; at most {memory['largest_batch']} mean structures fit in "
                         f"{100 * USABLE:.0f} % of it"))  # fmt: skip
    if flops:
        rows.append(("work per structure", f"{flops / 1e12:.2f} TFLOP",
                     "counted: matrix products, forward and backward"))  # fmt: skip
    rows.append(
        ("all-reduce", f"{1000 * comm['all_reduce_seconds']:.0f} ms per step",
         f"model: ring, {_gb(comm['bytes_per_gpu'])} per GPU at {link / 1e9:.0f} GB/s (assumed)")
    )  # fmt: skip
    if time is None:
        rows.append(("time", "unknown", "not measured, and not a recipe of the paper"))
    else:
        exposed = 1000 * time["expected"]["exposed_communication_seconds"]

        def shown(name: str, digits: str, unit: float = 1.0) -> str:
            expected, *ends = (time[key][name] / unit for key in ("expected", "low", "high"))
            return f"{expected:{digits}} ({min(ends):{digits}} to {max(ends):{digits}})"

        rows += [
            ("seconds per step", shown("step_seconds", ".3g"), time["basis"]),
            ("  communication in it", f"{exposed:.0f} ms",
             f"not hidden by {100 * comm['overlap']:.0f} % of the backward pass (assumed)"),
            ("samples/s to load", shown("samples_per_second", ".3g"), "all GPUs together"),
            ("wall-clock days", shown("wall_hours", ".3g", 24), "training only"),
            ("GPU-hours", shown("gpu_hours", ",.0f"), "training only"),
        ]  # fmt: skip
        if paper := plan["paper_gpu_hours"]:
            ratio = time["expected"]["gpu_hours"] / paper
            rows.append(
                ("paper", f"{paper:,.0f} V100 GPU-hours", f"this plan: {ratio:.2f} of that")
            )
    precision = "mixed precision (--amp)" if plan["amp"] else "float32"
    tests = (f"{run.recipe.removeprefix('configs/')} {run.rate / RATE:.2f}" for run in RUNS)
    return "\n".join([
        f"{job['gpus']} x {plan['gpu']}, {job['nodes']} node(s), {job['batch']} structures per "
        f"GPU, {precision}\n",
        tabulate(rows, tablefmt="plain", disable_numparse=True),
        "",
        *([] if measured is None else _measured(measured, job["atoms"], flops)),
        f"Cost model / paper's V100 GPU-hours (two of the runs calibrate it): {', '.join(tests)}",
        "",
        *LIMITS,
    ])  # fmt: skip


def _measured(measured: Measured, atoms: float, flops: float) -> list[str]:
    rows = [
        (*case, work / 1e9, measured.peak_bytes[case] / 1e6, measured.seconds[case])
        for case, work in measured.flops.items()
    ]
    header = ["blocks", "atoms", "GFLOP", "MB", "s"]
    grows = []
    for points, unit in ((measured.flops, 1e12), (measured.peak_bytes, 1e9)):
        none, one = (extended(points, layers, atoms) / unit for layers in (0, 1))
        grows.append(f"{none:.3f} + {one - none:.4f} x blocks")
    offset, slope, spread = measured.line()
    return [
        f"Measured on {measured.device} (forward and backward):",
        tabulate(rows, header, "plain", floatfmt=("", "", ".2f", ".1f", ".3f")),
        f"a structure: {grows[0]} TFLOP; {grows[1]} GB",
        f"seconds = {offset:.3f} + {slope * 1000000000.0:.4f} x GFLOP, deviation "
        f"{100 * spread:.0f} %; a structure with all blocks here: {offset + slope * flops:.3g} s",
        "",
    ]
