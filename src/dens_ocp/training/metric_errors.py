"""fairchem's metrics of a batch with one wait for the device, and no loop over structures.

fairchem waits for the device in every metric (``.item()``), and in every structure: for its number
of free atoms, and for whether its energy and forces are within a threshold. Here each metric is a
tensor of errors on the device, and their sums are fetched together. What is an error is said by
fairchem's own functions wherever they can be called for it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from fairchem.core.modules import evaluator as fairchems

Statistic = dict[str, float]
"""``total`` and ``numel``, which ``Evaluator.update`` adds up."""

_ENERGY_WITHIN, _FORCE_WITHIN = 0.02, 0.03  # eV, eV/Angstrom; as in fairchem's evaluator


@dataclass(frozen=True)
class MetricRows:
    """Which rows of a batch metrics look at.

    Attributes:
        structures: (b,) int64. atoms: (n,) int64, their atoms.
        free: (f,) int64, the free ones of these. natoms_free: (b,) int64, of each structure.
        structure_of_free: (f,) int64, as index into ``structures``.
    """

    structures: torch.Tensor
    atoms: torch.Tensor
    free: torch.Tensor
    natoms_free: torch.Tensor
    structure_of_free: torch.Tensor

    @classmethod
    def of(cls, batch: Any, keep: torch.Tensor | None = None) -> MetricRows:
        """Of the structures in ``keep`` (B,) bool; None: all. Waits for the device of ``batch``."""
        if keep is None:
            keep = torch.ones_like(batch.natoms, dtype=torch.bool)
        kept = keep[batch.batch]
        free = torch.nonzero(kept & (batch.fixed == 0))[:, 0]
        structures = torch.nonzero(keep)[:, 0]
        structure_of_free = (torch.cumsum(keep.long(), 0) - 1)[batch.batch[free]]
        natoms_free = torch.zeros_like(structures).index_add_(
            0, structure_of_free, torch.ones_like(structure_of_free)
        )
        atoms = torch.nonzero(kept)[:, 0]
        return cls(structures, atoms, free, natoms_free, structure_of_free)

    def as_dict(self) -> dict[str, torch.Tensor]:
        return asdict(self)

    def cut(self, key: str, batch: Any) -> Any:
        """Rows of a field of ``batch`` with a row per atom or structure; others are kept whole."""
        value = batch[key]
        if isinstance(value, torch.Tensor) and value.dim() > 0:
            level = _level(key, batch)
            if level == "atom":
                return value[self.atoms]
            if level == "system":
                return value[self.structures]
        return value


def _level(key: str, batch: Any) -> str | None:
    """``atom``, ``system`` or None: what a row of a field belongs to.

    A batch knows how many rows each structure gave. The number of all rows tells nothing where
    edges, atoms and structures are as many; it is asked only of a field that was added afterwards.
    """
    slices = getattr(batch, "_slice_dict", {}).get(key)
    if slices is not None:
        rows = torch.as_tensor(slices).diff()
        if torch.equal(rows, batch.natoms.to(rows)):
            return "atom"
        return "system" if bool((rows == 1).all()) else None
    if len(batch[key]) == batch.pos.shape[0]:
        return "atom"
    return "system" if len(batch[key]) == batch.natoms.numel() else None


class Fields(dict):
    """What a metric reads: predictions or targets, and the batch's other fields when asked for."""

    def __init__(self, own: Mapping[str, torch.Tensor], batch: Any, rows: MetricRows) -> None:
        super().__init__(own, natoms=rows.natoms_free)
        self.batch, self.rows = batch, rows

    def __missing__(self, key: str) -> Any:
        if key not in self.batch:
            raise KeyError(key)
        return self.rows.cut(key, self.batch)


def metric_name(key: str, function: str) -> str:
    """fairchem's name of a metric (``modules/evaluator.py``)."""
    return f"{key}_{function}" if key not in function and key != "misc" else function


def metric_errors(
    evaluator: Any, prediction: Fields, target: Fields
) -> dict[str, torch.Tensor | Statistic]:
    """Errors whose sum and number of elements are fairchem's ``total`` and ``numel``.

    Args:
        evaluator: fairchem's; ``target_metrics`` says which metrics of which targets.
        prediction, target: tensors with a row per atom or structure that counts.

    Returns:
        Name of the metric -> tensor of errors; for metrics that are not known here, what fairchem's
        function gives, and nothing where there is nothing to compare.
    """
    found: dict[str, torch.Tensor | Statistic] = {}
    for key, functions in evaluator.target_metrics.items():
        for function in functions:
            name = metric_name(key, function)
            if function in _ERRORS:
                found[name] = _ERRORS[function](prediction, target, key)
            elif key not in prediction or len(prediction[key]):
                alone = copy.copy(evaluator)
                alone.target_metrics = {key: [function]}
                found |= alone.eval(prediction, target)
    return found


def fetched(errors: Mapping[str, torch.Tensor | Statistic]) -> dict[str, Statistic]:
    """Sums and numbers of elements, on the host; the device is waited for once.

    Metrics of nothing are left out: fairchem would divide by zero.
    """
    tensors = {name: each for name, each in errors.items() if isinstance(each, torch.Tensor)}
    sums = [each.detach().sum(dtype=torch.float64) for each in tensors.values()]
    totals = dict(zip(tensors, torch.stack(sums).tolist() if sums else (), strict=True))
    found = {
        name: {"total": totals[name], "numel": each.numel()} if name in tensors else each
        for name, each in errors.items()
    }
    return {name: each for name, each in found.items() if each["numel"] > 0}


def _component(error: Callable, axis: int) -> Callable:
    def of_axis(prediction: Any, target: Any, key: str) -> torch.Tensor:
        return error(
            {key: prediction["forces"][:, axis]}, {key: target["forces"][:, axis]}, key
        )  # fmt: skip

    return of_axis


def _rmse(prediction: Any, target: Any, key: str) -> torch.Tensor:
    return ((target[key] - prediction[key]) ** 2).sum(dim=-1).sqrt()


def _energy_within_threshold(prediction: Any, target: Any, key: str) -> torch.Tensor:
    return (target["energy"] - prediction["energy"]).abs() < _ENERGY_WITHIN


def _energy_forces_within_threshold(prediction: Any, target: Any, key: str) -> torch.Tensor:
    """(b,) bool: all force components of a structure and its energy are within the thresholds."""
    errors = (target["forces"] - prediction["forces"]).abs().amax(dim=1)
    rows = target.rows
    structure = rows.structure_of_free
    if len(errors) != len(structure):  # metrics of fixed atoms too
        # a structure's index among those that count
        index = torch.zeros_like(target.batch.natoms)
        index[rows.structures] = torch.arange(len(rows.structures), device=index.device)
        structure = index[target.batch.batch[rows.atoms]]
    largest = errors.new_zeros(len(rows.structures)).scatter_reduce(0, structure, errors, "amax")
    energy = (target["energy"] - prediction["energy"]).abs()[:, 0]
    return (energy < _ENERGY_WITHIN) & (largest < _FORCE_WITHIN)


_ELEMENTWISE = ("mae", "mse", "per_atom_mae", "per_atom_mse", "cosine_similarity",
                "magnitude_error")  # fmt: skip
_ERRORS: dict[str, Callable] = {
    # fairchem's functions before its decorator sums them up
    **{name: getattr(fairchems, name).__wrapped__ for name in _ELEMENTWISE},
    **{
        f"forces{letter}_{name}": _component(getattr(fairchems, name).__wrapped__, axis)
        for axis, letter in enumerate("xyz")
        for name in ("mae", "mse")
    },
    "rmse": _rmse,
    "energy_within_threshold": _energy_within_threshold,
    "energy_forces_within_threshold": _energy_forces_within_threshold,
}
