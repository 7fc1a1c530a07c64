"""Every number, flag and choice of every section, by its type: the kinds, not a list of cases."""

import types
import typing

import pytest
import torch
from pydantic import BeforeValidator

from dens_ocp.dens.options import read
from dens_ocp.errors import DensError
from dens_ocp.settings import run
from dens_ocp.settings.sections import values
from dens_ocp.settings.sections.dataset import DataSet, Fit, Normalizer
from dens_ocp.settings.sections.optim import LambdaSchedule, Optim
from dens_ocp.settings.sections.targets import Loss, Output
from dens_ocp.settings.sections.task import Logger, RelaxOptions, Task

MODELS = (Optim, LambdaSchedule, DataSet, Normalizer, Fit, Output, Loss, Task, RelaxOptions, Logger)
NUMBERS = {float, int, int | float}


def fields(*kinds):
    """(model, option) of the options whose type is one of ``kinds``."""
    return [
        pytest.param(model, name, id=f"{model.__name__}.{name}")
        for model in MODELS
        for name, field in model.model_fields.items()
        if field.annotation in kinds
    ]


def example(model, name):
    field = model.model_fields[name]
    value = field.examples[0] if field.examples else field.default
    return max(value, 0.5) if field.annotation is float else value


@pytest.mark.parametrize(("model", "name"), fields(float, int, int | float))
def test_a_number_that_yaml_reads_as_a_string_is_that_number(model, name):
    value = example(model, name)
    form = "{:d}" if isinstance(value, int) else "{:e}"  # 5.000000e-04
    for written in (form.format(value), f" {value} ", value):
        got = read(model, {name: written}, "section")[name]
        assert got == value and type(got) is (
            float if model.model_fields[name].annotation is float else type(value)
        )


@pytest.mark.parametrize(("model", "name"), fields(float, int, int | float))
@pytest.mark.parametrize("value", ["fast", True, [1, 2], {"a": 1}, float("nan"), "inf", "1,5"])
def test_what_is_no_number_is_refused_by_name(model, name, value):
    with pytest.raises(DensError, match=rf"section\.{name}: .*(is not a|must be)"):
        read(model, {name: value}, "section")


@pytest.mark.parametrize(("model", "name"), fields(int))
def test_fractions_are_no_whole_numbers(model, name):
    assert read(model, {name: "4.0"}, "section") == {name: 4}
    with pytest.raises(DensError, match=rf"section\.{name}: 2.5 is not a whole number.* 2 and 3"):
        read(model, {name: 2.5}, "section")


@pytest.mark.parametrize(("model", "name"), fields(bool))
def test_flags_that_arrive_as_words(model, name):
    for word, meant in (("True", True), ("no", False), (False, False), ("off", False), (1, True)):
        assert read(model, {name: word}, "section")[name] is meant
    with pytest.raises(DensError, match=rf"section\.{name}: 'ture' is neither True nor False"):
        read(model, {name: "ture"}, "section")


@pytest.mark.parametrize("word", [None, "None", "null", "~"])
@pytest.mark.parametrize("model", MODELS)
def test_null_says_nothing(model, word):
    assert read(model, dict.fromkeys(model.model_fields, word), "section") == {}


@pytest.mark.parametrize("model", MODELS)
def test_misspelt_names_get_the_nearest(model):
    for name in model.model_fields:
        if len(name) > 4:
            misspelt = name.replace("_", "") if "_" in name else name[:-1] + "zz"
            with pytest.raises(DensError, match=rf"unknown option section\.{misspelt}, did you"):
                read(model, {misspelt: 1}, "section")


def test_number_keeps_integers():
    assert values.number("4") == 4 and isinstance(values.number("4"), int)
    assert isinstance(values.number(4.0), float)


# ---- options of classes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optim", "expected"),
    [
        ({"optimizer_params": {"weight_decay": "1e-3", "betas": ["9e-1", "0.99"]}},
         {"weight_decay": 1e-3, "betas": [0.9, 0.99]}),
        ({"optimizer_params": {"amsgrad": "True", "eps": "1e-7", "fused": "None"}},
         {"amsgrad": True, "eps": 1e-7, "fused": None}),
        ({"optimizer": "sgd", "optimizer_params": {"momentum": "9e-1", "nesterov": "yes"}},
         {"momentum": 0.9, "nesterov": True}),
    ],
)  # fmt: skip
def test_options_of_the_optimizer(optim, expected):
    checked = run.checked({"optim": optim})["optim"]
    assert checked["optimizer_params"] == expected
    cls = getattr(torch.optim, checked.get("optimizer", "AdamW"))
    cls([torch.nn.Parameter(torch.zeros(1))], lr=0.1, **expected)


@pytest.mark.parametrize(
    ("optim", "words"),
    [
        ({"optimizer": "AdmaW"}, ["optim.optimizer", "'AdmaW'", "'AdamW'"]),
        ({"optimizer_params": {"weightdecay": 1}}, ["weightdecay", "'weight_decay'"]),
        ({"optimizer_params": {"weight_decay": "much"}}, ["weight_decay", "'much'", "a number"]),
        ({"optimizer_params": {"weight_decay": None}}, ["weight_decay", "write 0 for no"]),
        ({"optimizer_params": {"amsgrad": "ja"}}, ["amsgrad", "True or False"]),
        ({"optimizer_params": {"lr": 0.1}}, ["optimizer_params.lr", "lr_initial"]),
        ({"scheduler": "LamdaLR"}, ["optim.scheduler", "'LambdaLR'"]),
        ({"scheduler": "CosineAnnealingLR", "Tmax": 5}, ["optim.Tmax", "'T_max'"]),
        ({"scheduler": "CosineAnnealingLR", "scheduler_params": {"T_max": "long"}},
         ["optim.scheduler_params.T_max", "'long'", "a whole number"]),
        ({"scheduler": "LambdaLR", "scheduler_params": {"lambda_type": "cosin"}},
         ["optim.scheduler_params.lambda_type", "'cosine'"]),
        ({"scheduler": "LambdaLR", "scheduler_params": {"warmup": 1}},
         ["optim.scheduler_params.warmup", "did you mean"]),
        ({"load_balancing": "atom"}, ["optim.load_balancing", "'atoms'"]),
        ({"eval_every": 0}, ["optim.eval_every", "0", "greater than or equal to 1"]),
        ({"checkpoint_every": 0}, ["optim.checkpoint_every", "-1"]),
        ({"batch_size": -4}, ["optim.batch_size", "-4"]),
        ({"grad_accumulation_steps": 4}, ["optim.grad_accumulation_steps", "batch_size"]),
        ({"batchsize": 3}, ["optim.batchsize", "'batch_size'"]),
        ({"lr": 1}, ["optim.lr"]),
    ],
)  # fmt: skip
def test_mistakes_in_optim(optim, words):
    with pytest.raises(DensError) as raised:
        run.checked({"optim": optim})
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize("given", [True, "True", "atoms", "Atoms", "neighbors"])
def test_load_balancing_is_atoms(given):
    assert run.checked({"optim": {"load_balancing": given}})["optim"]["load_balancing"] == "atoms"


@pytest.mark.parametrize(
    "name", ["equiformer_v2_dens", "escn_dens", "esen_dens", "equiformer_dens"]
)
def test_numbers_of_our_models_by_the_types_of_their_constructors(name):
    from fairchem.core.common.registry import registry

    from dens_ocp.settings.sections import signatures

    cls = registry.get_model_class(name)
    hints = signatures._hints(cls)
    names = signatures.parameters(cls)
    if hasattr(cls, "section"):
        names = cls.section.model_fields
        hints = {option: each.annotation for option, each in names.items()}
    seen = 0
    for option in names:
        hint = hints[option]
        kinds = set(typing.get_args(hint)) if isinstance(hint, types.UnionType) else {hint}
        if kinds & {int, float}:
            seen += 1
            word = "5e-1" if "drop" in option else "5e0"  # rates are below 1
            got = run.model({"name": name, option: word})[option]
            assert got == float(word) and not isinstance(got, (str, bool)), option
            with pytest.raises(DensError, match=rf"model\.{option}: 'five' is not a"):
                run.model({"name": name, option: "five"})
        elif bool in kinds and str not in kinds:
            seen += 1
            assert run.model({"name": name, option: "False"})[option] is False, option
    assert seen > 12
    if name in ("equiformer_v2_dens", "escn_dens"):
        assert run.model({"name": name, "lmax_list": ["4"]})["lmax_list"] == [4]
        assert run.model({"name": name, "lmax_list": 4})["lmax_list"] == [4]


def test_unused_validators_are_none():
    """Each type of a number above is one of these; a new one needs a test."""
    for model in MODELS:
        for field in model.model_fields.values():
            if field.annotation in NUMBERS:
                assert any(isinstance(each, BeforeValidator) for each in field.metadata)
