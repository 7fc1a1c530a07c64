"""The report of the check: verdicts first, then time, memory, profiles, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.findings import GREEN, NOT_JUDGED, RED, Finding
from benchmarks.report import table

_SHOWN = {GREEN: "green", RED: "**red**", NOT_JUDGED: "not judged"}
REHEARSAL = (
    "> **A rehearsal on a CPU with tiny models: it shows that the check runs. Its times are not "
    "figures of anything.**"
)
QUICK = "> **Tiny models: this shows that the check runs. Its times are not figures of anything.**"


def markdown(findings: Sequence[Finding], picture: str) -> str:
    """The report of a run's findings.

    Args:
        picture: the file name of the plot beside it.
    """
    of = {
        kind: [f for f in findings if f["kind"] == kind] for kind in {f["kind"] for f in findings}
    }
    (about,) = of["machine"]
    lines = ["# GPU check", ""]
    if about["quick"]:
        lines += [REHEARSAL if about["device"] == "cpu" else QUICK, ""]
    lines += [_summary(findings), ""]
    for title, kind, section in _SECTIONS:
        if of.get(kind):
            lines += [f"## {title}", "", *section(of[kind]), ""]
        if kind == "speed" and of.get(kind):
            lines += [f"![Time of a step]({picture})", ""]
    return "\n".join(lines).rstrip() + "\n"


def _summary(findings: Sequence[Finding]) -> str:
    judged = [f["verdict"] for f in findings if "verdict" in f]
    counts = {name: judged.count(name) for name in (GREEN, RED, NOT_JUDGED)}
    failed = sum(f["kind"] == "failed" for f in findings)
    skipped = sum(f["kind"] == "skipped" for f in findings)
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"Rows: {said}. Parts that failed: {failed}. Skipped: {skipped}."


def number(value: Any) -> str:
    """A value in a few digits; text as it is.

    >>> number(0.000012345), number(2.0), number(None), number("all")
    ('1.2e-05', '2', '', 'all')
    """
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.2g}"


def _cell(text: str) -> str:
    """Text that stays within its cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _verdicts(rows: Sequence[Finding]) -> list[str]:
    body = [
        (_cell(f["row"]), f["quantity"], _cell(number(f["value"])), number(f["limit"]),
         _SHOWN[f["verdict"]], _cell(f["why"]))
        for f in rows
    ]  # fmt: skip
    return table(("", "quantity", "found", "at most", "verdict", "why"), body)


def _bars(rows: Sequence[Finding]) -> list[str]:
    body = [
        (f["row"], f["quantity"], f"{f['value']:.3f}", f"{f['limit']:.2f}", _SHOWN[f["verdict"]])
        for f in rows
    ]
    return table(("`fast` to stock without DeNS", "of", "ratio", "at most", "verdict"), body)


def _speed(rows: Sequence[Finding]) -> list[str]:
    head = ("", "variant", "ms", "quartiles", "ratio to stock", "quartiles", "GiB of a step",
            "peak GiB", "memory ratio")  # fmt: skip
    said = (
        "Wall clock of real steps of the trainers, from an idle GPU to an idle GPU; variants take "
        "one each in turn. Stock is the faster of fairchem's forms. Peak: weights, optimizer and "
        "averaged weights included."
    )
    return [said, "", *table(head, map(_speed_row, rows))]


def _speed_row(f: Finding) -> tuple[str, ...]:
    about = f"{f['case']}, {f['structures']} structures, {f['precision']}, {f['task']}"
    about += f", {f['device']}" if "device" in f else ""
    if "error" in f:
        return (about, f["label"], _cell(f["error"]), *[""] * 6)
    ratio, ms = f.get("ratio"), f["ms"]
    return (
        about, f["label"], f"{ms['median']:.1f}", f"{ms['low']:.1f}-{ms['high']:.1f}",
        "" if ratio is None else f"{ratio['median']:.3f}",
        "" if ratio is None else f"{ratio['low']:.3f}-{ratio['high']:.3f}",
        *("" if name not in f else f"{f[name]:.2f}"
          for name in ("step_gib", "peak_gib", "memory_ratio")),
    )  # fmt: skip


def _compiled(rows: Sequence[Finding]) -> list[str]:
    body = []
    for f in rows:
        about = f"{f['label']}, {f['case']}, {f['structures']} structures, {f['backend']}"
        if "error" in f:
            body.append((about, "", "", "", _cell(f["error"])))
        else:
            body.append((about, f"{f['ms_without']:.1f}", f"{f['ms']:.1f}", f"{f['ratio']:.3f}",
                         f"first step {f['first_step_seconds']:.1f} s"))  # fmt: skip
    return table(("", "ms without", "ms with", "ratio", ""), body)


def _profiles(rows: Sequence[Finding]) -> list[str]:
    def shown(value: float | None, form: str, why: str) -> str:
        return why if value is None else format(value, form)

    body = [
        (f"{f['label']}, {f['precision']}", f"{f['wall_ms']:.1f}",
         *(shown(f[name], form, f.get("why", "")) for name, form in (
             ("busy_ms", ".1f"), ("gap_share", ".1%"), ("launches", "d"), ("waits", "d"))))
        for f in rows
    ]  # fmt: skip
    head = ("", "ms of a step", "GPU at work, ms", "share of gaps", "launches", "waits for the GPU")
    lines = [*table(head, body), ""]
    for f in rows:
        largest = "; ".join(f"`{k['name']}` {k['ms']:.2f} ms, {k['count']}" for k in f["kernels"])
        lines.append(f"- {f['label']}, {f['precision']}: {largest}")
    return lines


def _counts(rows: Sequence[Finding]) -> list[str]:
    names = ("atoms", "free", "edges", "corrupted")
    body = [
        (f"{f['case']}, {f['structures']} structures", *(str(f.get(n, "")) for n in names))
        for f in rows
    ]
    return table(("", *names), body)


def _notes(rows: Sequence[Finding]) -> list[str]:
    return [f"- {f['what']}: {f['value']:.4f}" for f in rows]


def _skipped(rows: Sequence[Finding]) -> list[str]:
    return [f"- {f['what']}: {f['why']}" for f in rows]


def _failed(rows: Sequence[Finding]) -> list[str]:
    return [f"- **{f['what']}**: {_cell(f['error'])}" for f in rows]


def _times(rows: Sequence[Finding]) -> list[str]:
    return table(("part", "seconds"), [(f["what"], f"{f['seconds']:.0f}") for f in rows])


def _machine(rows: Sequence[Finding]) -> list[str]:
    hidden = {"t", "part", "kind"}
    return table(("", ""), [(k, _cell(str(v))) for k, v in rows[0].items() if k not in hidden])


_SECTIONS = (
    ("Parts that failed", "failed", _failed),
    ("Is it right?", "verdict", _verdicts),
    ("Bars", "bar", _bars),
    ("Time and memory", "speed", _speed),
    ("Batches", "counts", _counts),
    ("torch.compile", "compile", _compiled),
    ("Where the time goes", "profile", _profiles),
    ("Also", "note", _notes),
    ("Skipped", "skipped", _skipped),
    ("Time of the check", "time", _times),
    ("Measured on", "machine", _machine),
)
