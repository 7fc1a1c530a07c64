"""Where the time of one step goes: kernels, launches, waits for the GPU, gaps between kernels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import precision, scenes, speed
from benchmarks.gpu.findings import NOT_ON_A_CPU, Finding
from benchmarks.gpu.parts import Setting
from benchmarks.gpu.precision import Precision
from benchmarks.steps import Runner

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
LARGEST = 12
HOW = (precision.FLOAT32, precision.BFLOAT16)


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals (start, end).

    >>> covered([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def is_launch(name: str) -> bool:
    """Whether a call of CUDA's interface launches a kernel (``cudaLaunchKernel``,
    ``cuLaunchKernelEx``, ``cudaLaunchKernelExC``, ...)."""
    return name.startswith(("cudaLaunch", "cuLaunch"))


def largest(times: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
    """The :data:`LARGEST` names by the sum of their times (microseconds)."""
    sums: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for name, time in times:
        sums[name] += time
        counts[name] += 1
    names = sorted(sums, key=sums.__getitem__, reverse=True)[:LARGEST]
    return [{"name": n[:80], "ms": sums[n] / 1e3, "count": counts[n]} for n in names]


def summary(events: Iterable[Any], wall_ms: float) -> dict[str, Any]:
    """Of the events of a profile on a GPU.

    Args:
        wall_ms: what a step takes without the profiler, which lengthens the gaps.
    """
    events = list(events)
    kernels = [e for e in events if e.device_type == DeviceType.CUDA and not _is_annotation(e)]
    calls = Counter(e.name for e in events if e.device_type == DeviceType.CPU)
    busy = covered((e.time_range.start, e.time_range.end) for e in kernels) / 1e3
    return {
        "busy_ms": busy,
        "gap_share": max(0.0, 1 - busy / wall_ms),
        "launches": sum(count for name, count in calls.items() if is_launch(name)),
        # the last wait is that of the measurement itself
        "waits": max(0, sum(calls[name] for name in WAITS) - 1),
        "kernels": largest((e.name, e.time_range.elapsed_us()) for e in kernels),
    }


def _is_annotation(event: Any) -> bool:
    """Ranges that torch names, as ``Optimizer.step#AdamW.step``, are drawn on the GPU too."""
    return getattr(event, "is_user_annotation", False) or event.name.startswith(
        ("Optimizer.", "ProfilerStep")
    )


def run(setting: Setting) -> Iterator[Finding]:
    """Stock and ``fast`` in float32 and bfloat16: the paper's model, 4 structures."""
    some = scenes.case("eqv2", "paper", 4, setting.quick)
    with scenes.runners(some, ("flat", "fast", "graphs"), setting.device) as runners:
        for how in HOW[:1] if setting.quick else HOW:
            for runner in runners:
                row = {
                    "kind": "profile", "case": some.name, "structures": some.structures,
                    "precision": how.name, "variant": runner.variant.name,
                    "label": runner.variant.label,
                }  # fmt: skip
                yield {**row, **_profiled(runner, how)}


def _profiled(runner: Runner, how: Precision) -> dict[str, Any]:
    cuda = runner.device.type == "cuda"
    with how.of(runner):
        for _ in range(speed.WARM_UP):
            speed.step(runner)
        wall = 1e3 * min(speed.seconds(speed.step, runner) for _ in range(3))
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        speed.wait(runner.device)
        with profile(activities=activities) as recorded:
            speed.step(runner)
            speed.wait(runner.device)
    events = recorded.events()
    if cuda:
        return {"wall_ms": wall, **summary(events, wall)}
    operators = ((e.name, e.self_cpu_time_total) for e in events)
    return {
        "wall_ms": wall, "busy_ms": None, "gap_share": None, "launches": None, "waits": None,
        "why": NOT_ON_A_CPU, "kernels": largest(operators),
    }  # fmt: skip
