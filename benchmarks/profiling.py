"""Where the time of a step goes, by operator."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks import batches
from benchmarks.cases import Case
from benchmarks.measure import Settings
from benchmarks.steps import Runner
from benchmarks.variants import Variant

GROUPS = {
    "batched matrix products": ("aten::bmm", "aten::baddbmm"),
    "matrix products": ("aten::mm", "aten::addmm", "mkldnn::_linear_pointwise"),
    "copies": ("aten::copy_", "aten::cat", "aten::clone", "aten::index", "aten::index_select",
               "aten::gather", "aten::fill_", "aten::zero_"),
    "SiLU": ("aten::silu", "aten::silu_", "aten::silu_backward"),
    "elementwise": ("aten::mul", "aten::mul_", "aten::add", "aten::add_", "aten::div", "aten::sub",
                    "aten::exp", "aten::pow", "aten::sigmoid", "aten::sum", "aten::rsub"),
    "scatter": ("aten::index_add_", "aten::scatter_add_", "aten::scatter_reduce_",
                "aten::index_put_", "aten::_index_put_impl_", "aten::index_add",
                "torch_scatter::scatter_sum"),
    "normalisation, softmax": ("aten::native_layer_norm", "aten::native_layer_norm_backward",
                               "aten::_softmax", "aten::native_dropout"),
    "optimizer": ("aten::_foreach_add_", "aten::_foreach_mul_", "aten::_foreach_addcdiv_",
                  "aten::_foreach_addcmul_", "aten::_foreach_lerp_", "aten::_foreach_norm",
                  "aten::_foreach_sqrt", "aten::_foreach_div_", "aten::lerp_", "aten::addcmul_",
                  "aten::addcdiv_"),
}  # fmt: skip
"""Group -> operators. All else is "other": on a CPU also blocks of :mod:`dens_ocp.models.fast`,
whose inner operators are counted in their own groups."""


def run(case: Case, variants: Sequence[Variant], settings: Settings) -> list[dict[str, Any]]:
    """Seconds of the device in each group, of one step after ``settings.warm_up`` steps.

    Returns:
        For each variant ``label``, ``groups`` (name -> seconds, own time of its operators) and
        ``operators`` (the ten largest).
    """
    with tempfile.TemporaryDirectory() as folder:
        data = batches.write(
            Path(folder) / "data", batches.records(case.batch, case.structures, case.slab)
        )
        return [
            {"case": case.name, "label": each.label}
            | _profiled(Runner(each, case, data, Path(folder), settings.device), settings)
            for each in variants
        ]


def _profiled(runner: Runner, settings: Settings) -> dict[str, Any]:
    for _ in range(max(1, settings.warm_up)):
        runner.step()
    cuda = settings.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as recorded:
        runner.step()
    settings.progress(f"profile {runner.variant.name}")
    group_of = {name: group for group, names in GROUPS.items() for name in names}
    groups: dict[str, float] = defaultdict(float)
    operators = {}
    for event in recorded.key_averages():
        seconds = (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6
        groups[group_of.get(event.key, "other")] += seconds
        operators[event.key] = seconds
    largest = sorted(operators, key=operators.__getitem__, reverse=True)[:10]
    return {
        "groups": {name: groups[name] for name in (*GROUPS, "other")},
        "operators": {name: operators[name] for name in largest},
    }
