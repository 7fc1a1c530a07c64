"""Plans: what is read, which mistakes are named, and the configs of runs."""

import copy

import pytest
import yaml

from dens_ocp.dens.config import parse_dens_config
from dens_ocp.errors import DensError
from dens_ocp.tools.ablate.plan import config_of, read_plan, score_of
from dens_ocp.tools.ablate.runs import runs_of
from tests.conftest import ROOT
from tests.runs import small_config, write_config

PLANS = sorted((ROOT / "configs/ablations").glob("*.yml"))
PLAN = {
    "base": "config.yml",
    "baseline": "no_dens",
    "seeds": [0, 1],
    "score": {"test": "data/val"},
    "variants": {
        "no_dens": {"title": "no DeNS", "set": {"optim.dens.enabled": False}},
        "dens": None,
        "half": {"set": {"optim": {"dens": {"p": 0.25}}, "optim.lr_initial": 0.01}},
    },
}


def write_plan(folder, plan=None, **changes):
    write_config(folder / "config.yml", small_config(folder / "data"))
    path = folder / "plan.yml"
    path.write_text(yaml.safe_dump({**copy.deepcopy(plan or PLAN), **changes}, sort_keys=False))
    return path


def test_configs_of_the_variants(tmp_path):
    plan = read_plan(write_plan(tmp_path, set={"optim.max_epochs": 7}))
    base = small_config(tmp_path / "data")
    base["optim"]["max_epochs"] = 7
    configs = {name: config_of(plan, tmp_path, "", name) for name in plan.variants}
    assert configs["dens"] == base
    expected = copy.deepcopy(base)
    expected["optim"]["dens"]["enabled"] = False
    assert configs["no_dens"] == expected
    expected = copy.deepcopy(base)
    expected["optim"]["dens"]["p"] = 0.25
    expected["optim"]["lr_initial"] = 0.01
    assert configs["half"] == expected
    names = [run.name for run in runs_of(plan, tmp_path, tmp_path)]
    assert names[:4] == ["no_dens-seed0", "dens-seed0", "half-seed0", "no_dens-seed1"]


def test_several_bases(tmp_path):
    path = write_plan(
        tmp_path,
        base={"aspirin": "config.yml", "uracil": {"config": "config.yml", "score": {"u": "x"}}},
    )
    plan = read_plan(path)
    runs = runs_of(plan, tmp_path, tmp_path)
    assert len(runs) == 2 * 2 * 3 and runs[-1].name == "uracil-half-seed1"
    assert runs[0].score == {"test": "data/val"} and runs[-1].score == {"u": "x"}


def test_score_comes_from_the_config_if_the_plan_has_none(tmp_path):
    plan = read_plan(write_plan(tmp_path, score={}))
    config = small_config(tmp_path / "data")
    assert score_of(plan, "", config) == {"val": str(tmp_path / "data/val")}
    config["dataset"]["test"] = {"src": "t"}
    assert score_of(plan, "", config) == {"test": "t"}
    config["evaluation"] = {"s2ef": {"id": "i"}}
    assert score_of(plan, "", config) == {"id": "i"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variant": {}}, ["unknown key variant", "did you mean 'variants'"]),
        ({"variants": {"a": {"sets": {}}}}, ["variants.a.sets", "did you mean 'set'"]),
        ({"baseline": "nodens"}, ["'nodens'", "did you mean 'no_dens'"]),
        ({"seeds": ["one"]}, ["seeds"]),
        ({"seeds": [1, 1]}, ["a seed is given twice"]),
        ({"checkpoint": "first"}, ["checkpoint", "'best' or 'last'"]),
        ({"variants": {"no_dens": None, "a/b": None}}, ["'a/b' cannot be a name"]),
        ({"base": "gone.yml"}, ["gone.yml does not exist"]),
        ({"set": {"optim.max_epoch": 3}}, ["max_epoch", "did you mean 'max_epochs'"]),
        ({"set": {"optim.dens.simga": 3}}, ["simga", "did you mean 'sigma'"]),
        ({"set": {"optim.dens.p": 3}}, ["optim.dens.p: 3"]),
    ],
)
def test_mistakes(tmp_path, changes, words):
    path = write_plan(tmp_path, **changes)
    with pytest.raises(DensError) as refused:
        runs_of(read_plan(path), tmp_path, tmp_path)
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plans_of_the_paper(path):
    plan = read_plan(path)
    assert plan.baseline == "no_dens"
    for name, base in plan.bases.items():
        if not (path.parent / base.config).is_file():
            pytest.skip(f"{base.config} is not there")
        configs = {
            variant: config_of(plan, path.parent, name, variant) for variant in plan.variants
        }
        options = {variant: parse_dens_config(c["optim"]) for variant, c in configs.items()}
        assert not options["no_dens"].active and options["dens"].active
        if "full_corruption" in plan.variants:
            assert options["full_corruption"].r == 1
        if "no_energy" in plan.variants:
            assert not options["no_energy"].energy
            assert configs["no_force_encoding"]["model"]["use_force_encoding"] is False
            for variant in ("no_force_encoding", "no_energy"):
                same = options[variant].model_copy(update={"energy": True})
                assert same == options["dens"]


def test_there_are_plans():
    assert {path.stem for path in PLANS} == {
        "acetylacetone", "acetylacetone_epochs", "acetylacetone_frames", "hot_crystals",
        "md17_table_5", "md17_table_6", "oc20_table_1b", "slabs", "slabs_large",
    }  # fmt: skip
