"""A short run of the config's model with fewer blocks: FLOP, memory, seconds. By fairchem's own
path: what a GPU takes, and what torch's counter of operations knows."""

from __future__ import annotations

import timeit
import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from scipy.optimize import nnls
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Batch, Data
from tqdm import tqdm

from dens_ocp.data.records.oc20_records import geometry
from dens_ocp.errors import DensError
from dens_ocp.tools.config_model import build_model

Point = tuple[int, int]
"""Blocks, atoms."""

_VOLUME = 16.0
"""Cubic Angstrom for an atom: between Cu (11.8) and Pb (30)."""


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made while it is active, on any device; memory of what
    was there before does not count. Buffers inside an operator are not seen.

    ``torch.profiler`` finds the same, but is slower and warns of each tensor that is older.

    Attributes:
        live, peak: bytes that are alive, and the most that were at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}

    def ignore(self, tensors: Any) -> None:
        """Leave out the memory of ``tensors`` (parameters, buffers, the batch)."""
        self._known |= {each.untyped_storage()._cdata: each for each in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in tree_iter(out):
            if isinstance(each, torch.Tensor):
                self._see(each.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_: Any) -> None:
            self.live -= size
            self._known.pop(key, None)

        self.live += size
        self.peak = max(self.peak, self.live)
        self._known[key] = weakref.ref(storage, gone)


def extended(points: Mapping[Point, float], layers: int, atoms: float) -> float:
    """What is measured at two depths and two sizes, for another depth L and size N::

        q(L, N) = a0 + n0 N + (a1 + n1 N) L

    Edges are in proportion to atoms.

    Args:
        points: four; (L, N) -> value.
        layers, atoms: L and N.
    """
    rows = [[1, n, depth, depth * n] for depth, n in points]
    solution = np.linalg.solve(np.array(rows, float), list(points.values()))
    return float(max(0.0, solution @ [1, atoms, layers, layers * atoms]))


def fit_line(x: Any, y: Any) -> tuple[float, float, float]:
    """The line through points that makes the relative residuals least; times are noisy in
    proportion to their length. Neither an empty batch nor more work takes less than no time.

    Returns:
        Offset and slope, not negative, and the root mean square of the relative residuals.
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    rows = np.stack([np.ones_like(xs), xs / xs.max()], axis=1) / ys[:, None]
    (offset, slope), residual = nnls(rows, np.ones_like(ys))
    return float(offset), float(slope / xs.max()), float(residual / len(ys) ** 0.5)


class Measured(NamedTuple):
    """Forward and backward of a model at two depths and two sizes.

    Attributes:
        device: name of the device.
        flops: of matrix products.
        peak_bytes: of tensors alive at the peak, without weights, gradients and batch.
        seconds: on ``device``.
    """

    device: str
    flops: dict[Point, float]
    peak_bytes: dict[Point, float]
    seconds: dict[Point, float]

    def line(self) -> tuple[float, float, float]:
        """Seconds over FLOP: offset, slope, spread of :func:`fit_line`."""
        return fit_line(list(self.flops.values()), list(self.seconds.values()))


def structure(atoms: int, seed: int = 0) -> Data:
    """Random atoms in a periodic box of a metal's density: as much work as an OC20 structure of as
    many atoms and edges, and nothing else in common with one."""
    random = np.random.default_rng(seed)
    side = (atoms * _VOLUME) ** (1 / 3)
    positions = random.random((atoms, 3)) * side
    return geometry(Atoms(random.integers(1, 80, atoms), positions, cell=[side] * 3, pbc=True), 0)


def measure(
    model: Mapping[str, Any],
    neighbors: int,
    device: torch.device,
    sizes: tuple[int, int] = (4, 8),
    depths: tuple[int, int] = (1, 2),
    repeats: int = 3,
    amp: bool = False,
    progress: bool = True,
) -> Measured:
    """Forward and backward at two depths and two sizes.

    Args:
        model: section ``model`` of a config, with ``num_layers``.
        neighbors: edges of an atom.
        device: where.
        sizes: atoms of the small and of the large structure.
        depths: numbers of blocks.
        repeats: runs of each after a warm-up; the fastest counts.
        amp: mixed precision, as of fairchem's ``--amp``: autocast to float16 on a GPU, to bfloat16
            on a CPU, which takes as much memory.
        progress: show a bar.

    Raises:
        DensError: a model without ``num_layers``.
    """
    if "num_layers" not in model:
        raise DensError(
            f"model.num_layers is missing: {model['name']} cannot be measured with fewer blocks; "
            "use --no-measure"
        )
    if "enforce_max_neighbors_strictly" in model:
        # in small boxes images of an atom are equally far: with ties edges could not be told
        model = {**model, "enforce_max_neighbors_strictly": True}
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} thread(s)"
    found = Measured(f"{name}, {'mixed precision' if amp else 'float32'}", {}, {}, {})
    cases = [(layers, atoms) for layers in depths for atoms in sizes]
    for layers, atoms in tqdm(cases, desc="measuring", unit="run", disable=not progress):
        built = build_model({**model, "num_layers": layers}, stock=True).to(device).train()
        built.max_neighbors = neighbors
        batch = Batch.from_data_list([structure(atoms)]).to(device)
        case = layers, atoms
        found.flops[case], found.peak_bytes[case], found.seconds[case] = _one(
            built, batch, device, repeats, amp
        )
    return found


def _one(
    model: torch.nn.Module, batch: Batch, device: torch.device, repeats: int, amp: bool
) -> tuple[float, float, float]:
    cuda = device.type == "cuda"
    half = torch.float16 if cuda else torch.bfloat16

    def step() -> None:
        model.zero_grad(set_to_none=False)
        with torch.autocast(device.type, dtype=half, enabled=amp):
            outputs = model(batch)
        sum(each.float().square().sum() for each in outputs.values()).backward()
        if cuda:
            torch.cuda.synchronize()

    with FlopCounterMode(display=False) as counter:
        step()  # warm-up too: it makes the gradients
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        peak = torch.cuda.max_memory_allocated() - before
    else:
        with PeakBytes() as allocated:
            allocated.ignore([*model.parameters(), *model.buffers()])
            allocated.ignore(each.grad for each in model.parameters() if each.grad is not None)
            step()
        peak = allocated.peak
    seconds = timeit.repeat(step, number=1, repeat=repeats)
    return float(counter.get_total_flops()), float(peak), min(seconds)
