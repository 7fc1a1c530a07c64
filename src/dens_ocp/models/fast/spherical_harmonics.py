"""Spherical harmonics of all degrees in a dozen operations; e3nn's take about 300 (Lmax 6)."""

from __future__ import annotations

import torch
from e3nn import o3

from dens_ocp.models.fast.operations.launches import few_launches
from dens_ocp.models.fast.rotation import z_axis


def spherical_harmonics(vectors: torch.Tensor, lmax: int) -> torch.Tensor:
    """e3nn's real spherical harmonics, ``component`` normalisation.

    The harmonics of a direction are those of the polar axis, sqrt(2 l + 1) at m = 0, turned by
    D = Z(alpha) J Z(beta) J (see :func:`~dens_ocp.models.fast.rotation.wigner_matrices`).

    Args:
        vectors: (N, 3), of any length; zero vectors give what e3nn gives, zeros but for l = 0.

    Returns:
        (N, (lmax+1)^2).
    """
    if not few_launches(vectors.device):
        return o3.spherical_harmonics(
            list(range(lmax + 1)), vectors, normalize=True, normalization="component"
        )
    swap, orders, mirrored, pole = z_axis(lmax, vectors.device, vectors.dtype)
    x, y, z = vectors.unbind(1)
    alpha, beta = torch.atan2(x, z), torch.atan2(torch.hypot(x, z), y)
    angles = torch.stack([alpha, beta])[:, :, None] * orders
    cosines, sines = torch.cos(angles), torch.sin(angles)
    with torch.autocast(vectors.device.type, enabled=False):
        turned = (cosines[1] * pole + sines[1] * pole[mirrored]) @ swap
    turned = cosines[0] * turned + sines[0] * turned.index_select(1, mirrored)
    length = vectors.norm(dim=1, keepdim=True)
    first = torch.arange(turned.shape[1], device=turned.device) == 0
    return torch.where((length > 0) | first, turned, 0.0)
