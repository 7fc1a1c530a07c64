"""fairchem's hydra models (``model: {name: hydra, backbone: ..., heads: ...}``) in our form.

OMat24's recipes are written in it. A backbone and heads that a model of ours has too become its
options; the model is the same, and so are the names in its checkpoints
(:mod:`dens_ocp.models.parameter_names`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dens_ocp.dens.config import parse_dens_config
from dens_ocp.dens.options import is_missing, mapping
from dens_ocp.errors import DensError
from dens_ocp.settings.sections.values import flag

_MODEL = "equiformer_v2_dens"
_BACKBONES = ("equiformer_v2_dens_backbone", "EqV2DeNSBackbone")
"""fairchem's only backbone with DeNS: its name in the registry, and the end of its dotted path."""

_ENERGY = (
    "eqV2_DeNS_scalar_head", "DeNSScalarHead", "DeNSEnergyHead", "equiformer_v2_energy_head",
    "EquiformerV2EnergyHead", "equiformerV2_scalar_head", "EqV2ScalarHead",
)  # fmt: skip
_FORCES = (
    "eqV2_DeNS_vector_head", "DeNSVectorHead", "DeNSForceHead", "equiformer_v2_force_head",
    "EquiformerV2ForceHead", "equiformerV2_vector_head", "EqV2VectorHead",
)  # fmt: skip
_RANK2 = (
    "dens_rank2_symmetric_head", "DeNSRank2Head", "rank2_symmetric_head",
    "Rank2SymmetricTensorHead",
)  # fmt: skip

_DEFAULTS = {"reduce": "sum"}
"""Options of energy and force heads, of which our models have the default."""


def with_dens(block: Any, optim: Any) -> Any:
    """:func:`in_our_form` of a model that is trained with DeNS, or was.

    Args:
        block: the model section. optim: the section with DeNS' options, or without; a mistake in
            them is the trainer's to report.

    Raises:
        DensError: as :func:`in_our_form`.
    """
    try:
        dens = parse_dens_config(mapping(optim, "optim"))
    except DensError:
        return block
    return in_our_form(block) if dens is not None and dens.enabled else block


def in_our_form(block: Any, where: str = "model") -> Any:
    """The model section; of a hydra model that DeNS can train as one of ours.

    Args:
        block: the section. Others than such are returned as they are.

    Raises:
        DensError: an option that no model of ours has; a head that is missing.

    >>> in_our_form({"name": "hydra",
    ...              "backbone": {"model": "equiformer_v2_dens_backbone", "num_layers": 4},
    ...              "heads": {"energy": {"module": "eqV2_DeNS_scalar_head"},
    ...                        "forces": {"module": "eqV2_DeNS_vector_head"}}})
    {'name': 'equiformer_v2_dens', 'num_layers': 4}
    """
    if not isinstance(block, Mapping) or block.get("name") != "hydra":
        return block
    backbone = dict(mapping(block.get("backbone"), f"{where}.backbone"))
    if str(backbone.pop("model", None)).rpartition(".")[2] not in _BACKBONES:
        return block
    model = {"name": _MODEL, **backbone}
    for option, value in block.items():
        if option == "otf_graph":
            model.setdefault(option, value)
        elif option in ("finetune_config", "freeze_backbone"):
            if not is_missing(value) and value not in (False, "False"):
                raise DensError(
                    f"{where}.{option}: {value!r}: to start a DeNS model from the weights of a "
                    "checkpoint, give --checkpoint PATH; all weights are then trained; remove "
                    f"{where}.{option}"
                )
        elif option not in ("name", "backbone", "heads", "pass_through_head_outputs"):
            raise DensError(f"unknown option {where}.{option} of a hydra model")
    return model | _options_of(block.get("heads"), f"{where}.heads")


def _options_of(heads: Any, where: str) -> dict[str, Any]:
    """Options of our model that stand for the heads."""
    found: dict[str, Any] = {}
    further: dict[str, Any] = {}
    seen = set()
    for name, given in mapping(heads, where).items():
        options = dict(mapping(given, f"{where}.{name}"))
        kind = str(options.pop("module", None)).rpartition(".")[2]
        in_dens = options.pop("use_denoising", None)
        if kind in (*_ENERGY, *_FORCES) and options.get("output_name", name) in (
            "energy",
            "forces",
        ):
            output = "energy" if kind in _ENERGY else "forces"
            seen.add(output)
            _check_head(options, output, f"{where}.{name}")
            if in_dens is not None and output == "energy":
                found["use_denoising_energy"] = flag(in_dens)
            continue
        if kind in _RANK2:
            options = {"module": "rank2_symmetric_head", **options}
            if in_dens is not None:
                found["use_denoising_stress"] = flag(in_dens)
        else:
            options = {**given}
        further[name] = options
    for output in ("energy", "forces"):
        if output not in seen:
            raise DensError(
                f"{where}: there is no head for {output}, but DeNS trains both energy and "
                "forces; add one of the same kind of model"
            )
    return found | ({"heads": further} if further else {})


def _check_head(options: Mapping[str, Any], output: str, where: str) -> None:
    for option, value in options.items():
        expected = {**_DEFAULTS, "output_name": output}.get(option)
        if value != expected:
            fix = f"; write {option}: {expected}" if expected else "; remove the option"
            raise DensError(
                f"{where}.{option}: {value!r}: the head for {output} of this package does not "
                f"have this option{fix}"
            )
