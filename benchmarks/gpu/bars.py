"""What the project asks of a step on a GPU."""

from __future__ import annotations

from benchmarks.gpu.findings import NOT_JUDGED, Finding, verdict

VARIANT = "graphs"

TIME = 0.60
"""A DeNS step with ``fast`` and ``cuda_graphs`` over stock EquiformerV2's without DeNS: the paper's
model, 4 structures, the same precision, median of rounds."""
MEMORY = 0.55
"""Its peak memory, weights and optimizer included, over stock's."""


def of(finding: Finding, judges: bool) -> list[Finding]:
    """The bars that a row of speed is measured against.

    Args:
        finding: of :mod:`~benchmarks.gpu.speed`; all but those of :data:`VARIANT` have no bar.
        judges: the row is of the models and the machine that the bars are meant for.
    """
    if finding.get("variant") != VARIANT or finding.get("task") != "step":
        return []
    row = f"{finding['case']}, {finding['structures']} structures, {finding['precision']}"
    found = []
    if "ratio" in finding:
        found.append(_bar(row, "time", finding["ratio"]["median"], TIME, judges))
    if "memory_ratio" in finding:
        found.append(_bar(row, "peak memory", finding["memory_ratio"], MEMORY, judges))
    return found


def _bar(row: str, quantity: str, value: float, limit: float, judges: bool) -> Finding:
    return {
        "kind": "bar", "row": row, "quantity": quantity, "value": value, "limit": limit,
        "verdict": verdict(value, limit) if judges else NOT_JUDGED,
    }  # fmt: skip
