"""A plan as text."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

from dens_ocp.tools.plan import paper_runs
from dens_ocp.tools.plan.measure import Measured, extended
from dens_ocp.tools.plan.plan import USABLE

LIMITS = (
    "Where this stops being valid (docs/planning.md):",
    "- Training only: validation, checkpoints, start-up, restarts and queues come on top.",
    "- Mean structures: the largest batch sets the peak of memory, the slowest GPU each step.",
    "- The paper's hours are of mixed precision (--amp in the authors' scripts), so its rate is.",
    "- One rate for all matrix products, seen on V100s at 4 to 6 structures per GPU; smaller "
    "batches and faster GPUs reach less of their peak.",
    "- GPUs other than the V100: data sheets only, nothing was measured on them.",
    "- Data loading, slow nodes and shared networks are not in it.",
)

Row = tuple[str, str, str]
"""Name, value, where it is from."""


def _gb(value: float) -> str:
    return f"{value / 1e9:.1f} GB"


def _table(rows: list[Any], **options: Any) -> str:
    return tabulate(rows, **{"tablefmt": "plain", "disable_numparse": True, **options})


def text_of(plan: dict[str, Any], measured: Measured | None) -> str:
    """The plan for people.

    Args:
        plan: of ``plan.make_plan``, with ``amp``.
        measured: what the plan was made from, if anything was measured.
    """
    job, exact, comm = plan["job"], plan["exact"], plan["communication"]
    precision = "mixed precision (--amp)" if plan["amp"] else "float32"
    edges = job["atoms"] * job["degree"]
    parts = ", ".join(f"{key} {_gb(value)}" for key, value in exact["static_bytes"].items())
    steps = f"{exact['steps_per_epoch']:,} x {job['epochs']} epochs = {exact['steps']:,}"
    link = comm["intra_node"] if job["nodes"] == 1 else comm["inter_node"]
    rows: list[Row] = [
        ("parameters", f"{exact['parameters']:,}", "exact"),
        ("structures", f"{job['structures']:,}", job["sources"]["structures"]),
        ("atoms, edges", f"{job['atoms']:.1f}, {edges:.0f}",
         f"{job['sources']['atoms']}; {job['degree']:.1f} edges an atom"),
        ("global batch", f"{exact['global_batch']}", "exact"),
        ("steps", steps, "exact"),
        ("memory without batch", _gb(exact["static_bytes_sum"]), f"exact: {parts}"),
        *_memory(plan["memory"], job["batch"]),
    ]  # fmt: skip
    if plan["flops_per_structure"]:
        work = f"{plan['flops_per_structure'] / 1e12:.2f} TFLOP"
        rows.append(("work of a structure", work,
                     "counted: forward and backward, matrix products"))  # fmt: skip
    rows += [
        ("all-reduce", f"{1000 * comm['all_reduce_seconds']:.0f} ms a step",
         f"model: ring, {_gb(comm['bytes_per_gpu'])} per GPU at {link / 1e9:.0f} GB/s (assumed)"),
        *_time(plan["time"], comm["overlap"]),
    ]  # fmt: skip
    if plan["time"] and plan["paper_gpu_hours"]:
        paper = plan["paper_gpu_hours"]
        ratio = plan["time"]["expected"]["gpu_hours"] / paper
        rows.append(("paper", f"{paper:,.0f} V100 GPU-hours", f"this plan: {ratio:.2f} of it"))
    head = (
        f"{job['gpus']} x {plan['gpu']}, {job['nodes']} node(s), {job['batch']} structures per "
        f"GPU, {precision}\n"
    )
    tables = [head, _table(rows), ""]
    if measured is not None:
        tables += [_fit(measured, job["atoms"], plan["flops_per_structure"]), ""]
    return "\n".join([*tables, _test(), "", *LIMITS])


def _memory(memory: dict[str, Any] | None, batch: int) -> list[Row]:
    if memory is None:
        return [("memory of the batch", "unknown", "not measured")]
    each, total = memory["activation_bytes_per_structure"], memory["bytes_per_gpu"]
    of_batch = ("memory of the batch", f"{batch} x {_gb(each)} = {_gb(batch * each)}",
                "measured at two depths, two sizes; extended")  # fmt: skip
    if memory["gpu_bytes"] is None:
        return [of_batch, ("memory of a process", _gb(total), "sum")]
    full = total > memory["gpu_bytes"]
    verdict = "fits" if memory["fits"] else "DOES NOT FIT" if full else "TIGHT"
    most = f"sum; at most {memory['largest_batch']} mean structures in {100 * USABLE:.0f} % of it"
    return [
        of_batch,
        ("memory of a GPU", f"{_gb(total)} of {_gb(memory['gpu_bytes'])}: {verdict}", most),
    ]


def _time(time: dict[str, Any] | None, overlap: float) -> list[Row]:
    if time is None:
        return [("time", "unknown", "not measured, and none of the paper's recipes")]

    def shown(name: str, digits: str, unit: float = 1.0) -> str:
        expected, *ends = (time[key][name] / unit for key in ("expected", "low", "high"))
        return f"{expected:{digits}} ({min(ends):{digits}} to {max(ends):{digits}})"

    exposed = 1000 * time["expected"]["exposed_communication_seconds"]
    return [
        ("seconds a step", shown("step_seconds", ".3g"), time["basis"]),
        ("  of it communication", f"{exposed:.0f} ms",
         f"what {100 * overlap:.0f} % of backward does not hide (assumed)"),
        ("samples/s to be loaded", shown("samples_per_second", ".3g"), "all GPUs together"),
        ("wall-clock days", shown("wall_hours", ".3g", 24), "training only"),
        ("GPU-hours", shown("gpu_hours", ",.0f"), "training only"),
    ]  # fmt: skip


def _fit(measured: Measured, atoms: float, flops_here: float) -> str:
    rows = [
        (*case, flops / 1e9, measured.peak_bytes[case] / 1e6, measured.seconds[case])
        for case, flops in measured.flops.items()
    ]
    header = ["blocks", "atoms", "GFLOP", "MB", "s"]
    table = tabulate(rows, header, "plain", floatfmt=("", "", ".2f", ".1f", ".3f"))
    grows = []
    for points, unit in ((measured.flops, 1e12), (measured.peak_bytes, 1e9)):
        none, one = (extended(points, layers, atoms) / unit for layers in (0, 1))
        grows.append(f"{none:.3f} + {one - none:.4f} x blocks")
    offset, slope, spread = measured.line()
    return (
        f"Measured on {measured.device} (forward and backward):\n{table}\n"
        f"a structure: {grows[0]} TFLOP; {grows[1]} GB\n"
        f"seconds = {offset:.3f} + {slope * 1e9:.4f} x GFLOP, points off by {100 * spread:.0f} %; "
        f"a whole structure here: {offset + slope * flops_here:.3g} s"
    )


def _test() -> str:
    rows = []
    for run in paper_runs.RUNS:
        ratio = paper_runs.paper_over_model(run)
        rows.append((run.recipe.removeprefix("configs/"), f"{run.hours:,.0f}",
                     f"{run.hours / ratio:,.0f}", f"{1 / ratio:.2f} {run.role}"))  # fmt: skip
    align = ("left", "right", "right", "left")
    table = _table(rows, headers=["recipe", "paper", "model", "model/paper"], colalign=align)
    return (
        f"The model against the paper's V100 GPU-hours (two runs calibrate it):\n{table}\n"
        f"All+MD: the paper's throughput of {paper_runs.ALL_MD_THROUGHPUT} structures per "
        "GPU-second (Table 2) would be 53,200 GPU-hours."
    )
