"""Names of parameters: the authors', fairchem's flat and hydra models', and ours.

Ours are those of the fairchem backbone, plus ``energy_head``, ``force_head``, ``noise_head``,
``force_embedding`` and ``heads`` of further outputs. Everything else is translated on loading.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch

_FURTHER_HEAD = re.compile(r"^(?:module\.)*(?:output_)?heads\.([^.]+)\.(.+)$")
_WRAPPERS = re.compile(r"^(?:module\.)*(?:backbone\.|output_heads\.[^.]+\.)?")

_HEADS = {
    # authors' and fairchem's flat models, and the heads of fairchem's hydra models
    "energy_block": "energy_head.energy_block",
    "force_block": "force_head.force_block",
    "denoising_pos_block": "noise_head.force_block",
    # the heads of fairchem's own DeNS model
    "scalar_block": "energy_head.energy_block",
    "vector_block": "force_head.force_block",
    # fairchem's eSEN, whose heads are linear maps
    "linear": "force_head.linear",
    "denoising_linear": "noise_head.linear",
    # the authors' Equiformer (MD17)
    "denoising_pos_head": "noise_head",
    "force_embed": "force_embedding",
}

_CONSTANTS = (".output_mask", ".gate.mul.weight", ".sep_act.dtp.tp.weight", ".dw.tp.weight")

_BUFFER = re.compile(
    r"\.(SO3_grid|SO3_rotation|mapping|mappingReduced)\.|\.(expand_index|balance_degree_weight)$"
)

DENS_MODULES = ("force_embedding.", "noise_head.", "noise_schedule_sigma_embedding.")
"""What a model without DeNS does not have."""


def translated(name: str, heads: Collection[str] = ()) -> str:
    """Our name of a parameter or buffer.

    Args:
        name: another's.
        heads: names of the model's heads of further outputs.

    >>> translated("module.module.denoising_pos_block.proj.weight")
    'noise_head.force_block.proj.weight'
    >>> translated("backbone.blocks.0.norm_1.affine_weight")
    'blocks.0.norm_1.affine_weight'
    >>> translated("output_heads.forces.force_block.proj.bias")
    'force_head.force_block.proj.bias'
    >>> translated("output_heads.stress.block.scalar_MLP.0.bias", heads=["stress"])
    'heads.stress.block.scalar_MLP.0.bias'
    """
    further = _FURTHER_HEAD.match(name)
    if further and further[1] in heads:
        return f"heads.{further[1]}.{further[2]}"
    name = _WRAPPERS.sub("", name)
    head, dot, rest = name.partition(".")
    return _HEADS.get(head, head) + dot + rest


def head_of(name: str) -> str | None:
    """The head that a parameter of a hydra model, or of ours, belongs to; of our energy, forces and
    noise, and of the backbone: None.

    >>> head_of("module.output_heads.stress.block.scalar_MLP.0.bias"), head_of("blocks.0.x")
    ('stress', None)
    """
    found = _FURTHER_HEAD.match(name)
    return found[1] if found else None


def translate(
    state_dict: dict[str, torch.Tensor], prefix: str, *_: Any, heads: Collection[str] = ()
) -> None:
    """Make a state dict's names ours and leave out constants (a load_state_dict pre-hook)."""
    for key in [key for key in state_dict if key.startswith(prefix)]:
        value = state_dict.pop(key)
        if not is_constant(key):
            state_dict[prefix + translated(key.removeprefix(prefix), heads)] = value


def flat_name(name: str) -> str:
    """The name in fairchem's flat models of a parameter or buffer of ours that they have.

    >>> flat_name("force_head.force_block.proj.bias")
    'force_block.proj.bias'
    >>> flat_name("sphere_embedding.weight")
    'sphere_embedding.weight'
    """
    return name.removeprefix("energy_head.").removeprefix("force_head.")


def is_constant(name: str) -> bool:
    """Whether ``name`` is a constant, or an empty tensor, that e3nn stores with tensor products in
    the authors' checkpoints.

    >>> is_constant("blocks.0.ga.sep_act.dtp.tp._compiled_main_left_right._w3j_1_1_1")
    True
    """
    return "._w3j_" in name or name.endswith(_CONSTANTS)


def is_buffer(name: str) -> bool:
    """Whether ``name`` is a table that fairchem's models store beside their parameters.

    >>> is_buffer("noise_head.force_block.SO3_grid.0.1.to_grid_mat")
    True
    >>> is_buffer("noise_head.force_block.proj.weight")
    False
    """
    return _BUFFER.search(name) is not None


def is_dens(name: str) -> bool:
    """Whether (our) ``name`` belongs to a module that only DeNS has."""
    return name.startswith(DENS_MODULES)
