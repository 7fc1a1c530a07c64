"""A plan as text."""

from __future__ import annotations

from typing import Any

from dens_ocp.tools.plan import paper_runs
from dens_ocp.tools.plan.measure import Measured
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


def _gb(value: float) -> str:
    return f"{value / 1e9:.1f} GB"


def _row(name: str, value: str, kind: str) -> str:
    return f"  {name:<26} {value:<40} {kind}"


def text_of(plan: dict[str, Any], gpu: str, amp: bool, measured: Measured | None) -> str:
    """The plan for people.

    Args:
        plan: of ``plan.make_plan``.
        gpu: name of the GPU.
        amp: mixed precision.
        measured: what the plan was made from, if anything was measured.
    """
    job, exact, comm = plan["job"], plan["exact"], plan["communication"]
    lines = [
        f"{job['gpus']} x {gpu}, {job['nodes']} node(s), {job['batch']} structures per GPU, "
        f"{'mixed precision (--amp)' if amp else 'float32'}",
        "",
        _row("parameters", f"{exact['parameters']:,}", "exact"),
        _row("structures", f"{job['structures']:,}", job["sources"]["structures"]),
        _row("atoms, edges", f"{job['atoms']:.1f}, {job['atoms'] * job['degree']:.0f}",
             f"{job['sources']['atoms']}; {job['degree']:.1f} edges an atom"),
        _row("global batch", f"{exact['global_batch']}", "exact"),
        _row("steps", f"{exact['steps_per_epoch']:,} x {job['epochs']} epochs = "
             f"{exact['steps']:,}", "exact"),
    ]  # fmt: skip
    parts = ", ".join(f"{key} {_gb(value)}" for key, value in exact["static_bytes"].items())
    lines.append(_row("memory without batch", _gb(exact["static_bytes_sum"]), f"exact: {parts}"))
    lines += _memory(plan["memory"], job["batch"])
    if plan["flops_per_structure"]:
        lines.append(_row("work of a structure", f"{plan['flops_per_structure'] / 1e12:.2f} TFLOP",
                          "counted: forward and backward, matrix products"))  # fmt: skip
    link = comm["intra_node"] if job["nodes"] == 1 else comm["inter_node"]
    lines.append(_row("all-reduce", f"{1000 * comm['all_reduce_seconds']:.0f} ms a step",
                      f"model: ring, {_gb(comm['bytes_per_gpu'])} per GPU at {link / 1e9:.0f} GB/s "
                      f"(assumed)"))  # fmt: skip
    lines += _time(plan, comm["overlap"])
    if measured is not None:
        lines += ["", *_fit(measured, plan)]
    return "\n".join([*lines, "", *_test(), "", *LIMITS])


def _memory(memory: dict[str, Any] | None, batch: int) -> list[str]:
    if memory is None:
        return [_row("memory of the batch", "unknown", "not measured")]
    each = memory["activation_bytes_per_structure"]
    lines = [
        _row("memory of the batch", f"{batch} x {_gb(each)} = {_gb(batch * each)}",
             "measured at two depths, three sizes; extended"),
    ]  # fmt: skip
    if memory["gpu_bytes"] is None:
        return [*lines, _row("memory of a process", _gb(memory["bytes_per_gpu"]), "sum")]
    full = memory["bytes_per_gpu"] > memory["gpu_bytes"]
    verdict = "fits" if memory["fits"] else "DOES NOT FIT" if full else "TIGHT"
    lines.append(_row("memory of a GPU", f"{_gb(memory['bytes_per_gpu'])} of "
                      f"{_gb(memory['gpu_bytes'])}: {verdict}",
                      f"sum; at most {memory['largest_batch']} mean structures in "
                      f"{100 * USABLE:.0f} % of it"))  # fmt: skip
    return lines


def _time(plan: dict[str, Any], overlap: float) -> list[str]:
    time = plan["time"]
    if time is None:
        return [_row("time", "unknown", "not measured, and none of the paper's recipes")]

    def shown(name: str, digits: str) -> str:
        values = [time[key][name] for key in ("expected", "low", "high")]
        low, high = min(values[1:]), max(values[1:])
        return f"{values[0]:{digits}} ({low:{digits}} to {high:{digits}})"

    exposed = 1000 * time["expected"]["exposed_communication_seconds"]
    lines = [
        _row("seconds a step", shown("step_seconds", ".3g"), time["basis"]),
        _row("  of it communication", f"{exposed:.0f} ms",
             f"what {100 * overlap:.0f} % of backward does not hide (assumed)"),
        _row("samples/s to be loaded", shown("samples_per_second", ".3g"), "all GPUs together"),
        _row("wall-clock days", _days(time), "training only"),
        _row("GPU-hours", shown("gpu_hours", ",.0f"), "training only"),
    ]  # fmt: skip
    paper = plan["paper_gpu_hours"]
    if paper:
        ratio = time["expected"]["gpu_hours"] / paper
        lines.append(_row("paper", f"{paper:,.0f} V100 GPU-hours", f"this plan: {ratio:.2f} of it"))
    return lines


def _days(time: dict[str, Any]) -> str:
    days = [time[key]["wall_hours"] / 24 for key in ("expected", "low", "high")]
    return f"{days[0]:.3g} ({min(days[1:]):.3g} to {max(days[1:]):.3g})"


def _fit(measured: Measured, plan: dict[str, Any]) -> list[str]:
    job = plan["job"]
    atoms, edges = job["atoms"], job["atoms"] * job["degree"]
    flops, memory = measured.flops.line(atoms, edges), measured.peak_bytes.line(atoms, edges)
    lines = [
        f"Measured on {measured.device} (forward and backward):",
        "  blocks  atoms  edges    GFLOP       MB        s",
    ]
    for (layers, n, e), (work, size, seconds) in measured.points.items():
        counts = f"  {layers:6d}  {n:5.0f}  {e:5.0f}"
        lines.append(f"{counts}  {work / 1e9:7.2f}  {size / 1e6:7.1f}  {seconds:7.3f}")
    line = measured.seconds
    return [
        *lines,
        f"  a structure: {flops[0] / 1e12:.3f} + {flops[1] / 1e12:.4f} x blocks TFLOP; "
        f"{memory[0] / 1e9:.2f} + {memory[1] / 1e9:.3f} x blocks GB",
        f"  seconds = {line.offset:.3f} + {line.slope * 1e9:.4f} x GFLOP, points off by "
        f"{100 * line.spread:.0f} %; a whole structure here: "
        f"{line.at(plan['flops_per_structure']):.3g} s",
    ]


def _test() -> list[str]:
    lines = [
        "The model against the paper's V100 GPU-hours (two runs calibrate it):",
        f"  {'recipe':<50} {'paper':>7} {'model':>7}  model/paper",
    ]
    for run in paper_runs.RUNS:
        ratio = paper_runs.paper_over_model(run)
        lines.append(
            f"  {run.recipe.removeprefix('configs/'):<50} {run.hours:7,.0f} "
            f"{run.hours / ratio:7,.0f}  {1 / ratio:.2f} {run.role}"
        )
    return [
        *lines,
        f"  All+MD: the paper's throughput of {paper_runs.ALL_MD_THROUGHPUT} structures per "
        "GPU-second (Table 2) would be 53,200 GPU-hours.",
    ]
