"""fairchem's rotations as edge frames."""

from __future__ import annotations

import functools
import math

import torch
from e3nn import o3
from fairchem.core.models.equiformer_v2 import wigner
from fairchem.core.models.equiformer_v2.so3 import SO3_Rotation

from dens_ocp.models.fast.edge_frames import EdgeFrames, edge_frames
from dens_ocp.models.fast.operations.launches import few_launches


class FramedRotation(SO3_Rotation):
    """fairchem's ``SO3_Rotation``, which keeps :class:`EdgeFrames` instead of whole matrices.

    Attributes:
        mmax: largest order of the convolutions; set by whoever makes a module one of these.
        frames: of the edges of the last forward.
    """

    mmax: int
    frames: EdgeFrames

    def set_wigner(self, rot_mat3x3: torch.Tensor) -> None:
        with torch.autocast(rot_mat3x3.device.type, enabled=False):
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
    with torch.inference_mode(False):
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
