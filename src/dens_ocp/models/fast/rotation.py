"""fairchem's rotations as edge frames, and spherical harmonics of all degrees at once."""

from __future__ import annotations

import functools
import math

import torch
from e3nn import o3
from fairchem.core.models.equiformer_v2 import wigner

from dens_ocp.dens import force_encoding
from dens_ocp.models.chosen_atoms import ExactRotation
from dens_ocp.models.fast.edge_frames import EdgeFrames, edge_frames
from dens_ocp.models.fast.form import EquiformerV2Form
from dens_ocp.models.fast.operations.launches import few_launches


class FramedRotation(EquiformerV2Form, ExactRotation):
    """Keeps :class:`EdgeFrames` instead of whole matrices.

    Attributes:
        frames: of the edges of the last forward.
    """

    frames: EdgeFrames

    def set_wigner(self, rot_mat3x3: torch.Tensor) -> None:
        super().set_wigner(rot_mat3x3)
        self.frames = edge_frames(self.wigner, self.lmax, self.mmax, rescale=True)
        del self.wigner, self.wigner_inv

    def RotationToWignerDMatrix(  # noqa: N802 (fairchem's name)
        self, edge_rot_mat: torch.Tensor, start_lmax: int, end_lmax: int
    ) -> torch.Tensor:
        if start_lmax != 0 or not few_launches(edge_rot_mat.device):
            return super().RotationToWignerDMatrix(edge_rot_mat, start_lmax, end_lmax)
        return wigner_matrices(edge_rot_mat, end_lmax)

    def take(self, other: FramedRotation, edges: torch.Tensor | None) -> None:
        """The rotations of another module, of all edges or of some, (K,) int64."""
        self.frames = other.frames if edges is None else other.frames.of(edges)


def wigner_matrices(rotations: torch.Tensor, lmax: int) -> torch.Tensor:
    """Wigner matrices of all degrees at once.

    In fairchem's form D = Z(alpha) J Z(beta) J Z(gamma) (``wigner.py``), where Z(angle) has cosines
    on its diagonal and sines on that of each degree's mirror image: a product with it is two
    elementwise ones.

    Args:
        rotations: (E, 3, 3) rotation matrices.
        lmax: largest degree.

    Returns:
        (E, (lmax+1)^2, (lmax+1)^2), block-diagonal, dtype of ``rotations``.
    """
    x = rotations[:, :, 1]
    alpha, beta = o3.xyz_to_angles(x)
    rest = o3.angles_to_matrix(alpha, beta, torch.zeros_like(alpha)).transpose(1, 2) @ rotations
    gamma = torch.atan2(rest[:, 0, 2], rest[:, 0, 0])
    swap, orders, mirrored, _ = z_axis(lmax, rotations.device, rotations.dtype)
    angles = torch.stack([alpha, beta, gamma])[:, :, None] * orders
    cosines, sines = torch.cos(angles), torch.sin(angles)
    # Z(angle) M: row i is cos_i M_i + sin_i M_(mirror of i)
    right = swap * cosines[2][:, None, :]
    right += swap.index_select(1, mirrored) * sines[2].index_select(1, mirrored)[:, None, :]
    turned = cosines[1][:, :, None] * right
    turned.addcmul_(sines[1][:, :, None], right.index_select(1, mirrored))
    turned = swap @ turned
    out = cosines[0][:, :, None] * turned
    return out.addcmul_(sines[0][:, :, None], turned.index_select(1, mirrored))


@functools.lru_cache(maxsize=16)
def z_axis(
    lmax: int, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """J of all degrees, (I, I), which is symmetric; frequency of each coefficient, (I,); index of
    its mirror image within its degree, (I,) int64; J times the spherical harmonics of the polar
    axis, (I,), ``component`` normalisation; I = (lmax+1)^2."""
    # the first to ask may be under autocast, and later ones may not
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
        swap = torch.block_diag(*[wigner._Jd[degree].to(dtype) for degree in range(lmax + 1)])
        orders = [degree - m for degree in range(lmax + 1) for m in range(2 * degree + 1)]
        mirrored = [
            degree**2 + 2 * degree - m for degree in range(lmax + 1) for m in range(2 * degree + 1)
        ]
        axis = torch.zeros(len(orders), dtype=swap.dtype)
        for degree in range(lmax + 1):
            axis[degree**2 + degree] = math.sqrt(2 * degree + 1)
        return (
            swap.to(device),
            torch.tensor(orders, dtype=dtype, device=device),
            torch.tensor(mirrored, device=device),
            (swap @ axis).to(device),
        )


def spherical_harmonics(vectors: torch.Tensor, lmax: int) -> torch.Tensor:
    """e3nn's real spherical harmonics, ``component`` normalisation, in a dozen operations where
    e3nn takes about 300 (Lmax 6).

    The harmonics of a direction are those of the polar axis, sqrt(2 l + 1) at m = 0, turned by
    D = Z(alpha) J Z(beta) J (see :func:`wigner_matrices`).

    Args:
        vectors: (N, 3), of any length; zero vectors give what e3nn gives, zeros but for l = 0.

    Returns:
        (N, (lmax+1)^2).
    """
    if not few_launches(vectors.device):
        return force_encoding.spherical_harmonics(vectors, lmax)
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
