"""Turns parts of a backbone into their fast forms, in place."""

from __future__ import annotations

import torch
from fairchem.core.models.equiformer_v2.activation import (
    S2Activation,
    SeparableS2Activation,
    SmoothLeakyReLU,
)
from fairchem.core.models.equiformer_v2.equiformer_v2 import EquiformerV2Backbone
from fairchem.core.models.equiformer_v2.heads import EqV2ScalarHead, EqV2VectorHead
from fairchem.core.models.equiformer_v2.input_block import EdgeDegreeEmbedding
from fairchem.core.models.equiformer_v2.layer_norm import (
    EquivariantLayerNormArraySphericalHarmonics,
)
from fairchem.core.models.equiformer_v2.so3 import SO3_LinearV2, SO3_Rotation
from fairchem.core.models.equiformer_v2.transformer_block import (
    FeedForwardNetwork,
    SO2EquivariantGraphAttention,
)
from fairchem.core.models.escn.escn import LayerBlock, MessageBlock

from dens_ocp.models.fast.edge_degree import FastEdgeDegreeEmbedding
from dens_ocp.models.fast.escn import FastLayerBlock, FastMessageBlock
from dens_ocp.models.fast.graph_attention import FastGraphAttention, FastVectorBlock
from dens_ocp.models.fast.grid_mlp import FastFeedForward, ScalarFeedForward
from dens_ocp.models.fast.operations.layer_norm import FewLaunchesLayerNorm
from dens_ocp.models.fast.operations.leaky_relu import SiluLeakyReLU
from dens_ocp.models.fast.operations.matrix_products import OneDnnLinear
from dens_ocp.models.fast.operations.s2_activation import (
    BlockedS2Activation,
    BlockedSeparableS2Activation,
)
from dens_ocp.models.fast.operations.so3_linear import FastSO3Linear
from dens_ocp.models.fast.rotation import FramedRotation

ALWAYS = {
    torch.nn.Linear: OneDnnLinear,
    SO3_LinearV2: FastSO3Linear,
    SeparableS2Activation: BlockedSeparableS2Activation,
    S2Activation: BlockedS2Activation,
    SmoothLeakyReLU: SiluLeakyReLU,
    EquivariantLayerNormArraySphericalHarmonics: FewLaunchesLayerNorm,
    LayerBlock: FastLayerBlock,
    MessageBlock: FastMessageBlock,
}


def make_fast(model: torch.nn.Module) -> None:
    """Give modules their fast classes. Parameters, buffers and their names stay what they are.

    EquiformerV2 with gate activation keeps fairchem's attention.
    """
    if isinstance(model, EquiformerV2Backbone) and not model.use_gate_act:
        _fast_equiformer_v2(model)
    for module in model.modules():
        if type(module) in ALWAYS:
            module.__class__ = ALWAYS[type(module)]


def _fast_equiformer_v2(model: EquiformerV2Backbone) -> None:
    for module in model.modules():
        if isinstance(module, EqV2VectorHead):
            module.force_block.__class__ = FastVectorBlock
        elif isinstance(module, EqV2ScalarHead) and model.use_sep_s2_act:
            module.energy_block.__class__ = ScalarFeedForward
    for module in model.modules():
        if isinstance(module, SO3_Rotation):
            module.__class__ = FramedRotation
            module.mmax = model.mmax_list[0]
        elif type(module) is SO2EquivariantGraphAttention:
            module.__class__ = FastGraphAttention
        elif type(module) is EdgeDegreeEmbedding:
            module.__class__ = FastEdgeDegreeEmbedding
        elif type(module) is FeedForwardNetwork and model.use_grid_mlp:
            module.__class__ = FastFeedForward
