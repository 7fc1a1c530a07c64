"""A short run of the config's model with fewer blocks: FLOP, memory, seconds."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from dens_ocp.errors import DensError
from dens_ocp.models.dens_model import DeNSModel
from dens_ocp.tools.plan.counters import PeakBytes
from dens_ocp.tools.plan.fit import Growth, Line, fit, fit_line, without_constant

_VOLUME = 16.0
"""Cubic Angstrom for an atom: between Cu (11.8) and Pb (30)."""


@dataclass(frozen=True)
class Measured:
    """Forward and backward of the model as functions of depth, atoms and edges.

    Attributes:
        device: name of the device.
        flops: floating point operations of matrix products (``torch.utils.flop_counter``).
        peak_bytes: of tensors alive at the peak, without weights, gradients and batch.
        seconds: on ``device``; forward, backward; a line over FLOP.
        optimizer_seconds: AdamW step for a parameter.
        points: what was measured: (blocks, atoms, edges) -> (FLOP, bytes, seconds).
    """

    device: str
    flops: Growth
    peak_bytes: Growth
    seconds: Line
    optimizer_seconds: float
    points: dict[tuple[int, float, float], tuple[float, float, float]]


def structure(atoms: int, seed: int = 0) -> Data:
    """Random atoms in a periodic box of a metal's density, with labels: as much work as an OC20
    structure of as many atoms and edges, and nothing else in common with one."""
    random = np.random.default_rng(seed)
    side = (atoms * _VOLUME) ** (1 / 3)
    return Data(
        pos=torch.tensor(random.random((atoms, 3)) * side, dtype=torch.float32),
        cell=(torch.eye(3) * side)[None],
        atomic_numbers=torch.tensor(random.integers(1, 80, atoms)),
        natoms=atoms,
        tags=torch.ones(atoms, dtype=torch.long),
        fixed=torch.zeros(atoms, dtype=torch.long),
        forces=torch.tensor(random.standard_normal((atoms, 3)), dtype=torch.float32),
        sid=seed,
        fid=0,
    )


def with_layers(model: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """The section ``model`` with another number of blocks.

    Raises:
        DensError: a model without ``num_layers``.
    """
    if "num_layers" not in model:
        raise DensError(
            f"model.num_layers is missing: {model['name']} cannot be measured with fewer blocks; "
            "use --no-measure"
        )
    return {**model, "num_layers": layers}


def build(model: Mapping[str, Any], device: torch.device) -> torch.nn.Module:
    """The model of a section ``model``, in training mode.

    Raises:
        DensError: unknown model or option.
    """
    from fairchem.core.common.registry import registry

    options = dict(model)
    name = options.pop("name")
    try:
        cls = registry.get_model_class(name)
        if issubclass(cls, DeNSModel):
            # fairchem's own path: what a GPU takes, and what torch's counter of operations knows
            options["fast"] = False
        return cls(**options).to(device).train()
    except (TypeError, RuntimeError) as error:
        (reason, *_) = str(error).splitlines() or [""]
        raise DensError(
            f"model: {name} cannot be built: {reason}; compare the section with a recipe in "
            "configs/"
        ) from None


def measure(
    model: Mapping[str, Any],
    device: torch.device,
    sizes: tuple[int, int] = (4, 8),
    depths: tuple[int, int] = (1, 2),
    repeats: int = 3,
    amp: bool = False,
    progress: bool = True,
) -> Measured:
    """Forward, backward and optimizer step at two depths and three sizes.

    Args:
        model: section ``model`` of a config, with ``num_layers`` and ``max_neighbors``.
        device: where.
        sizes: atoms of the small and of the large structure; edges are atoms times
            ``max_neighbors``, and half of that in the third size.
        depths: numbers of blocks.
        repeats: runs of each after a warm-up; the fastest counts.
        amp: mixed precision, as of fairchem's ``--amp``: autocast to float16 on a GPU, to bfloat16
            on a CPU, which takes as much memory.
        progress: show a bar.
    """
    neighbors = int(model.get("max_neighbors", 20))
    if "enforce_max_neighbors_strictly" in model:
        # in small boxes images of an atom are equally far: with ties edges could not be told
        model = {**model, "enforce_max_neighbors_strictly": True}
    cases = [(sizes[0], neighbors), (sizes[1], neighbors), (sizes[1], max(1, neighbors // 2))]
    points: dict[tuple[int, float, float], tuple[float, float, float]] = {}
    optimizer = []
    bar = tqdm(total=len(depths) * len(cases), desc="measuring", unit="run", disable=not progress)
    for layers in depths:
        built = build(with_layers(model, layers), device)
        for atoms, most in cases:
            built.max_neighbors = most
            batch = Batch.from_data_list([structure(atoms)]).to(device)
            edges = float(atoms * most)
            points[(layers, float(atoms), edges)] = _one(built, batch, device, repeats, amp)
            bar.update()
        optimizer.append(_optimizer_seconds(built, device))
        del built
        gc.collect()
    bar.close()
    parts = [{key: each[i] for key, each in points.items()} for i in range(3)]
    name = f"CPU, {torch.get_num_threads()} thread(s)"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return Measured(
        f"{name}, {'mixed precision' if amp else 'float32'}",
        without_constant(parts[0]),
        fit(parts[1]),
        fit_line(list(parts[0].values()), list(parts[2].values())),
        min(optimizer),
        points,
    )


def _one(
    model: torch.nn.Module, batch: Batch, device: torch.device, repeats: int, amp: bool
) -> tuple[float, float, float]:
    half = torch.float16 if device.type == "cuda" else torch.bfloat16

    def step() -> None:
        model.zero_grad(set_to_none=False)
        with torch.autocast(device.type, dtype=half, enabled=amp):
            outputs = model(batch)
        sum(each.float().square().sum() for each in outputs.values()).backward()

    with FlopCounterMode(display=False) as counter:
        step()  # warm-up too: it makes the gradients
    peak = _peak_bytes(model, step, device)
    seconds = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        step()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return float(counter.get_total_flops()), peak, min(seconds)


def _peak_bytes(model: torch.nn.Module, step: Any, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return float(torch.cuda.max_memory_allocated(device) - before)
    own = [*model.parameters(), *model.buffers()]
    own += [each.grad for each in model.parameters() if each.grad is not None]
    with PeakBytes() as counter:
        counter.ignore(own)
        step()
    return float(counter.peak)


def _optimizer_seconds(model: torch.nn.Module, device: torch.device) -> float:
    """Seconds of AdamW for one parameter."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    optimizer.step()
    _wait(device)
    start = time.perf_counter()
    optimizer.step()
    _wait(device)
    return (time.perf_counter() - start) / sum(each.numel() for each in model.parameters())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
