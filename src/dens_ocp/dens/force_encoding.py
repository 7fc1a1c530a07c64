"""Force encoding, Eq. 5 of the paper: x_f(L) = SO3_Linear(L)(|f| Y(L)(f / |f|)).

Normalisation is that of the authors' code: e3nn spherical harmonics with ``component``
normalisation and the norm divided by sqrt(3), so the l = 1 coefficients are the force itself.
Forces are in eV/Angstrom, not normalised; a model's ``force_encoding_scale`` multiplies them. It is
the only place where their unit matters: losses see normalised forces.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from e3nn import o3
from fairchem.core.models.equiformer_v2.so3 import SO3_Embedding, SO3_LinearV2

from dens_ocp.errors import DensError


def checked_scale(scale: float) -> float:
    """The option ``force_encoding_scale``.

    Raises:
        DensError: it is no positive number.
    """
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if not number or not 0 < scale < math.inf:
        raise DensError(
            f"model.force_encoding_scale: {scale!r} must be a number larger than 0; encoded "
            "forces (eV/Angstrom) are multiplied by it: 1 is the default, 23.060548 gives "
            "kcal/mol/Angstrom"
        )
    return float(scale)


def force_coefficients(
    forces: torch.Tensor,
    mask: torch.Tensor,
    lmax: int,
    scale: float = 1.0,
    harmonics: Callable[[torch.Tensor, int], torch.Tensor] | None = None,
) -> torch.Tensor:
    """scale |f| Y(f / |f|) / sqrt(3) of the atoms in ``mask``, zero for all others.

    Args:
        forces: (N, 3) eV/Angstrom. What stands where ``mask`` is False is never used (it may be
            NaN).
        mask: (N,) bool.
        lmax: largest degree.
        scale: 1 for eV/Angstrom; 23.060548 for kcal/mol/Angstrom.
        harmonics: another way to compute :func:`spherical_harmonics`.

    Returns:
        (N, (lmax + 1)^2, 1), dtype of ``forces``.

    >>> force = torch.tensor([[0.0, 0.0, 2.0]])
    >>> coefficients = force_coefficients(force, torch.tensor([True]), 1).flatten()
    >>> [round(value, 4) for value in coefficients.tolist()]
    [1.1547, 0.0, 0.0, 2.0]
    """
    forces = torch.where(mask[:, None], forces, torch.zeros_like(forces))
    norms = forces.norm(dim=-1, keepdim=True) * (scale / math.sqrt(3.0))
    return ((harmonics or spherical_harmonics)(forces, lmax) * norms)[..., None]


def spherical_harmonics(vectors: torch.Tensor, lmax: int) -> torch.Tensor:
    """(N, 3) to (N, (lmax + 1)^2): e3nn's, of directions, ``component`` normalisation."""
    return o3.spherical_harmonics(
        list(range(lmax + 1)), vectors, normalize=True, normalization="component"
    )


class ForceEncoding(SO3_LinearV2):
    """The SO(3)-linear layer of Eq. 5, from one channel to ``channels``.

    It is fairchem's ``SO3_LinearV2`` with the forces' expansion in front, so its parameters carry
    the authors' names (``force_embedding.weight``, ``.bias``). Its bias is added to l = 0 of every
    atom, corrupted or not, as in the authors' code.
    """

    def __init__(self, channels: int, lmax: int, scale: float = 1.0) -> None:
        super().__init__(in_features=1, out_features=channels, lmax=lmax)
        self.scale = scale
        self.harmonics: Callable[[torch.Tensor, int], torch.Tensor] = spherical_harmonics

    def forward(self, forces: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Encode the forces of the atoms in ``mask``.

        Args:
            forces: (N, 3) eV/Angstrom of the original structure.
            mask: (N,) bool, atoms whose force is encoded.

        Returns:
            (N, (lmax + 1)^2, channels)
        """
        coefficients = force_coefficients(forces, mask, self.lmax, self.scale, self.harmonics)
        embedding = SO3_Embedding(
            0, [self.lmax], 1, device=coefficients.device, dtype=coefficients.dtype
        )
        embedding.set_embedding(coefficients)
        return super().forward(embedding).embedding

    def without_forces(self, num_atoms: int) -> torch.Tensor:
        """What :meth:`forward` gives when no force is encoded: the bias at l = 0.

        Returns:
            (N, (lmax + 1)^2, channels)
        """
        embedding = self.bias.new_zeros(num_atoms, len(self.expand_index), self.out_features)
        embedding[:, 0] = self.bias
        return embedding
