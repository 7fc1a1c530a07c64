"""Who is measured: a model and the trainer that trains it, stock and ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import STRESS_HEAD, Case, add_stress, run_config

# the paper's: half of the structures, half of their atoms, 0.1 Angstrom
_OURS = {"dens": {"p": 0.5, "r": 0.5, "sigma": 0.1, "coefficient": 10}}
_FAIRCHEMS = {
    "use_denoising_pos": True,
    "denoising_pos_coefficient": 10,
    "denoising_pos_params": {
        "prob": 0.5, "fixed_noise_std": True, "std": 0.1, "corrupt_ratio": 0.5,
        "all_atoms": False,
    },
}  # fmt: skip


def _flat(name: str, **more: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda options: {"name": name, **options, **more}


def _hydra(
    backbone: str, energy: str, forces: str | None, **more: Any
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    heads = {"energy": {"module": energy}}
    if forces is not None:
        heads["forces"] = {"module": forces}
    return lambda options: {
        "name": "hydra",
        "pass_through_head_outputs": True,
        "backbone": {"model": backbone, **options, **more},
        "heads": heads,
    }


@dataclass(frozen=True)
class Variant:
    """A model and its trainer.

    Attributes:
        name: short; label: of the report; family: of :class:`Case`.
        model: options of a backbone -> section ``model``.
        trainer: fairchem's name of the trainer. optim: its options.
        stock: without DeNS, so it may be the baseline. ours: of this project.
        gpu_only: on a CPU it is the same as another one.
    """

    name: str
    label: str
    family: str
    model: Callable[[dict[str, Any]], dict[str, Any]]
    trainer: str
    optim: dict[str, Any]
    stock: bool = False
    ours: bool = False
    gpu_only: bool = False


_EQV2_HEADS = ("equiformerV2_scalar_head", "equiformerV2_vector_head")
_ESCN_HEADS = ("escn_energy_head", "escn_force_head")
_ESEN_HEADS = ("esen_mlp_energy_head", "esen_linear_force_head")
_DENS_HEADS = ("eqV2_DeNS_scalar_head", "eqV2_DeNS_vector_head")
_STOCK, _DENS = "equiformerv2_forces", "equiformerv2_dens"

VARIANTS = (
    Variant("flat", "fairchem, no DeNS (flat)", "eqv2", _flat("equiformer_v2"), _STOCK, {}, True),
    Variant("hydra", "fairchem, no DeNS (hydra)", "eqv2",
            _hydra("equiformer_v2_backbone", *_EQV2_HEADS), _STOCK, {}, True),
    Variant("fairchem-dens", "fairchem's DeNS", "eqv2",
            _hydra("equiformer_v2_dens_backbone", *_DENS_HEADS), _DENS, _FAIRCHEMS),
    Variant("ours", "ours, heads alone", "eqv2", _flat("equiformer_v2_dens", fast=False),
            "dens", _OURS, ours=True),
    Variant("fast", "ours, fast", "eqv2", _flat("equiformer_v2_dens", fast=True),
            "dens", _OURS, ours=True),
    Variant("graphs", "ours, fast, CUDA graphs", "eqv2",
            _flat("equiformer_v2_dens", fast=True, cuda_graphs=True), "dens", _OURS, ours=True,
            gpu_only=True),
    Variant("flat", "fairchem, no DeNS (flat)", "escn", _flat("escn"), _STOCK, {}, True),
    Variant("hydra", "fairchem, no DeNS (hydra)", "escn",
            _hydra("escn_backbone", *_ESCN_HEADS), _STOCK, {}, True),
    Variant("ours", "ours, heads alone", "escn", _flat("escn_dens", fast=False),
            "dens", _OURS, ours=True),
    Variant("fast", "ours, fast", "escn", _flat("escn_dens", fast=True),
            "dens", _OURS, ours=True),
    Variant("hydra", "fairchem, no DeNS (hydra)", "esen",
            _hydra("esen_backbone", *_ESEN_HEADS), _STOCK, {}, True),
    Variant("ours", "ours, heads alone", "esen", _flat("esen_dens", fast=False),
            "dens", _OURS, ours=True),
    Variant("fast", "ours, fast", "esen", _flat("esen_dens", fast=True),
            "dens", _OURS, ours=True),
    Variant("hydra", "fairchem, no DeNS (hydra)", "esen_gradient",
            _hydra("esen_backbone", "esen_mlp_efs_head", None, direct_forces=False), _STOCK, {},
            True),
    Variant("ours", "ours, fairchem's path", "esen_gradient",
            _flat("esen_dens", fast=False, forces="gradient"), "dens", _OURS, ours=True),
    Variant("fast", "ours, fast", "esen_gradient",
            _flat("esen_dens", fast=True, forces="gradient"), "dens", _OURS, ours=True),
)  # fmt: skip


def of(case: Case, gpu: bool = False) -> list[Variant]:
    """The variants of a case's family."""
    found = [each for each in VARIANTS if each.family == case.family and gpu >= each.gpu_only]
    if case.batch == "stress":  # fairchem's flat model and its DeNS have no head of the stress
        found = [_with_stress(each) for each in found if each.ours or each.name == "hydra"]
    return found


def _with_stress(variant: Variant) -> Variant:
    def model(options: dict[str, Any]) -> dict[str, Any]:
        found = variant.model(options)
        heads = {**found.get("heads", {}), "stress": dict(STRESS_HEAD)}
        return {**found, "heads": heads}

    return replace(variant, model=model)


def make_trainer(
    variant: Variant, case: Case, data: Path, run_dir: Path, device: torch.device, amp: bool
) -> Any:
    """The trainer, as ``fairchem main`` makes it, with seeded weights; writes nothing.

    Args:
        data: folder of the case's LMDB. run_dir: a folder for what the trainer insists on.
    """
    from fairchem.core.common.registry import registry
    from fairchem.core.common.utils import setup_imports

    import dens_ocp  # noqa: F401 (registers)

    setup_imports()
    config = run_config(data, case.structures, variant.optim)
    if case.batch == "stress":
        add_stress(config)
    torch.manual_seed(0)
    return registry.get_trainer_class(variant.trainer)(
        model=variant.model(case.model()), **config,
        run_dir=str(run_dir), is_debug=True, seed=0, cpu=device.type == "cpu", local_rank=0,
        identifier="", name="ocp", amp=amp,
    )  # fmt: skip
