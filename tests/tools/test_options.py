"""``dens-ocp options``: every option has a name, a default where it holds, and a meaning."""

import pytest
import yaml

from dens_ocp.dens.config import DeNSConfig
from dens_ocp.errors import DensError
from dens_ocp.tools import cli, options

OF_FAIRCHEM = ("model.equiformer_v2_dens", "model.escn_dens", "model.esen_dens")


@pytest.mark.parametrize("section", options.SECTIONS)
def test_every_option_says_what_it_means(section):
    found = options.of(section)
    assert len(found) == len({each.name for each in found}) > 1
    for each in found:
        if section not in OF_FAIRCHEM:  # fairchem's docstrings do not have all
            assert len(each.meaning) > 10, f"{section}.{each.name} has no description"
        assert not any(mark in each.meaning for mark in (":class:", ":func:", ":mod:"))


def test_defaults_are_those_of_the_code():
    for each in options.of("optim.dens"):
        assert yaml.safe_load(each.default) == DeNSConfig.model_fields[each.name].default


def test_sections_that_fairchem_completes_show_no_default():
    assert not any(each.default for each in options.of("optim"))
    assert any(each.default for each in options.of("evaluation.relaxation"))


def test_arguments_of_a_model_are_described():
    described = {each.name: each for each in options.of("model.equiformer_v2_dens")}
    assert described["cuda_graphs"].default == "false" and described["fast"].default == "auto"
    assert "CUDA graph" in described["cuda_graphs"].meaning
    assert described["num_layers"].meaning  # fairchem's


def test_the_command(capsys):
    assert cli.main(["options"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in options.SECTIONS)
    assert cli.main(["options", "Optim.DeNS"]) == 0
    assert "max_force_norm" in capsys.readouterr().out
    assert cli.main(["options", "optim.denss"]) == 2
    assert "did you mean 'optim.dens'" in capsys.readouterr().err
    with pytest.raises(DensError, match="SECTION"):
        options.of("nothing")
