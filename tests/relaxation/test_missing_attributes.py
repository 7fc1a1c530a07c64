"""Records without ``fixed`` or ``tags``: one message, not an AttributeError deep in fairchem."""

import pytest

from dens_ocp.errors import DensError
from tests.lmdbs import s2ef_records, write_lmdb
from tests.relaxation import relaxations
from tests.relaxation.relaxations import OURS, STOCK
from tests.runs import make_trainer, small_config


def records_without(path, *names):
    records = s2ef_records(6)
    for record in records:
        for name in names:
            del record[name]
    return write_lmdb(path / "data.lmdb", records)


@pytest.mark.parametrize("split", ["train", "val", "test", "relax"])
@pytest.mark.parametrize("name", [STOCK, OURS])
def test_without_fixed(tmp_path, split, name):
    settings = small_config(tmp_path)
    del settings["optim"]["load_balancing"]
    settings["optim"]["scheduler_params"]["warmup_epochs"] = 1
    source = str(records_without(tmp_path, "fixed"))
    if split == "train":
        settings["dataset"] = {"train": {**settings["dataset"]["train"], "src": source}}
    else:
        mapping = settings["dataset"]["train"]["key_mapping"]
        settings["dataset"] = {split: {"src": source, "key_mapping": mapping}}
    settings["task"] = {"relaxation_steps": 1, "relax_opt": {}}
    if name == OURS:
        with pytest.raises(DensError, match=rf"dataset.{split}: .* has no attribute 'fixed'"):
            make_trainer(settings, tmp_path)
        return
    trainer = make_trainer(settings, tmp_path, name)
    trainer.is_debug = False
    with pytest.raises(AttributeError, match="fixed"):
        {
            "train": lambda: trainer.train(disable_eval_tqdm=True),
            "val": lambda: trainer.validate(disable_tqdm=True),
            "test": lambda: trainer.predict(trainer.test_loader, disable_tqdm=True),
            "relax": trainer.run_relaxations,
        }[split]()


def test_relaxations_without_tags(tmp_path):
    settings = relaxations.config(records_without(tmp_path, "tags"), tmp_path / "t")
    with pytest.raises(DensError, match="dataset.relax: .* has no attribute 'tags'"):
        relaxations.trainer_of(settings, tmp_path)


def test_fixed_of_another_length(tmp_path):
    records = s2ef_records(6)
    records[0].fixed = records[0].fixed[:-1]
    source = write_lmdb(tmp_path / "data.lmdb", records)
    with pytest.raises(DensError, match=r"fixed has shape \(8,\), expected \(9,\)"):
        relaxations.trainer_of(relaxations.config(source, None), tmp_path)
