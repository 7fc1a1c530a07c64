"""Models that use torch-sparse, where it is not installed."""

import re

import pytest

from dens_ocp.errors import DensError
from dens_ocp.gaps import is_stand_in, torch_sparse
from dens_ocp.settings import given_settings
from tests.conftest import SMALL_EQUIFORMER
from tests.runs import make_trainer, small_config, write_data

FLAT = ["gemnet_oc", "gemnet_t", "gp_gemnet_t", "dimenetplusplus"]
HYDRA = ["gemnet_oc_backbone", "gemnet_t_backbone", "dimenetplusplus_backbone"]
MODELS = [
    *(({"name": name}, f"model.name: {name}: ") for name in FLAT),
    *(
        (
            {"name": "hydra", "backbone": {"model": name}, "heads": {}},
            f"model.backbone.model: {name}: ",
        )
        for name in HYDRA
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "words"), MODELS, ids=lambda each: str(each)[:40])
def test_they_say_so_before_data_are_read(model, words, tmp_path, monkeypatch):
    monkeypatch.setattr(given_settings, "is_stand_in", lambda name: name == "torch_sparse")
    config = small_config(tmp_path / "no such folder", model, dens=None)
    config["trainer"] = "equiformerv2_forces"
    with pytest.raises(DensError, match=re.escape(words) + ".*pip install .*torch-sparse"):
        make_trainer(config, tmp_path, name="dens_ocp.trainer.DeNSTrainer")


def test_others_do_not(tmp_path, monkeypatch):
    monkeypatch.setattr(given_settings, "is_stand_in", lambda name: True)
    make_trainer(small_config(write_data(tmp_path), SMALL_EQUIFORMER), tmp_path)


def test_names_are_those_of_fairchems_models_that_import_it():
    from fairchem.core.common.registry import registry
    from fairchem.core.common.utils import setup_imports

    setup_imports()
    for name in (*FLAT, *HYDRA):
        assert name.startswith(torch_sparse.USERS) and registry.get_model_class(name)
    for name in ("equiformer_v2", "escn", "schnet", "painn", "scn", "esen_backbone"):
        assert not name.startswith(torch_sparse.USERS)


def test_the_stand_in_says_what_is_missing():
    for use in (torch_sparse.SparseTensor, lambda: torch_sparse.SparseTensor.from_dense):
        with pytest.raises(ImportError, match="GemNet-OC.*pip install"):
            use()


def test_the_stand_in_is_only_where_the_package_is_not():
    from importlib.machinery import PathFinder

    import torch_sparse as found

    installed = PathFinder.find_spec("torch_sparse") is not None
    assert is_stand_in("torch_sparse") == (not installed)
    assert (found.SparseTensor.__init__.__globals__["__name__"] == "torch_sparse") != installed
