"""The report: bars first, then every case, what it was measured on, and the configs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import bars
from benchmarks.steps import PHASES

STEPS, SCALING = "steps.svg", "scaling.svg"


def markdown(found: dict[str, Any]) -> str:
    """The report of a run's results (the JSON written beside it)."""
    parts = ["# Benchmark", "", *bars_table(found["cases"]), "", *_method(found)]
    parts += ["", f"![Time of a training step]({STEPS})"]
    for result in found["cases"]:
        parts += ["", *_case(result)]
    if found.get("profiles"):
        parts += ["", *_profiles(found["profiles"])]
    if found.get("scaling"):
        parts += ["", *_scaling(found["scaling"])]
    if found.get("loading"):
        parts += ["", *_loading(found["loading"])]
    if found.get("products"):
        parts += ["", *_products(found["products"])]
    parts += ["", *_machine(found["machine"]), "", *_configs(found["cases"])]
    return "\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a markdown table; the first column is text, the others numbers."""
    return [
        "| " + " | ".join(head) + " |",
        "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def bars_table(results: list[dict[str, Any]]) -> list[str]:
    """Each bar beside what was measured."""
    rows = []
    for bar in bars.BARS:
        measured = bars.look_up(bar, results)
        limit = f"{'at least' if bar.at_least else 'at most'} {bar.limit:.2f}"
        if measured is None:
            rows.append((bar.text, limit, "not measured", "", "", ""))
            continue
        digits = 4 if bar.quantity == "overhead" else 3
        spread = (
            "" if measured.low is None else f"{measured.low:.{digits}f}-{measured.high:.{digits}f}"
        )
        verdict = "yes" if bars.reached(bar, measured) else "**no**"
        kernel = "" if measured.with_kernel is None else f"{measured.with_kernel:.{digits}f}"
        ratio = f"{measured.ratio:.{digits}f}"
        rows.append((bar.text, limit, ratio, spread, verdict, kernel))
    head = (
        "ratio to stock fairchem without DeNS",
        "bar",
        "measured",
        "quartiles",
        "reached",
        "with the kernel's part",
    )
    return table(head, rows)


def _method(found: dict[str, Any]) -> list[str]:
    settings = found["settings"]
    clock = (
        "Ratios are of processor time in user mode: other work that shares the machine lengthens "
        "wall clock times, and the kernel's part is the price of the pages of large tensors, which "
        "changes from run to run with how the C library manages memory. All three are in the "
        "tables, and the ratios with the kernel's part in the last column of the first."
        if settings["clock"] == "user"
        else "Ratios are of wall clock time, with the device synchronised around each phase."
    )
    return [
        "Variants of a case are measured in one process, one step of each in turn, on the same "
        f"batch; {settings['rounds']} rounds after {settings['warm_up']} to warm up. A ratio is "
        "taken round by round, and its median and quartiles are shown. The baseline is the faster "
        "of fairchem's two forms of the model. A step is what the trainer does with a batch: "
        "corruption, forward, loss, metrics, backward, clipping, AdamW, EMA; without logging, "
        "checkpoints and the data loader. In steps of ours half of the structures are corrupted, "
        "in fairchem's own DeNS all of them (it decides batch by batch), with r = 0.5. "
        f"{clock} Threads: {found['machine']['threads']}."
    ]


def _case(result: dict[str, Any]) -> list[str]:
    case, counts = result["case"], result["counts"]
    described = ", ".join(f"{value:g} {name}" for name, value in counts.items())
    lines = [
        f"## {case['name']}",
        "",
        f"{described}; baseline of steps: {result['baseline']['step'] or 'not measured'}; "
        f"ratios and phases: {result['clock']} time.",
        "",
    ]
    has_prediction = any("predict" in each for each in result["variants"].values())
    head = [
        "training step",
        "ratio",
        "quartiles",
        "processor s",
        "wall s",
        "kernel s",
        *PHASES,
        "overhead",
    ]
    rows = []
    for found in result["variants"].values():
        step = found["step"]
        rows.append((
            found["label"], *_ratio(step),
            *(f"{step['seconds'][each]['median']:.3f}" for each in ("process", "wall", "kernel")),
            *(_milliseconds(step["phases"].get(phase)) for phase in PHASES),
            f"{step['overhead']['median']:.2%}",
        ))  # fmt: skip
    lines += [
        *table(head, rows),
        "",
        "Phases in ms; kernel: the operating system's part of processor time, mostly pages of "
        "memory; overhead: corruption, loss and metrics.",
    ]
    if has_prediction:
        rows = []
        for found in result["variants"].values():
            for task, name in (("predict", "all atoms"), ("predict_free", "free atoms asked for")):
                seconds = found[task]["seconds"][result["clock"]]["median"]
                rows.append((
                    f"{found['label']}, {name}", *_ratio(found[task]), f"{seconds:.3f}",
                    f"{counts['structures'] / seconds:.2f}",
                ))  # fmt: skip
        lines += ["", *table(("prediction", "ratio", "quartiles", "s", "structures/s"), rows)]
    if any("memory" in each for each in result["variants"].values()):
        rows = [
            (found["label"], *(f"{found['memory'][each] / 2**20:.0f}"
                               for each in ("peak", "step", "state", "held")))
            for found in result["variants"].values() if "memory" in found
        ]  # fmt: skip
        lines += [
            "",
            *table(("memory, MiB", "peak", "of a step", "state", "held by the process"), rows),
        ]
    return lines


def _ratio(found: dict[str, Any]) -> tuple[str, str]:
    if "ratio" not in found:
        return "", ""
    ratio = found["ratio"]
    return f"{ratio['median']:.3f}", f"{ratio['low']:.3f}-{ratio['high']:.3f}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.1f}"


def _scaling(points: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for point in points for name in point["variants"]))
    rows = [
        (
            point["axis"], f"{point['value']:g}", f"{point['counts'].get('edges', 0):g}",
            *(f"{each['step']['seconds'][point['clock']]['median']:.3f}" if each else ""
              for each in (point["variants"].get(name) for name in names)),
        )
        for point in points
    ]  # fmt: skip
    said = "Seconds of a training step; one thing at a time is changed in the first case."
    return ["## Scaling", "", f"![Scaling]({SCALING})", "", said, "",
            *table(("axis", "value", "edges", *names), rows)]  # fmt: skip


def _profiles(rows: list[dict[str, Any]]) -> list[str]:
    said = "Share of the seconds of one profiled step that are spent in operators of each kind."
    body = []
    for row in rows:
        total = sum(row["groups"].values())
        shares = (f"{seconds / total:.1%}" for seconds in row["groups"].values())
        body.append((f"{row['case']}, {row['label']}", f"{total:.2f}", *shares))
    lines = ["## Profile", "", said, "", *table(("case", "s", *rows[0]["groups"]), body), ""]
    for row in rows:
        largest = ", ".join(f"{name} {seconds:.3f}" for name, seconds in row["operators"].items())
        lines.append(f"- {row['case']}, {row['label']}, s in operators: {largest}")
    return lines


def _loading(rows: list[dict[str, Any]]) -> list[str]:
    head = ("case", "step ms", "graph ms", "of a step", "load ms, 0 workers", "of a step",
            "wait ms, 2 workers", "of a step")  # fmt: skip
    body = []
    for row in rows:
        parts = [row["graph"], row["load"]["0"]["median"], row["load"]["2"]["median"]]
        cells = [
            cell for part in parts for cell in (f"{1e3 * part:.2f}", f"{part / row['step']:.2%}")
        ]
        body.append((f"{row['case']}, {row['variant']}", f"{1e3 * row['step']:.0f}", *cells))
    said = "Wall clock. Load: LMDB, unpickling, checks, collation, for a batch."
    return ["## Data", "", said, "", *table(head, body)]


def _machine(machine: dict[str, Any]) -> list[str]:
    return ["## Measured on", "", *table(("", ""), [(k, str(v)) for k, v in machine.items()])]


def _configs(results: list[dict[str, Any]]) -> list[str]:
    lines = ["## Models", ""]
    for result in results:
        case = result["case"]
        lines.append(
            f"- {case['name']}: {case['structures']} slabs {case['slab']} with an adsorbate; "
            f"`{json.dumps(case['model'])}`"
        )
    return lines


def _products(rows: list[dict[str, Any]]) -> list[str]:
    said = (
        "GFLOP/s, in processor time, of products of float32 matrices (rows, inputs, outputs), in "
        "turn."
    )
    if not rows[0]["onednn"]:
        said += " On this machine `fast` uses torch's own: there is no oneDNN with AVX-512."
    body = [
        (row["product"], str(tuple(row["shape"])), f"{row['torch']:.0f}", f"{row['ours']:.0f}")
        for row in rows
    ]
    return ["## Matrix products", "", said, "",
            *table(("product", "shape", "torch", "fast"), body)]  # fmt: skip
