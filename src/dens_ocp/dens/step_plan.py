"""What a step does with a batch, decided once, on the CPU, and read by model, loss and metrics.

:func:`attach` writes a :class:`StepPlan` into a PyG batch, with which it travels to the device, and
beside it the fields of the authors' code, so that code written for it keeps working:

=========================  =========  ======  ====================================================
``step_plan``              --                 the :class:`StepPlan`
``noise_mask``             (N,)       bool    atom is corrupted: its force is encoded, its noise
                                              predicted
``noise_vec``              (N, 3)     float   noise added to its position, Angstrom; 0 elsewhere
``sigmas``                 (N, 1)     float   its standard deviation, Angstrom; 0 elsewhere
``dens_batch_mask``        (B,)       bool    structure has an atom in ``noise_mask``
``denoising_pos_forward``  --         bool    the batch carries the fields above
``forces``                 (N, 3)     float   DFT forces of the *original* structure, eV/Angstrom
``md``                     (B,)       int     1: from molecular dynamics (All+MD), never corrupted
=========================  =========  ======  ====================================================

N atoms, B structures. With ``encode: masked`` the mask covers fixed atoms too: these have noise and
are not moved, and ``sigmas`` is set for every atom of a DeNS structure, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch

from dens_ocp.errors import DensError

if TYPE_CHECKING:
    from torch_geometric.data import Batch


@dataclass(frozen=True)
class Corruption:
    """What was done to a batch.

    Attributes:
        noise_mask: (N,) bool, corrupted atoms; with ``encode: masked`` fixed atoms too.
        noise_vec: (N, 3) noise in Angstrom, zero where ``noise_mask`` is False.
        sigmas: (N, 1) standard deviation of the noise in Angstrom, zero where ``noise_mask`` is
            False; with ``encode: masked`` of all atoms of DeNS structures.
        structure_mask: (B,) bool, structures with at least one atom in ``noise_mask``.
        moved: (N,) bool, atoms whose position is changed; None: those in ``noise_mask``.
    """

    noise_mask: torch.Tensor
    noise_vec: torch.Tensor
    sigmas: torch.Tensor
    structure_mask: torch.Tensor
    moved: torch.Tensor | None = None

    @property
    def displacement(self) -> torch.Tensor:
        """(N, 3) what is added to the positions, Angstrom: the noise of the atoms that move."""
        if self.moved is None:
            return self.noise_vec
        return torch.where(self.moved[:, None], self.noise_vec, 0.0)


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
    def of(cls, batch: Batch, keep: torch.Tensor | None = None) -> MetricRows:
        """Of the structures in ``keep`` (B,) bool; None: all. Waits for the device of ``batch``."""
        if keep is None:
            keep = torch.ones_like(batch.natoms, dtype=torch.bool)
        kept = keep[batch.batch]
        free = rows_of(kept & (batch.fixed == 0))
        structures = rows_of(keep)
        structure_of_free = (torch.cumsum(keep.long(), 0) - 1)[batch.batch[free]]
        natoms_free = torch.zeros_like(structures).index_add_(
            0, structure_of_free, torch.ones_like(structure_of_free)
        )
        return cls(structures, rows_of(kept), free, natoms_free, structure_of_free)


@dataclass(frozen=True)
class StepPlan:
    """Attributes:
    corruption: what is done to the batch; None: nothing.
    force_atoms: (N,) bool, atoms whose force enters loss or metrics; a model may leave out the
        others. None: all.
    noise_atoms: (N,) bool, the same for their noise; None: all.
    loss_rows: (n,) int64, atoms that enter losses of ``train_on_free_atoms``; None: not asked.
    metric_rows: of the structures that are not corrupted; None: not asked.
    dens_rows: rows (n,) int64 of the metrics of DeNS structures, see
        :func:`dens_ocp.dens.metrics.dens_rows`.

    Rows, and not masks, because on a GPU everyone who selects by a mask waits until the GPU has got
    there, and nobody who selects by row numbers does.
    """

    corruption: Corruption | None = None
    force_atoms: torch.Tensor | None = None
    noise_atoms: torch.Tensor | None = None
    loss_rows: torch.Tensor | None = None
    metric_rows: MetricRows | None = None
    dens_rows: dict[str, torch.Tensor] = field(default_factory=dict)

    def to(self, *args: Any, **options: Any) -> StepPlan:
        """On another device; arguments of ``torch.Tensor.to``. Called by the batch's own ``to``."""
        return _each(self, lambda tensor: tensor.to(*args, **options))

    def pin_memory(self) -> StepPlan:
        """In memory that a GPU copies from by itself. Called by the batch's own ``pin_memory``."""
        return _each(self, torch.Tensor.pin_memory)


def attach(batch: Batch, plan: StepPlan) -> None:
    """Move atoms by the corruption's ``displacement`` and write the fields of the table above.

    ``batch.pos`` becomes a new tensor; the old one is left as it was. Positions are not wrapped.

    Raises:
        DensError: the batch is corrupted already.
    """
    batch.step_plan = plan
    corruption = plan.corruption
    if corruption is None:
        return
    refuse_corrupted(
        batch, ("its atoms would be moved twice, but its labels are for one corruption")
    )
    batch.pos = batch.pos + corruption.displacement.to(batch.pos.dtype)
    batch.noise_mask = corruption.noise_mask
    batch.noise_vec = corruption.noise_vec
    batch.sigmas = corruption.sigmas
    batch.dens_batch_mask = corruption.structure_mask
    batch.denoising_pos_forward = True


def refuse_corrupted(batch: Batch, consequence: str) -> None:
    """Make sure that a batch is as the data set has it.

    Raises:
        DensError: :func:`attach` (or the authors' code) has moved its atoms; says the consequence.
    """
    if carries_corruption(batch):
        raise DensError(
            f"this batch is corrupted already (denoising_pos_forward is set), and {consequence}; "
            "use a new batch of the loader for each forward pass"
        )


def carries_corruption(batch: Batch) -> bool:
    """Whether :func:`attach` (or the authors' code) has written into ``batch``."""
    return bool(batch.get("denoising_pos_forward", False))


def read_plan(batch: Batch) -> StepPlan:
    """What :func:`attach` wrote; an empty plan, if nothing."""
    return batch.get("step_plan", None) or StepPlan()


def read(batch: Batch) -> Corruption:
    """The corruption of a batch: what :func:`attach` wrote, or an empty one.

    A batch of the authors' code, with ``denoising_pos_forward`` and no ``noise_mask``, is read as
    it reads it: every atom is corrupted.
    """
    planned = read_plan(batch).corruption
    if planned is not None:
        return planned
    num_atoms, device = batch.pos.shape[0], batch.pos.device
    denoising = carries_corruption(batch)
    mask = batch.get("noise_mask", None)
    if not denoising:
        mask = torch.zeros(num_atoms, dtype=torch.bool, device=device)
    elif mask is None:
        mask = torch.ones(num_atoms, dtype=torch.bool, device=device)
    noise = batch.get("noise_vec", None) if denoising else None
    sigmas = batch.get("sigmas", None) if denoising else None
    return Corruption(
        noise_mask=mask,
        noise_vec=torch.zeros_like(batch.pos) if noise is None else noise,
        sigmas=batch.pos.new_zeros(num_atoms, 1) if sigmas is None else sigmas,
        structure_mask=any_in_structure(mask, batch.batch, batch.natoms.numel()),
    )


def rows_of(mask: torch.Tensor) -> torch.Tensor:
    """(n,) int64: where ``mask`` (N,) bool is set. Waits for its device."""
    return torch.nonzero(mask)[:, 0]


def any_in_structure(
    atom_mask: torch.Tensor, structure_of_atom: torch.Tensor, num_structures: int
) -> torch.Tensor:
    """(B,) bool: whether any atom of the structure is set in ``atom_mask`` (N,) bool."""
    count = torch.zeros(num_structures, dtype=torch.long, device=atom_mask.device)
    return count.index_add_(0, structure_of_atom, atom_mask.long()) > 0


def _each(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """``value`` with ``function`` applied to its tensors."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: _each(each, function) for name, each in value.items()}
    if isinstance(value, StepPlan | Corruption | MetricRows):
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
        return replace(value, **{name: _each(each, function) for name, each in parts.items()})
    return value
