"""The fields that DeNS adds to a PyG batch, in one place.

The names are those of the authors' code, so that code written for it keeps working:

=========================  =========  ======  ====================================================
``noise_mask``             (N,)       bool    atom is corrupted: its force is encoded, its noise
                                              predicted
``noise_vec``              (N, 3)     float   noise added to its position, Angstrom; 0 elsewhere
``sigmas``                 (N, 1)     float   its standard deviation, Angstrom; 0 elsewhere
``denoising_pos_forward``  --         bool    the batch carries the fields above
``forces``                 (N, 3)     float   DFT forces of the *original* structure, eV/Angstrom
``md``                     (B,)       int     1: from molecular dynamics (All+MD), never corrupted
``scored``                 (N,)       bool    atom enters loss or metrics; without it, all do
``rows``                   --         dict    name -> (n,) int64: the atoms or structures of which
                                              loss and metrics are sums
=========================  =========  ======  ====================================================

N atoms, B structures. With ``encode: masked`` the mask covers fixed atoms too: these have noise and
are not moved, and ``sigmas`` is set for every atom of a DeNS structure, as in the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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


def attach(batch: Batch, corruption: Corruption) -> None:
    """Move atoms by their ``displacement`` and write the fields of the table above into ``batch``.

    ``batch.pos`` becomes a new tensor; the old one is left as it was. Positions are not wrapped.

    Raises:
        DensError: the batch is corrupted already.
    """
    refuse_corrupted(batch, "its atoms would be moved twice, while its labels say once")
    batch.pos = batch.pos + corruption.displacement.to(batch.pos.dtype)
    batch.noise_mask = corruption.noise_mask
    batch.noise_vec = corruption.noise_vec
    batch.sigmas = corruption.sigmas
    batch.denoising_pos_forward = True


def refuse_corrupted(batch: Batch, consequence: str) -> None:
    """Make sure that a batch is as the data set has it.

    Raises:
        DensError: :func:`attach` (or the authors' code) has moved its atoms; says the consequence.
    """
    if carries_corruption(batch):
        raise DensError(
            f"this batch is corrupted already (denoising_pos_forward is set), and {consequence}; "
            "take a new batch of the loader, one for each forward"
        )


def carries_corruption(batch: Batch) -> bool:
    """Whether :func:`attach` (or the authors' code) has written into ``batch``."""
    return bool(batch.get("denoising_pos_forward", False))


def read(batch: Batch) -> Corruption:
    """The corruption of a batch: what :func:`attach` wrote, or an empty one.

    A batch with ``denoising_pos_forward`` and no ``noise_mask`` is read as the authors' code reads
    it: every atom is corrupted.
    """
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


def attach_scored(batch: Batch, scored: torch.Tensor) -> None:
    """Say which atoms (N,) bool enter loss or metrics; a model may leave out the others' forces."""
    batch.scored = scored


def read_scored(batch: Batch) -> torch.Tensor | None:
    """What :func:`attach_scored` wrote; None: nothing, so all atoms."""
    return batch.get("scored", None)


def attach_rows(batch: Batch, rows: dict[str, torch.Tensor]) -> None:
    """Name rows (n,) int64 of atoms or structures.

    Found while the batch is on the CPU, and moved with it: on a GPU everyone who selects by a mask
    waits until the GPU has got there, and nobody who selects by row numbers does.
    """
    batch.rows = rows


def read_rows(batch: Batch) -> dict[str, torch.Tensor] | None:
    """What :func:`attach_rows` wrote; None: nothing."""
    return batch.get("rows", None)


def any_in_structure(
    atom_mask: torch.Tensor, structure_of_atom: torch.Tensor, num_structures: int
) -> torch.Tensor:
    """(B,) bool: whether any atom of the structure is set in ``atom_mask`` (N,) bool."""
    count = torch.zeros(num_structures, dtype=torch.long, device=atom_mask.device)
    return count.index_add_(0, structure_of_atom, atom_mask.long()) > 0
