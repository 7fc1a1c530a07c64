"""Peak memory of a training step, measured in a fresh process for each variant."""

from __future__ import annotations

import re
import resource
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks import batches, fresh_process
from benchmarks.cases import Case
from benchmarks.steps import Runner
from benchmarks.variants import Variant, of
from dens_ocp.tools.plan.measure import PeakBytes


def measure(case: Case, variant: Variant, device: torch.device, amp: bool, threads: int) -> dict:
    """Bytes that a training run takes, in a process of its own.

    Returns:
        ``peak``: what ratios are of: on a GPU ``torch.cuda.max_memory_allocated``; on a CPU the
        same thing, ``state`` (weights, gradients, optimizer, EMA) and ``step``, the bytes of
        tensors that a step makes and that are alive at its peak, counted operator by operator.
        ``held``: what the process takes for it: on a GPU what the allocator has reserved; on a CPU
        how much the resident set has grown from before the trainer was made to its peak in the
        second step; it varies with the allocator's leftovers.
    """
    return fresh_process.run(
        f"{case.name}/{variant.name}, memory",
        _measured, case, variant.name, str(device), amp, threads,
    )  # fmt: skip


def _measured(case: Case, name: str, device_name: str, amp: bool, threads: int) -> dict[str, int]:
    from fairchem.core.common.utils import setup_imports

    import dens_ocp  # noqa: F401 (registers)

    torch.set_num_threads(threads)
    device = torch.device(device_name)
    variant = next(each for each in of(case) if each.name == name)
    setup_imports()
    with tempfile.TemporaryDirectory() as folder:
        data = batches.write(
            Path(folder) / "data", batches.records(case.batch, case.structures, case.slab)
        )
        cuda = device.type == "cuda"
        before = 0 if cuda else _resident()
        runner = Runner(variant, case, data, Path(folder), device, amp)
        runner.step()  # Adam makes its state
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _forget_peak()
        runner.step()
        allocated = torch.cuda.max_memory_allocated(device) if cuda else None
        held = torch.cuda.max_memory_reserved(device) if cuda else _peak_resident() - before
        tensors = state_of(runner.trainer)
        with PeakBytes() as counter:
            counter.ignore(tensors)
            runner.step()
        state = bytes_of(tensors)
        return {
            "peak": allocated or state + counter.peak,
            "held": held,
            "step": counter.peak,
            "state": state,
        }


def state_of(trainer: Any) -> list[torch.Tensor]:
    """What is alive between two steps: weights, gradients, optimizer, EMA."""
    tensors = [*trainer.model.parameters(), *trainer.model.buffers()]
    tensors += [each.grad for each in trainer.model.parameters() if each.grad is not None]
    for state in trainer.optimizer.state.values():
        tensors += [each for each in state.values() if isinstance(each, torch.Tensor)]
    return [*tensors, *(trainer.ema.shadow_params if trainer.ema else [])]


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Of their storages, each once."""
    storages = {each.untyped_storage()._cdata: each.untyped_storage() for each in tensors}
    return sum(each.nbytes() for each in storages.values())


def _resident() -> int:
    """Bytes of the resident set."""
    return _status("VmRSS") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _forget_peak() -> None:
    """Let the kernel's high-water mark start again (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # the mark of the first step stays; the second one's peak is hardly lower


def _peak_resident() -> int:
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
