"""Data sets of a run: opened, checked, balanced over ranks, and what is fitted to them.

Each function calls fairchem's method of the trainer and says which trap of it it removes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fairchem.core.common import distutils, gp_utils
from fairchem.core.modules.normalization import element_references, normalizer
from fairchem.core.trainers import base_trainer

from dens_ocp.data import load_balancing, opened_data
from dens_ocp.data.checks import check_dataset_paths
from dens_ocp.data.lmdb_environment import reopen_in_each_process
from dens_ocp.data.md_flags import without_inherited_md
from dens_ocp.data.records.collation import CheckingCollater
from dens_ocp.data.records.named_records import check_first_record, read_with
from dens_ocp.launch import data_workers, signals
from dens_ocp.launch.agreement import Failures, on_master
from dens_ocp.patched import swapped
from dens_ocp.relaxation import relaxation_options
from dens_ocp.relaxation.dealt_batches import DealtBatches
from dens_ocp.settings import configured_references, oc22_references

if TYPE_CHECKING:
    from dens_ocp.training.fairchem_trainer import HostTrainer

_SPLITS = {
    "train": "dataset",
    "val": "val_dataset",
    "test": "test_dataset",
    "relax": "relax_dataset",
}


def load(trainer: HostTrainer, fairchems: Callable[[], None]) -> None:
    """Records are put right and checked as they are read, the first of each data set now.

    Raises:
        DensError: a mistake in ``dataset``, or a first record that cannot be used.
    """
    trainer.config["dataset"] = oc22_references.with_linear_references(trainer.config["dataset"])
    for split, name in _SPLITS.items():
        section = trainer.config[name]
        if not section.get("src"):
            # fairchem only asks whether the word is there; of relaxations, whether a word is
            section.pop("src", None)
            if split == "relax":
                trainer.config[name] = {}
            continue
        inherits = split != "train" and section.get("use_train_settings", True)
        base = trainer.config["dataset"] if inherits else {}
        section = trainer.config[name] = without_inherited_md(section, base)
        check_dataset_paths({**base, **section}, f"dataset.{split}")
        opened_data.check_box_of(trainer._unwrapped_model, section["src"], split)
    # fairchem's collater asks the config, not the model, whether graphs are built on the fly,
    # and warns at every batch if in doubt
    trainer.config["model"].setdefault(
        "otf_graph", getattr(trainer._unwrapped_model, "otf_graph", True)
    )
    if trainer.config["relax_dataset"]:
        relaxation_options.checked(trainer.config["task"])
        optim = trainer.config["optim"]
        optim.setdefault("batch_size", optim.get("eval_batch_size", 1))
    with swapped(base_trainer, "create_dataset", opened_data.open_data_set):
        fairchems()
    _read_with_rules(trainer)


def _read_with_rules(trainer: HostTrainer) -> None:
    for split, dataset in (
        ("train", trainer.train_dataset),
        ("val", trainer.val_dataset),
        ("test", trainer.test_dataset),
        ("relax", trainer._relax_dataset),
    ):
        if dataset is None:
            continue
        reopen_in_each_process(dataset)
        # of a validation set that nothing is trained beside, nobody may ask for labels
        trained = split == "val" and trainer.train_dataset is not None
        labels = _labels(trainer) if split == "train" or trained else {}
        form = trainer.config[_SPLITS[split]].get("format", trainer.config["dataset"].get("format"))
        rules = opened_data.rules_of(trainer._unwrapped_model, split, labels, form)
        rules = replace(rules, parts=_parts(trainer))
        read_with(dataset, rules)
        check_first_record(dataset, f"dataset.{split}")
        if split == "val":
            read_with(dataset, replace(rules, required=_labels(trainer)))


def sampler(
    trainer: HostTrainer,
    fairchems: Callable[..., Any],
    dataset: Any,
    batch_size: int,
    shuffle: bool,
) -> Any:
    """fairchem's for training; elsewhere each record once."""
    if dataset is not trainer.train_dataset:
        in_groups = gp_utils.initialized()
        return DealtBatches(
            len(dataset),
            batch_size,
            gp_utils.get_dp_rank() if in_groups else distutils.get_rank(),
            gp_utils.get_dp_world_size() if in_groups else distutils.get_world_size(),
            every_rank=dataset is trainer._relax_dataset,
        )
    optim = trainer.config["optim"]
    trainer.config["optim"] = load_balancing.prepared(dataset, optim)
    try:
        return fairchems(dataset, batch_size, shuffle)
    finally:
        trainer.config["optim"] = optim


def fit(trainer: HostTrainer, fairchems: Callable[[], None]) -> None:
    """fairchem's, which may fit them to the training set: its batches are checked too. Without
    a training set those of the config that need none: fairchem reads them all, also those that
    the checkpoint replaces, and fails where one is to be fitted."""
    if trainer.train_loader is not None:
        collater = _checking(trainer, base_trainer.data_list_collater, "train")
        failures = Failures()  # rank 0 reads and fits while the others wait for it
        with ExitStack() as stack:
            for module in (normalizer, element_references):
                stack.enter_context(swapped(module, "data_list_collater", collater))
            for name in ("load_references_from_config", "load_normalizers_from_config"):
                kept: Any = failures.kept(getattr(base_trainer, name), {})
                stack.enter_context(swapped(base_trainer, name, kept))
            fairchems()
        failures.raise_on_all(trainer.device)
        return
    read = partial(configured_references.read, trainer.config["dataset"])
    configured = on_master(read, trainer.device)
    for own, modules in (
        (trainer.normalizers, configured.normalizer),
        (trainer.elementrefs, configured.element_references),
    ):
        own.update({target: module.to(trainer.device) for target, module in modules.items()})


def loader(
    trainer: HostTrainer,
    fairchems: Callable[..., Any],
    dataset: Any,
    sampler: Any,
    workers: int | None,
) -> Any:
    """fairchem's; batches are checked as they are collated, and workers leave signals alone."""
    plain = trainer.collater
    names = {
        "train": trainer.train_dataset,
        "val": trainer.val_dataset,
        "test": trainer.test_dataset,
    }
    split = next((name for name, each in names.items() if each is dataset), "relax")
    trainer.collater = _checking(trainer, plain, split)
    trainer.config["optim"].setdefault("num_workers", 0)
    try:
        made = fairchems(dataset, sampler, workers)
        made = data_workers.with_start_method(made, trainer.config["optim"])
    finally:
        trainer.collater = plain
    made.worker_init_fn = signals.ignore_in_worker
    return made


def _checking(trainer: HostTrainer, collater: Any, split: str) -> CheckingCollater:
    periodic = opened_data.is_periodic(trainer._unwrapped_model)
    return CheckingCollater(collater, f"dataset.{split}", periodic)


def _labels(trainer: HostTrainer) -> dict[str, str]:
    """Level of each target that the loss needs in every record."""
    return {
        target: trainer.output_targets[target]["level"]
        for loss in trainer.config["loss_functions"]
        for target in loss
        if target in trainer.output_targets
    }


def _parts(trainer: HostTrainer) -> dict[str, str]:
    """Targets that are parts of a tensor -> the tensor."""
    targets = trainer.output_targets.items()
    return {name: target["parent"] for name, target in targets if target.get("parent")}
