"""The ``optim`` blocks of the eight configs that EquiformerV3's authors published
(github.com/atomicarchitects/equiformer_v3, ``experimental/configs``): names and values."""

import logging

import pytest
from fairchem.core.common.utils import load_config

from dens_ocp.dens.config import DeNSConfig, parse_dens_config
from dens_ocp.errors import DensError
from dens_ocp.settings.sections import optim
from tests.test_configs import CONFIGS

SCHEDULE = {
    "lambda_type": "cosine", "warmup_factor": 0.0, "warmup_epochs": 0.1, "lr_min_factor": 0.01,
}  # fmt: skip
NOISE = {
    "prob": 0.5, "fixed_noise_std": True, "std": 0.025, "corrupt_ratio": 0.5, "num_steps": 50,
    "std_low": 0.01, "std_high": 0.5, "min_num_atoms": None, "strict_max_ratio": 0.75,
}  # fmt: skip
SHARED = {
    "load_balancing": "atoms", "num_workers": 0, "optimizer": "AdamW", "scheduler": "LambdaLR",
    "scheduler_params": SCHEDULE, "clip_grad_norm": 100, "ema_decay": 0.999,
}  # fmt: skip


def block(batch, evaluated, rate, epochs, every, *, accumulated=1, **others):
    return SHARED | {
        "batch_size": batch, "eval_batch_size": evaluated, "grad_accumulation_steps": accumulated,
        "lr_initial": rate, "max_epochs": epochs, "eval_every": every, **others,
    }  # fmt: skip


def adamw(*betas, **others):
    return {"optimizer_params": {"weight_decay": 0.001, "betas": [*betas], **others}}


def noise(used, coefficient, **others):
    return {
        "use_denoising_pos": used, "denoising_pos_params": {**NOISE, **others},
        "denoising_pos_coefficient": coefficient,
    }  # fmt: skip


OMAT = {**adamw(0.9, 0.98, eps=1e-6)}
MAX = {"max_force_norm": 2.5}
DIRECT = {"use_compile": True}
GRADIENT = {"use_compile": False, "load_pretrained_weights": "/data/checkpoint_no-energy_head.pt"}
NO_CHECKPOINT = "optim.load_pretrained_weights: .*--checkpoint PATH"
NO_ACCUMULATION = "optim.grad_accumulation_steps: [24]: .*cannot accumulate gradients"
ON = {"p": 0.5, "r": 0.5, "sigma": 0.025, "strict_max_ratio": 0.75}

# file: its block, why it is refused (or what is left out so that it is accepted), and the options
# that it means
PUBLISHED = {
    "oc20/2M": (
        block(
            4, 4, 2e-4, 12, 10000, accumulated=4, loss_energy="mae", loss_force="l2mae",
            optimizer_params={"weight_decay": 0.001}, use_compile=True,
            scheduler_params={**SCHEDULE, "warmup_factor": 0.2}, use_denoising_pos=False,
            denoising_pos_params={
                "prob": 0.5, "fixed_noise_std": True, "std": 0.1, "num_steps": 50, "std_low": 0.01,
                "std_high": 0.5, "corrupt_ratio": 0.5,
            },
            denoising_pos_coefficient=10,
        ),
        [NO_ACCUMULATION], None,
    ),
    "omat24/mptrj/direct": (
        block(64, 64, 2e-4, 70, 5000, **adamw(0.9, 0.95), **noise(True, 10), **DIRECT),
        [], {**ON, "coefficient": 10},
    ),
    "omat24/mptrj/gradient": (
        block(8, 8, 5e-5, 10, 5000, accumulated=4, **adamw(0.9, 0.95), **noise(False, 10),
              **GRADIENT),
        [NO_ACCUMULATION, NO_CHECKPOINT], None,
    ),
    "omat24/omat24/direct, L 4": (
        block(16, 64, 2e-4, 4, 2500, **OMAT, **noise(True, 1, **MAX), **DIRECT),
        [], {**ON, "coefficient": 1, **MAX},
    ),
    "omat24/omat24/direct, L 6": (
        block(16, 64, 2e-4, 4, 2500, **OMAT, **noise(True, 1, **MAX), **DIRECT),
        [], {**ON, "coefficient": 1, **MAX},
    ),
    "omat24/omat24/gradient, L 4": (
        block(16, 16, 1e-4, 2, 2500, **OMAT, **noise(False, 1, **MAX), **GRADIENT),
        [NO_CHECKPOINT], None,
    ),
    "omat24/omat24/gradient, L 6": (
        block(8, 8, 1e-4, 2, 2500, accumulated=2, **OMAT, **noise(False, 1, **MAX), **GRADIENT),
        [NO_ACCUMULATION, NO_CHECKPOINT], None,
    ),
    "omat24/salex_mptrj/gradient": (
        block(8, 8, 5e-5, 2, 2500, **OMAT, **noise(False, 1, **MAX), **GRADIENT),
        [NO_CHECKPOINT], None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("file", PUBLISHED)
def test_published_blocks(file, caplog):
    """Each is accepted as it is, or refused with a reason for each thing that is not done here, and
    accepted when that is put right."""
    given, reasons, dens = PUBLISHED[file]
    given = dict(given)
    for reason in reasons:
        with pytest.raises(DensError, match=reason):
            optim.checked(given)
        if reason == NO_CHECKPOINT:
            del given["load_pretrained_weights"]
        else:
            given["grad_accumulation_steps"] = 1
    with caplog.at_level(logging.WARNING):
        read = optim.checked(given)
    optim.needed_for_training(read)
    compiled = "optim.use_compile: this package does not compile models" in caplog.text
    assert compiled is given["use_compile"]
    for name in ("batch_size", "lr_initial", "max_epochs", "eval_every", "clip_grad_norm"):
        assert read[name] == given[name]
    assert read["scheduler_params"] == given["scheduler_params"]
    assert read["optimizer_params"] == given["optimizer_params"]
    expected = DeNSConfig(enabled=False) if dens is None else DeNSConfig(
        **dens, choice="batch", encode="masked"
    )  # fmt: skip
    assert parse_dens_config(read) == expected


def test_the_preset():
    """configs/common/dens_equiformer_v3.yml is the block of MPtrj, direct, without the stress."""
    config, *duplicates = load_config(CONFIGS / "common" / "dens_equiformer_v3.yml")
    assert duplicates == [[], []]
    published = parse_dens_config(PUBLISHED["omat24/mptrj/direct"][0])
    assert parse_dens_config(config["optim"]) == published.model_copy(update={"stress": False})


def test_the_preset_among_includes(tmp_path):
    preset, model = (CONFIGS / "common" / name for name in (
        "dens_equiformer_v3.yml", "equiformer_v2_dens.yml"
    ))  # fmt: skip
    mine = tmp_path / "mine.yml"
    mine.write_text(f"includes: [{model}, {preset}]\noptim: {{lr_initial: 0.0002}}\n")
    config, *duplicates = load_config(mine)
    assert duplicates == [[], []] and config["optim"]["dens"]["sigma"] == 0.025
