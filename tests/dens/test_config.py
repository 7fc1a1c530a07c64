"""Options: both spellings, bounds, messages."""

import pytest

from dens_ocp.dens.config import DeNSConfig, MultiScaleSigma, parse_dens_config
from dens_ocp.errors import DensError

OFFICIAL = {
    "use_denoising_pos": True,
    "denoising_pos_params": {
        "prob": 0.125,
        "fixed_noise_std": True,
        "std": 0.15,
        "num_steps": 50,
        "std_low": 0.01,
        "std_high": 0.5,
        "corrupt_ratio": 0.25,
    },
    "denoising_pos_coefficient": 15,
}


def official(**params):
    return {**OFFICIAL, "denoising_pos_params": {**OFFICIAL["denoising_pos_params"], **params}}


def test_both_spellings_say_the_same():
    ours = {"p": 0.125, "r": 0.25, "sigma": 0.15, "coefficient": 15, "choice": "batch"}
    ours["encode"] = "masked"
    assert parse_dens_config({"dens": ours, "lr_initial": 1e-3}) == parse_dens_config(OFFICIAL)


@pytest.mark.parametrize("given", ["denoising_pos_params", "denoising_pos_coefficient"])
def test_official_keys_without_use_denoising_pos_are_refused(given):
    with pytest.raises(DensError, match=f"use_denoising_pos is missing.*{given} is given"):
        parse_dens_config({given: OFFICIAL[given]})


def test_official_multi_scale_schedule():
    config = parse_dens_config(official(fixed_noise_std=False))
    assert config.sigma == MultiScaleSigma(low=0.01, high=0.5, num_steps=50)
    assert config.noise_scale == 0.5


def test_official_without_corrupt_ratio_corrupts_all_free_atoms():
    assert parse_dens_config(official(corrupt_ratio=None)).r == 1.0


def test_no_word_of_dens_is_none_and_off_is_off():
    assert parse_dens_config({"batch_size": 4}) is None
    assert not parse_dens_config({"use_denoising_pos": False}).active
    assert not parse_dens_config({"dens": {"enabled": False}}).active
    assert not parse_dens_config({"dens": {"p": 0}}).active


@pytest.mark.parametrize(
    ("optim", "words"),
    [
        ({"dens": {"p": 1.5}}, ["optim.dens.p", "1.5", "less than or equal to 1"]),
        ({"dens": {"r": -0.1}}, ["optim.dens.r", "-0.1"]),
        ({"dens": {"sigma": 0}}, ["optim.dens.sigma", "0", "larger than 0"]),
        ({"dens": {"sigma": float("nan")}}, ["optim.dens.sigma", "nan"]),
        ({"dens": {"sigma": {"low": 1, "high": 0.1}}}, ["optim.dens.sigma", "1.0", "0.1"]),
        ({"dens": {"sigma": {"low": 0.1}}}, ["optim.dens.sigma.high", "required"]),
        ({"dens": {"simga": 0.1}}, ["optim.dens.simga", "did you mean 'sigma'"]),
        ({"dens": {"choice": "atom"}}, ["optim.dens.choice", "'structure' or 'batch'"]),
        ({"dens": {"encode": "all"}}, ["optim.dens.encode", "'corrupted' or 'masked'"]),
        ({"dens": 0.5}, ["optim.dens", "0.5"]),
        ({"denss": {}}, ["optim.denss", "'dens'"]),
        ({"use_denoising_poss": True}, ["'use_denoising_pos'"]),
        ({**OFFICIAL, "dens": {}}, ["both"]),
        (official(prob=2), ["denoising_pos_params.prob", "2"]),
        (official(std=0), ["denoising_pos_params.std", "0"]),
        (official(std=None), ["denoising_pos_params.std", "missing"]),
        (official(fixed_noise_std=False, std_high=None), ["std_high", "missing"]),
        (official(corupt_ratio=0.5), ["corupt_ratio", "'corrupt_ratio'"]),
        (
            {key: value for key, value in OFFICIAL.items() if key != "denoising_pos_coefficient"},
            ["denoising_pos_coefficient", "missing"],
        ),
    ],
)
def test_mistakes_name_option_value_and_fix(optim, words):
    with pytest.raises(DensError) as error:
        parse_dens_config(optim)
    for word in words:
        assert word in str(error.value)


def test_linear_decay_reaches_zero_after_the_last_step():
    config = DeNSConfig(coefficient=8.0, coefficient_decay="linear")
    assert [config.coefficient_at(step, 4) for step in (1, 2, 3, 4, 5)] == [8, 6, 4, 2, 0]
    assert DeNSConfig(coefficient=8.0).coefficient_at(4, 4) == 8


def test_linear_decay_to_a_floor():
    config = DeNSConfig(coefficient=8.0, coefficient_decay="linear", coefficient_floor=0.25)
    assert [config.coefficient_at(step, 4) for step in (1, 2, 3, 4, 5)] == [8, 6.5, 5, 3.5, 2]


def test_dens_at_the_start_of_the_run_alone():
    """EquiformerV3's ``early_epochs``: while the epoch, a fraction, is not larger."""
    config = DeNSConfig(early_epochs=1.5)
    assert [config.active_at(step, 4) for step in (1, 6, 7)] == [True, True, False]
    assert DeNSConfig().active_at(1000, 4) and not DeNSConfig(p=0).active_at(1, 4)


def test_equiformer_v3s_options():
    """All that its trainer reads of ``denoising_pos_params``, as in its published files."""
    params = {
        "prob": 0.5, "fixed_noise_std": True, "std": 0.025, "corrupt_ratio": 0.5,
        "all_atoms": True, "coefficient_linear_decay_min_factor": 0.1, "num_steps": None,
        "std_low": "None", "std_high": "None", "min_num_atoms": 2, "strict_max_ratio": 0.75,
        "max_force_norm": 2.5, "max_stress_norm": 0.5, "early_epochs": 10,
        "max_mean_force_norm": 1e-3,
    }  # fmt: skip
    optim = {"use_denoising_pos": True, "denoising_pos_coefficient": 5}
    found = parse_dens_config({**optim, "denoising_pos_params": params})
    expected = {
        "p": 0.5, "r": 0.5, "sigma": 0.025, "coefficient": 5, "coefficient_decay": "linear",
        "coefficient_floor": 0.1, "choice": "batch", "encode": "masked", "all_atoms": True,
        "min_num_atoms": 2, "strict_max_ratio": 0.75, "max_force_norm": 2.5,
        "max_stress_norm": 0.5, "max_net_force": 1e-3, "early_epochs": 10,
    }  # fmt: skip
    assert found == DeNSConfig(**expected)
    assert found.leaves_structures_out and not DeNSConfig().leaves_structures_out
    without = parse_dens_config(
        {**optim, "denoising_pos_params": {**params, "coefficient_linear_decay_min_factor": None}}
    )
    assert without.coefficient_decay == "constant"


def test_every_option_is_described():
    assert all(field.description for field in DeNSConfig.model_fields.values())
