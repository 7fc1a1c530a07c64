"""Turns parts of a backbone into their fast forms, in place."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from fairchem.core.models.equiformer_v2.activation import (
    S2Activation,
    SeparableS2Activation,
    SmoothLeakyReLU,
)
from fairchem.core.models.equiformer_v2.drop import GraphDropPath
from fairchem.core.models.equiformer_v2.input_block import EdgeDegreeEmbedding
from fairchem.core.models.equiformer_v2.layer_norm import (
    EquivariantLayerNormArraySphericalHarmonics,
)
from fairchem.core.models.equiformer_v2.so3 import SO3_LinearV2
from fairchem.core.models.equiformer_v2.transformer_block import (
    FeedForwardNetwork,
    SO2EquivariantGraphAttention,
)
from fairchem.core.models.escn.escn import LayerBlock, MessageBlock
from fairchem.core.models.esen.esen_block import Edgewise, GridAtomwise
from fairchem.core.models.esen.nn.embedding import EdgeDegreeEmbedding as eSENEdgeDegreeEmbedding
from fairchem.core.models.esen.nn.radial import GaussianSmearing as eSENGaussianSmearing
from fairchem.core.models.esen.nn.so3_layers import SO3_Linear
from fairchem.core.models.scn.smearing import GaussianSmearing

from dens_ocp.models.chosen_atoms import ExactRotation
from dens_ocp.models.fast.equiformer_v2 import (
    FastEdgeDegreeEmbedding,
    FastGraphAttention,
    FastVectorBlock,
)
from dens_ocp.models.fast.escn import FastLayerBlock, FastMessageBlock
from dens_ocp.models.fast.esen import (
    FastEdgeDegree,
    FastEdgewise,
    FasteSENLinear,
    FastGridAtomwise,
    TwiceEdgewise,
)
from dens_ocp.models.fast.form import FastForm
from dens_ocp.models.fast.grid_mlp import FastFeedForward, ScalarFeedForward
from dens_ocp.models.fast.operations.distance_basis import NormaleSENGaussians, NormalGaussians
from dens_ocp.models.fast.operations.drop_path import FewLaunchesDropPath
from dens_ocp.models.fast.operations.layer_norm import FewLaunchesLayerNorm
from dens_ocp.models.fast.operations.matrix_products import OneDnnLinear
from dens_ocp.models.fast.operations.s2_activation import (
    BlockedS2Activation,
    BlockedSeparableS2Activation,
    SiluLeakyReLU,
)
from dens_ocp.models.fast.operations.so3_linear import FastSO3Linear
from dens_ocp.models.fast.rotation import FramedRotation

TABLE: tuple[tuple[type[torch.nn.Module], type[FastForm]], ...] = (
    (torch.nn.Linear, OneDnnLinear),
    (GaussianSmearing, NormalGaussians),
    (eSENGaussianSmearing, NormaleSENGaussians),
    (SO3_LinearV2, FastSO3Linear),
    (ExactRotation, FramedRotation),
    (SeparableS2Activation, BlockedSeparableS2Activation),
    (S2Activation, BlockedS2Activation),
    (SmoothLeakyReLU, SiluLeakyReLU),
    (GraphDropPath, FewLaunchesDropPath),
    (EquivariantLayerNormArraySphericalHarmonics, FewLaunchesLayerNorm),
    (EdgeDegreeEmbedding, FastEdgeDegreeEmbedding),
    (SO2EquivariantGraphAttention, FastGraphAttention),
    (SO2EquivariantGraphAttention, FastVectorBlock),
    (FeedForwardNetwork, FastFeedForward),
    (FeedForwardNetwork, ScalarFeedForward),
    (LayerBlock, FastLayerBlock),
    (MessageBlock, FastMessageBlock),
    (Edgewise, FastEdgewise),
    (Edgewise, TwiceEdgewise),
    (eSENEdgeDegreeEmbedding, FastEdgeDegree),
    (GridAtomwise, FastGridAtomwise),
    (SO3_Linear, FasteSENLinear),
)
"""Stock class, fast class. A module changes its class where the two fit (:meth:`FastForm.fits`)."""


def make_fast(model: torch.nn.Module) -> None:
    """Give modules their fast classes. Parameters, buffers and their names stay what they are.

    Raises:
        RuntimeError: a module keeps a stock class although a fast form of it fits: the table lacks
            a line.
    """
    for stock, form in TABLE:
        for name, module in model.named_modules():
            if type(module) is stock and form.fits(model, name, module):
                module.__class__ = form  # type: ignore[assignment]
    left = [
        f"{name}: {type(module).__name__} has a fast form, {form.__name__}"
        for name, module in model.named_modules()
        for form in forms()
        if type(module) is form.stock() and form.fits(model, name, module)
    ]
    if left:
        raise RuntimeError(f"left as they are by models/fast/switch.py: {'; '.join(left)}")


def make_stock(model: torch.nn.Module) -> None:
    """Take :func:`make_fast` back."""
    for module in model.modules():
        if isinstance(module, FastForm):
            module.__class__ = type(module).stock()  # type: ignore[assignment]


def forms(base: type[FastForm] = FastForm) -> Iterator[type[FastForm]]:
    """All fast classes that were imported, whether the table has them or not."""
    for each in base.__subclasses__():
        if issubclass(each, torch.nn.Module):
            yield each
        yield from forms(each)
