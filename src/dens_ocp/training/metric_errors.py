"""fairchem's metrics of a batch without a wait for the device, and without a loop over structures.

fairchem waits for the device in every metric (``.item()``), and in every structure: for its number
of free atoms, and for whether its energy and forces are within a threshold. Here each metric is a
tensor of errors on the device; :class:`Sums` adds them up there. What is an error is said by
fairchem's own functions wherever they can be called for it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from fairchem.core.common import distutils
from fairchem.core.modules import evaluator as fairchems

from dens_ocp.dens.step_plan import MetricRows

Statistic = dict[str, float]
"""``total`` and ``numel``, which ``Evaluator.update`` adds up."""

_ENERGY_WITHIN, _FORCE_WITHIN = 0.02, 0.03  # eV, eV/Angstrom; as in fairchem's evaluator


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
        value = self.batch[key]
        if isinstance(value, torch.Tensor) and value.dim() > 0:
            level = _level(key, self.batch)
            if level is not None:
                return value[self.rows.atoms if level == "atom" else self.rows.structures]
        return value


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


def errors_of(
    predictions: Mapping[str, torch.Tensor],
    batch: Any,
    evaluator: Any,
    rows: MetricRows,
    targets: Mapping[str, Any],
) -> dict[str, torch.Tensor | Statistic]:
    """:func:`metric_errors` of some rows of a batch. fairchem's ``_compute_metrics`` up to the
    evaluator: it counts free atoms in a loop that waits for the device.

    Args:
        predictions: a row for each atom or structure, in the units of the data. rows: those that
            count. targets: ``output_targets`` of the trainer.
    """
    chosen = {
        name: rows.structures if options["level"] == "system"
        else rows.free if options["eval_on_free_atoms"] else rows.atoms
        for name, options in targets.items()
    }  # fmt: skip
    found = {name: predictions[name][each] for name, each in chosen.items()}
    wanted = {
        name: batch[name].view(len(predictions[name]), -1)[each] for name, each in chosen.items()
    }
    return metric_errors(evaluator, Fields(found, batch, rows), Fields(wanted, batch, rows))


class Sums:
    """Sums of errors over batches, kept on the device until somebody asks for them.

    Of the batches of this rank. ``total`` is a sum in float64, ``numel`` the number of elements.
    """

    def __init__(self, start: Mapping[str, Mapping[str, float]] | None = None) -> None:
        """Args: start: what was found before, for example of a checkpoint."""
        self._known: dict[str, Statistic] = {
            name: {"total": each["total"], "numel": each["numel"]}
            for name, each in (start or {}).items()
        }
        self._names: tuple[str, ...] = ()
        self._totals: torch.Tensor | None = None  # (len(_names),) float64, on the device

    def add(
        self, errors: Mapping[str, torch.Tensor | Statistic], skip: torch.Tensor | None = None
    ) -> dict[str, Statistic]:
        """Add the errors of a batch, without a wait for the device.

        Args:
            errors: of :func:`metric_errors`.
            skip: scalar on the device; where it is not 0, all sums count as 0. The host cannot know
                that yet: who learns of it hands the result of this method to :meth:`forget`.
        """
        tensors = {name: each for name, each in errors.items() if isinstance(each, torch.Tensor)}
        known = {
            name: {"total": 0.0, "numel": tensors[name].numel()} if name in tensors else dict(each)
            for name, each in errors.items()
        }
        self._count(known, 1)
        if tensors:
            totals = torch.stack([each.sum(dtype=torch.float64) for each in tensors.values()])
            if skip is not None:
                totals = torch.where(skip > 0, 0.0, totals)
            if self._names != tuple(tensors):
                self._take_totals()
                self._names, self._totals = tuple(tensors), torch.zeros_like(totals)
            self._totals = self._totals + totals
        return known

    def forget(self, known: Mapping[str, Statistic]) -> None:
        """A batch was skipped on the device: what :meth:`add` returned for it."""
        self._count(known, -1)

    def __bool__(self) -> bool:
        return any(each["numel"] > 0 for each in self._known.values())

    def fetch(self) -> dict[str, dict[str, float]]:
        """Name -> ``metric``, ``total``, ``numel``, as fairchem's evaluator has them. Waits for the
        device, once. Metrics of nothing are left out: fairchem would divide by zero."""
        self._take_totals()
        return {
            name: {"metric": each["total"] / each["numel"], **each}
            for name, each in self._known.items()
            if each["numel"] > 0
        }

    def _count(self, known: Mapping[str, Statistic], sign: int) -> None:
        for name, each in known.items():
            entry = self._known.setdefault(name, {"total": 0.0, "numel": 0})
            entry["total"] += sign * each["total"]
            entry["numel"] += sign * each["numel"]

    def _take_totals(self) -> None:
        if self._totals is not None:
            for name, total in zip(self._names, self._totals.tolist(), strict=True):
                self._known[name]["total"] += total
        self._totals, self._names = None, ()


def of_all_ranks(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of all ranks together, as :meth:`Sums.fetch` has them. fairchem adds up name by
    name and in float32; a rank without a batch has no names."""
    ranks: list[Any] = [metrics]
    if distutils.get_world_size() > 1:
        ranks = [None] * distutils.get_world_size()
        torch.distributed.all_gather_object(ranks, metrics)
    together: dict[str, Any] = {}
    for name in dict.fromkeys(name for rank in ranks for name in rank):
        total, numel = (
            sum(rank[name][part] for rank in ranks if name in rank) for part in ("total", "numel")
        )
        together[name] = {"metric": total / numel, "total": total, "numel": numel}
    return together


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
