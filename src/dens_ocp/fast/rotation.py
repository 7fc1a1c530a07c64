"""fairchem's rotations as edge frames."""

from __future__ import annotations

import torch
from fairchem.core.models.equiformer_v2.so3 import SO3_Rotation

from dens_ocp.fast.edge_frames import EdgeFrames


class FramedRotation(SO3_Rotation):
    """fairchem's ``SO3_Rotation``, which keeps :class:`EdgeFrames` instead of whole matrices.

    Attributes:
        mmax: largest order of the convolutions; set by whoever makes a module one of these.
        frames: of the edges of the last forward.
    """

    mmax: int
    frames: EdgeFrames

    def set_wigner(self, rot_mat3x3: torch.Tensor) -> None:
        super().set_wigner(rot_mat3x3)
        self.frames = EdgeFrames(self.wigner, self.lmax, self.mmax, rescale=True)
        del self.wigner, self.wigner_inv

    def take(self, other: FramedRotation, edges: torch.Tensor | None) -> None:
        """The rotations of another module, of all edges or of some, (K,) int64."""
        self.frames = other.frames if edges is None else other.frames.of(edges)
