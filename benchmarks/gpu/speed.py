"""Time and memory of steps and predictions, variants in turn on the GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from benchmarks import memory
from benchmarks.cases import Case
from benchmarks.clock import Clock
from benchmarks.gpu import bars, precision, scenes
from benchmarks.gpu.findings import Finding, skipped
from benchmarks.gpu.parts import Setting
from benchmarks.gpu.precision import Precision
from benchmarks.measure import Spread, ratios
from benchmarks.steps import Runner
from dens_ocp.models.fast.layer_graphs import LayerGraphs

WARM_UP = 2
ROUNDS = 7
QUICK_ROUNDS = 2
ROW_SECONDS = 20.0
"""A row of variants in one precision is begun if so much time is left."""
GIB = 2**30
OUT_OF_MEMORY = "out of memory"

Run = Callable[[Runner], object]


@dataclass(frozen=True)
class Memory:
    """Bytes: ``step``: that a step adds to what is alive between steps; ``peak``: both."""

    step: int
    peak: int


def step(runner: Runner) -> None:
    """As in training: nobody waits for the GPU between phases."""
    runner.step(Clock(runner.device, waits=False))


def predict(runner: Runner) -> None:
    runner.predict(clock=Clock(runner.device, waits=False))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Run, runner: Runner) -> float:
    """Wall clock, from an idle GPU to an idle GPU."""
    wait(runner.device)
    start = time.perf_counter()
    run(runner)
    wait(runner.device)
    return time.perf_counter() - start


def step_memory(runner: Runner) -> Memory | None:
    """Of one step, after others; None on a CPU. Other runners' weights do not count; one runner at
    most has CUDA graphs."""
    if runner.device.type != "cuda":
        step(runner)
        return None
    before = torch.cuda.memory_allocated(runner.device)
    torch.cuda.reset_peak_memory_stats(runner.device)
    step(runner)
    added = torch.cuda.max_memory_allocated(runner.device) - before + of_graphs(runner)
    return Memory(added, added + memory.bytes_of(memory.state_of(runner.trainer)))


def graphs_of(runner: Runner) -> LayerGraphs | None:
    return getattr(runner.trainer._unwrapped_model, "layer_graphs", None)


def of_graphs(runner: Runner) -> int:
    """Bytes that a runner's CUDA graphs keep: their own memory, gradients included, which counts as
    allocated only in part and at all times, and what they read."""
    graphs = graphs_of(runner)
    if graphs is None or not graphs.recorded:
        return 0
    segments = torch.cuda.memory_snapshot()
    private = [each for each in segments if tuple(each["segment_pool_id"]) != (0, 0)]
    return graphs.bytes_read() + sum(each["total_size"] for each in private)


def hindrance(run: Run, runner: Runner) -> str | None:
    """Warm up; why it does not work, ``out of memory`` or an error's message."""
    try:
        for _ in range(WARM_UP):
            run(runner)
        wait(runner.device)
        return None
    except torch.cuda.OutOfMemoryError:
        found = OUT_OF_MEMORY
    except Exception as error:  # of a model under autocast, of a compiler, of a driver
        found = f"{type(error).__name__}: {error}"[:200]
    # only now, when the traceback is gone, are the tensors of the step too
    runner.trainer.optimizer.zero_grad()
    if runner.device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def in_turn(run: Run, runners: Sequence[Runner], rounds: int) -> dict[str, list[float]]:
    """Seconds by variant, a run of each a round, every other round in the other direction."""
    found: dict[str, list[float]] = {runner.variant.name: [] for runner in runners}
    for number in range(rounds):
        for runner in runners if number % 2 == 0 else reversed(runners):
            found[runner.variant.name].append(seconds(run, runner))
    return found


def baseline(runners: Sequence[Runner], found: dict[str, list[float]]) -> str | None:
    """The faster of the stock variants."""
    stock = [each.variant.name for each in runners if each.variant.stock]
    return min(stock, key=lambda name: statistics.median(found[name]), default=None)


def rows(
    some: Case, runners: Sequence[Runner], how: Precision, task: str, rounds: int
) -> list[Finding]:
    """What each variant takes for ``task`` (``step`` or ``predict``) in a precision; of variants
    that do not run, why."""
    run = step if task == "step" else predict
    about = {
        "kind": "speed", "case": some.name, "structures": some.structures,
        "precision": how.name, "task": task,
    }  # fmt: skip
    with how.of(*runners):
        hindrances = {each.variant.name: hindrance(run, each) for each in runners}
        fitting = [each for each in runners if hindrances[each.variant.name] is None]
        memories = {each.variant.name: step_memory(each) for each in fitting if task == "step"}
        times = in_turn(run, fitting, rounds)
    for each in runners:  # those of another precision are no part of its memory
        if (graphs := graphs_of(each)) is not None:
            graphs.forget()
    base = baseline(fitting, times)
    found = []
    for runner in runners:
        name = runner.variant.name
        row = {**about, "variant": name, "label": runner.variant.label}
        if name not in times:
            found.append({**row, "error": hindrances[name], "ours": runner.variant.ours})
            continue
        row["ms"] = {k: 1e3 * v for k, v in asdict(Spread.of(times[name])).items()}
        if base is not None:
            row["baseline"] = base
            row["ratio"] = asdict(ratios(times[name], times[base]))
        own, other = memories.get(name), memories.get(base or "")
        if own is not None:
            row["step_gib"], row["peak_gib"] = own.step / GIB, own.peak / GIB
            if other is not None:
                row["memory_ratio"] = own.peak / other.peak
        found.append(row)
    return found


def measured(
    setting: Setting, some: Case, names: Sequence[str], how: Sequence[Precision],
    tasks: Sequence[str],
) -> Iterator[Finding]:  # fmt: skip
    """Rows of a case, precision after precision; those that no longer fit the time are skipped."""
    if not setting.allows(ROW_SECONDS):
        yield skipped(_what(some), "no time left")
        return
    rounds = QUICK_ROUNDS if setting.quick else ROUNDS
    with scenes.runners(some, names, setting.device) as found:
        counts = found[-1].counts()
        yield {"kind": "counts", "case": some.name, "structures": some.structures, **counts}
        for each in how:
            if not each.there(setting.device):
                yield skipped(f"{_what(some)}, {each.name}", "not on a CPU")
                continue
            for task in tasks:
                if setting.allows(ROW_SECONDS):
                    yield from rows(some, found, each, task, rounds)
                else:
                    yield skipped(f"{_what(some)}, {each.name}, {task}", "no time left")


def _what(some: Case) -> str:
    return f"{some.name}, {some.structures} structures"


def of_bars(setting: Setting) -> Iterator[Finding]:
    """The paper's model, 4 structures: what the project asks of itself."""
    some = scenes.case("eqv2", "paper", 4, setting.quick)
    names = ("flat", "hydra", "fast", "graphs")
    how = (precision.FLOAT32, precision.TF32, precision.BFLOAT16)
    for finding in measured(setting, some, names, how, ("step",)):
        yield finding
        yield from bars.of(finding, setting.judges_speed)


def of_case(
    setting: Setting, family: str, size: str, structures: int, names: Sequence[str],
    tasks: Sequence[str] = ("step",),
) -> Iterator[Finding]:  # fmt: skip
    """A model in float32, TF32 and bfloat16."""
    some = scenes.case(family, size, structures, setting.quick)
    how = (precision.FLOAT32, precision.BFLOAT16, precision.TF32)
    yield from measured(setting, some, names, how, tasks)


def of_processor(setting: Setting) -> Iterator[Finding]:
    """One core of the machine that the GPU is in, wall clock: machines differ more than cards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        on_cpu = replace(setting, device_name="cpu")
        some = scenes.case("eqv2", "3", 2, setting.quick)
        names = ("flat", "hydra", "ours", "fast")
        for finding in measured(on_cpu, some, names, (precision.FLOAT32,), ("step",)):
            yield {**finding, "device": "cpu, one thread"}
    finally:
        torch.set_num_threads(before)


def of_batches(setting: Setting, seconds: float) -> Iterator[Finding]:
    """The paper's model with more and more structures, until ``graphs`` does not fit the memory, or
    for ``seconds``: there is more to measure."""
    setting = replace(setting, deadline=min(setting.deadline, time.time() + seconds))
    for structures in (2,) if setting.quick else (8, 16, 32, 64, 128):
        some = scenes.case("eqv2", "paper", structures, setting.quick)
        how = (precision.BFLOAT16, precision.TF32)
        full = False
        for finding in measured(setting, some, ("flat", "graphs"), how, ("step",)):
            yield finding
            full = full or (finding.get("variant") == "graphs" and "error" in finding)
        if full:
            return
