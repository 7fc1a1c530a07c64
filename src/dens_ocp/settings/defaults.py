"""Settings that fairchem leaves open and then fails on, filled in from the rest of the config."""

from __future__ import annotations

from typing import Any

from fairchem.core.modules.evaluator import Evaluator

from dens_ocp.data.records.record_forms import KEY_MAPPING as KEY_MAPPING


def evaluation_metrics(
    configured: dict[str, Any] | None, outputs: dict[str, Any]
) -> dict[str, Any]:
    """``evaluation_metrics`` with ``metrics`` and ``primary_metric``.

    Without ``metrics``: fairchem's S2EF metrics of the outputs there are. Without
    ``primary_metric`` (fairchem: a TypeError in the middle of the first epoch): ``forces_mae``, the
    paper's choice for OC20, else ``energy_mae``, else the first metric.
    """
    filled = dict(configured or {})
    if not filled.get("metrics"):
        s2ef = Evaluator.task_metrics["s2ef"]
        filled["metrics"] = {
            name: [fn for fn in functions if fn != "energy_forces_within_threshold"]
            for name, functions in s2ef.items()
            if name in outputs
        }
    if not filled.get("primary_metric"):
        names = metric_names(filled["metrics"])
        preferred = [name for name in ("forces_mae", "energy_mae") if name in names]
        filled["primary_metric"] = (preferred or names or [None])[0]
    return filled


def metric_names(metrics: dict[str, list[str]]) -> list[str]:
    """Names under which fairchem's evaluator gives the functions of ``metrics``.

    >>> metric_names({"forces": ["mae", "forcesx_mae"]})
    ['forces_mae', 'forcesx_mae']
    """
    return [
        function if target in function or target == "misc" else f"{target}_{function}"
        for target, functions in metrics.items()
        for function in functions
    ]
