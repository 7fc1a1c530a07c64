"""What is measured: models, their sizes, and the config of a run."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EQUIFORMER = {
    "use_pbc": True,
    "otf_graph": True,
    "max_neighbors": 20,
    "max_radius": 12.0,
    "sphere_channels": 128,
    "attn_hidden_channels": 64,
    "num_heads": 8,
    "attn_alpha_channels": 64,
    "attn_value_channels": 16,
    "ffn_hidden_channels": 128,
    "norm_type": "layer_norm_sh",
    "lmax_list": [4],
    "mmax_list": [2],
    "grid_resolution": 14,
    "edge_channels": 128,
    "attn_activation": "silu",
    "ffn_activation": "silu",
    "use_grid_mlp": True,
    "alpha_drop": 0.1,
    "drop_path_rate": 0.05,
    "weight_init": "uniform",
}
"""The paper's EquiformerV2 (Table 7) but for Lmax and resolution, which are 6 and 18 there."""

ESCN = {
    "use_pbc": True,
    "otf_graph": True,
    "max_neighbors": 20,
    "cutoff": 12.0,
    "sphere_channels": 128,
    "hidden_channels": 256,
    "edge_channels": 128,
    "lmax_list": [4],
    "mmax_list": [2],
    "num_sphere_samples": 128,
    "distance_function": "gaussian",
    "basis_width_scalar": 2.0,
    "distance_resolution": 0.02,
}
"""The paper's eSCN but for Lmax, which is 6 there."""

ESEN = {
    "use_pbc": True,
    "otf_graph": True,
    "max_neighbors": 20,
    "cutoff": 12.0,
    "sphere_channels": 128,
    "hidden_channels": 128,
    "edge_channels": 128,
    "lmax": 3,
    "mmax": 2,
    "num_distance_basis": 10,
    "act_type": "gate",
    "mlp_type": "spectral",
    "use_envelope": True,
}
"""eSEN-30M (configs/omat24/mptrj/common_eSEN.yml), with the neighbours of the others."""

FAMILIES = {"eqv2": EQUIFORMER, "escn": ESCN, "esen": ESEN, "esen_gradient": ESEN}
"""``esen_gradient``: forces are gradients of the energy."""

SIZES: dict[str, dict[str, Any]] = {
    "3": {"num_layers": 3},
    "12": {"num_layers": 12},
    "paper": {"num_layers": 12, "lmax_list": [6], "grid_resolution": 18},
    "tiny": {
        "num_layers": 1, "sphere_channels": 8, "attn_hidden_channels": 8, "num_heads": 2,
        "attn_alpha_channels": 4, "attn_value_channels": 4, "ffn_hidden_channels": 8,
        "hidden_channels": 8, "edge_channels": 8, "lmax_list": [2], "max_neighbors": 8,
        "num_sphere_samples": 32,
    },
}  # fmt: skip
"""Name -> what differs from the above; options that a family does not have are left out."""

_KNOWN = {name: {*options, "num_layers"} for name, options in FAMILIES.items()}


@dataclass(frozen=True)
class Case:
    """A batch and a model size: variants of one case are measured in turn.

    Attributes:
        family, size: keys of :data:`FAMILIES`, :data:`SIZES`. batch: key of batches.FREE_SHARE.
        structures: of the batch. slab: atoms along both axes, and layers, of each.
        options: of the model, over those of the size (for scaling).
    """

    family: str
    size: str
    batch: str
    structures: int = 2
    slab: tuple[int, int, int] = (3, 3, 4)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.family}-{self.size}/{self.batch}"

    def model(self) -> dict[str, Any]:
        """Options of the backbone."""
        options = {
            **FAMILIES[self.family],
            **{k: v for k, v in SIZES[self.size].items() if k in _KNOWN[self.family]},
            **self.options,
        }
        return copy.deepcopy(options)


STRESS_HEAD = {
    "module": "rank2_symmetric_head", "output_name": "stress",
    "use_source_target_embedding": True, "decompose": True,
}  # fmt: skip
_PARTS = {"stress_isotropic": {"irrep_dim": 0}, "stress_anisotropic": {"irrep_dim": 2}}


def add_stress(config: dict[str, Any]) -> None:
    """What the recipes of materials have besides, in place."""
    transforms = config["dataset"]["train"]["transforms"]
    parts = {"tensor": "stress", "rank": 2, "decomposition": copy.deepcopy(_PARTS)}
    config["dataset"]["train"]["transforms"] = {"decompose_tensor": parts, **transforms}
    config["outputs"]["stress"] = {"level": "system", "decomposition": copy.deepcopy(_PARTS)}
    for name in _PARTS:
        transforms["normalizer"][name] = {"mean": 0.0, "stdev": 1.0}
        config["loss_functions"].append({name: {"fn": "mae", "coefficient": 5}})
        config["evaluation_metrics"]["metrics"][name] = ["mae"]


def run_config(data: Path, structures: int, optim: dict[str, Any]) -> dict[str, Any]:
    """A training run as the recipes in ``configs/`` set it up, for one batch of ``structures``.

    Args:
        data: folder of the LMDB. optim: added to section ``optim`` (options of DeNS).
    """
    source = {
        "format": "lmdb",
        "src": str(data),
        "key_mapping": {"y": "energy", "force": "forces"},
        "transforms": {
            "normalizer": {
                "energy": {"mean": 0.0, "stdev": 1.0}, "forces": {"mean": 0.0, "stdev": 1.0},
            }
        },
    }  # fmt: skip
    return {
        "task": {},
        "dataset": {"train": source},
        "outputs": {
            "energy": {"level": "system"},
            "forces": {"level": "atom", "train_on_free_atoms": True, "eval_on_free_atoms": True},
        },
        "loss_functions": [
            {"energy": {"fn": "mae", "coefficient": 4}},
            {"forces": {"fn": "l2mae", "coefficient": 100}},
        ],
        "evaluation_metrics": {
            "primary_metric": "forces_mae",
            "metrics": {
                "energy": ["mae"],
                "forces": [
                    "forcesx_mae", "forcesy_mae", "forcesz_mae", "mae", "cosine_similarity",
                    "magnitude_error",
                ],
                "misc": ["energy_forces_within_threshold"],
            },
        },
        "optimizer": {
            "batch_size": structures,
            "eval_batch_size": structures,
            "num_workers": 0,
            "lr_initial": 0.0002,
            "optimizer": "AdamW",
            "optimizer_params": {"weight_decay": 0.001},
            "scheduler": "LambdaLR",
            "scheduler_params": {
                "lambda_type": "cosine", "warmup_factor": 0.2, "warmup_epochs": 1,
                "lr_min_factor": 0.01,
            },
            "max_epochs": 1000,
            "clip_grad_norm": 100,
            "ema_decay": 0.999,
            **optim,
        },
        "logger": "tensorboard",
    }  # fmt: skip
