"""Validations, predictions and relaxations of a trainer: fairchem's, right and repeatable.

Each function says which trap of fairchem it removes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from fairchem.core.common import distutils, gp_utils
from fairchem.core.modules.evaluator import Evaluator
from fairchem.core.modules.scaling.util import ensure_fitted
from fairchem.core.trainers import ocp_trainer
from torch.utils.data import DataLoader
from torch_geometric.data import Batch
from tqdm import tqdm

from dens_ocp.data import dataset_reference, opened_data
from dens_ocp.data.records import record_ids
from dens_ocp.errors import DensError
from dens_ocp.launch.agreement import on_master
from dens_ocp.launch.steps import Stepwise, UnequalLoops, most_batches
from dens_ocp.patched import swapped
from dens_ocp.relaxation import relaxation_options, trajectories, whole_results
from dens_ocp.relaxation.dealt_batches import WaitingLoader, patient_group
from dens_ocp.relaxation.relaxing import RelaxationEvaluator, relax_or_read
from dens_ocp.relaxation.unusable_results import Unusable
from dens_ocp.training.losses import of_this_rank, total
from dens_ocp.training.metric_errors import Sums, metric_name

if TYPE_CHECKING:
    from dens_ocp.training.fairchem_trainer import HostTrainer

_RELAXED_LABELS = ("energy_relaxed", "pos_relaxed")


@contextmanager
def on_its_own(trainer: HostTrainer) -> Iterator[None]:
    """No rank waits for another inside: they may have different numbers of batches.

    DDP's forward is a meeting of all ranks, and so is the mean of a loss.
    """
    with (
        swapped(trainer, "model", trainer._unwrapped_model),
        swapped(trainer, "loss_functions", of_this_rank(trainer.loss_functions)),
    ):
        yield


@contextmanager
def averaged_weights(trainer: HostTrainer) -> Iterator[None]:
    """The model has its averaged weights (EMA), if there are any, inside the context.

    ``predict`` of one batch, which each step of a relaxation is, leaves them in the model for
    good (``trainers/ocp_trainer.py:528``): training went on from the average after the first
    relaxation.
    """
    ema = trainer.ema
    if ema is None:
        yield
        return
    ema.store()
    ema.copy_to()
    try:
        with swapped(trainer, "ema", None):
            yield
    finally:
        ema.restore()


def say_what_is_unusable(trainer: HostTrainer, unusable: Unusable, hint: str = "") -> None:
    """In training as a warning."""
    parameters = trainer._unwrapped_model.named_parameters()
    unusable.report(parameters, fatal=not trainer.in_training, hint=hint)


# ---- validation --------------------------------------------------------------------------------


@torch.no_grad()
def validate(trainer: HostTrainer, split: str, disable_tqdm: bool) -> dict[str, Any]:
    """Metrics of a data set in which each record counts once, for any number of ranks.

    fairchem counts the records twice that its sampler repeats, and waits for the device at each
    batch.

    Args:
        split: ``val`` or ``test``.

    Returns:
        Name -> ``metric``, ``total``, ``numel``, of all ranks.

    Raises:
        StopTraining: in training, at a signal between two batches.
        DensError: no structure has finite results (in training, a warning).
    """
    ensure_fitted(trainer._unwrapped_model, warn=True)
    if distutils.is_master():
        logging.info("Evaluating on %s.", split)
    asked = trainer.evaluation_metrics.get("metrics") or {}
    evaluator = Evaluator(task=trainer.name, eval_metrics=asked)
    loader = trainer.val_loader if split == "val" else trainer.test_loader
    unusable, sums, rank = Unusable(f"dataset.{split}"), Sums(), distutils.get_rank()
    trainer.model.eval()
    with (
        on_its_own(trainer),
        averaged_weights(trainer),
        swapped(trainer, "unusable", unusable),
        tqdm(total=len(loader), position=rank, desc=f"device {rank}", disable=disable_tqdm) as bar,
    ):
        for batch in Stepwise(loader, trainer.may_stop):
            outputs = trainer._forward(batch)
            terms = trainer.loss_terms(outputs, batch)
            sums.add(trainer.step_errors(outputs, batch, terms, total(terms.values()), evaluator))
            bar.update()
    metrics = trainer._aggregate_metrics(sums.fetch())
    say_what_is_unusable(trainer, unusable)
    names = [metric_name(target, each) for target, functions in asked.items() for each in functions]
    missing = [name for name in names if name not in metrics]
    if missing and distutils.is_master():
        logging.warning(
            "dataset.%s: %s: there is nothing to compute them from; fixed atoms do not count "
            "unless outputs.forces.eval_on_free_atoms is False",
            split,
            ", ".join(missing),
        )
    return metrics


def say_metrics(trainer: HostTrainer, split: str, metrics: dict[str, Any]) -> None:
    """fairchem's line of a validation beside training, and its logger's entry; on rank 0."""
    if not distutils.is_master():
        return
    values = {name: each["metric"] for name, each in metrics.items()} | {"epoch": trainer.epoch}
    logging.info("%s", ", ".join(f"{name}: {value:.4f}" for name, value in values.items()))
    if trainer.logger is not None:
        trainer.logger.log(values, step=trainer.step, split=split)


# ---- predictions -------------------------------------------------------------------------------


def predict(
    trainer: HostTrainer,
    fairchems: Callable[..., Any],
    data_loader: Any,
    per_image: bool,
    results_file: str | None,
    disable_tqdm: bool,
) -> Any:
    """fairchem's; ``save_results`` learns what was predicted. A calculator gets total energies,
    in float64, where the training set's had a reference. In training a signal breaks it off between
    two batches.

    Args:
        fairchems: its ``predict``; the others are its arguments.

    Raises:
        DensError: an element that the model has no embedding for.
    """
    batches = isinstance(data_loader, DataLoader)
    trainer.predicted = data_loader.dataset if batches else None
    if isinstance(data_loader, Batch):  # of a calculator; records are checked as they are read
        opened_data.check_elements(trainer._unwrapped_model, data_loader.atomic_numbers)
    questions = most_batches(data_loader) if trainer.in_training and batches else 0
    with (
        swapped(trainer, "questions_left", questions),
        averaged_weights(trainer),
        on_its_own(trainer),
    ):
        predictions = fairchems(data_loader, per_image, results_file, disable_tqdm)
    reference = trainer.dataset_reference
    if reference is not None and not per_image and "energy" in predictions:
        energy = predictions["energy"].double()
        subtracted = dataset_reference.energies(reference, data_loader)
        predictions["energy"] = energy + subtracted.to(energy.device).view(-1, 1)
    return predictions


def save_results(
    trainer: HostTrainer,
    fairchems: Callable[..., None],
    predictions: dict[str, Any],
    results_file: str | None,
    keys: Any,
) -> None:
    """Write a prediction file, whole, with a prediction for every record.

    Args:
        fairchems: its ``save_results``; the others are its arguments.

    Raises:
        DensError: two records have one id, or no prediction is finite (in training, a warning).
    """
    while trainer.questions_left:  # another rank has more batches
        trainer.ask()
    if results_file is None:
        return
    if trainer.predicted is not None:
        ids = record_ids.gathered(predictions["ids"])
        try:
            record_ids.check_unique(ids, trainer.predicted, "dataset.test")
        except DensError as error:
            if not trainer.in_training:
                raise
            logging.warning("%s", error)
    unusable = Unusable("dataset.test")
    unusable.look_at_predictions(predictions)
    say_what_is_unusable(
        trainer, unusable,
        "; the largest float16 number is 65504, so set task.prediction_dtype: float32",
    )  # fmt: skip
    with whole_results.whole_results(trainer.config["cmd"]):
        fairchems(predictions, results_file, keys)


# ---- relaxations -------------------------------------------------------------------------------


def run_relaxations(trainer: HostTrainer, fairchems: Callable[[], None]) -> dict[str, Any]:
    """Relax ``dataset.relax``, or go on where a run was stopped.

    Systems with a finished trajectory are read from it, so the file of relaxed positions and
    the metrics cover all (fairchem leaves them out, and fails if none is left). In training
    (``task.eval_relaxations``) each validation has a folder ``step_N`` in ``traj_dir``.

    Args:
        fairchems: its ``run_relaxations``.

    Returns:
        IS2RE and IS2RS metrics by name; none without ``energy_relaxed`` and ``pos_relaxed``.

    Raises:
        StopTraining: in training, at a signal between two batches.
        DensError: a mistake in ``task.relax_opt``; two systems with one sid; trajectories of
            another checkpoint or of other settings in ``traj_dir``; no structure has finite
            results (in training, a warning).
    """
    dataset = trainer.relax_dataset
    task = relaxation_options.checked(trainer.config["task"])
    options = task["relax_opt"]
    if trainer.in_training and "traj_dir" in options:
        options["traj_dir"] = options["traj_dir"] / f"step_{trainer.step}"
    _say_which_labels_are_missing(dataset[0])
    _check_system_ids(trainer, dataset)
    if trainer.patient_group is None:
        trainer.patient_group = patient_group()
    limit = task.pop("num_relaxation_batches", None)
    relax_loader: Any = trainer.relax_loader
    wait: Callable[[], None] = partial(_barrier, trainer.patient_group)
    if trainer.in_training:
        loops = UnequalLoops(trainer.device)
        relax_loader, wait = Stepwise(relax_loader, loops.check), loops.wait
    kept: dict[str, Any] = {}
    unusable = Unusable("dataset.relax")
    with ExitStack() as stack:
        stack.enter_context(averaged_weights(trainer))
        stack.enter_context(on_its_own(trainer))
        if "traj_dir" in options:
            _claim(trainer, task, len(dataset) if limit is None else None)
        relax = partial(
            relax_or_read,
            reuse=not trainer.in_training,
            unusable=unusable,
            record=not gp_utils.initialized() or gp_utils.get_gp_rank() == 0,
        )
        for owner, name, value in (
            (trainer, "config", {**trainer.config, "task": task}),
            (trainer, "relax_loader", WaitingLoader(relax_loader, limit, wait)),
            (ocp_trainer, "ml_relax", relax),
            (ocp_trainer, "check_traj_files", lambda batch, traj_dir: False),
            (ocp_trainer, "Evaluator", partial(RelaxationEvaluator, kept)),
        ):
            stack.enter_context(swapped(owner, name, value))
        stack.enter_context(whole_results.whole_results(trainer.config["cmd"]))
        fairchems()
        say_what_is_unusable(trainer, unusable)
    metrics = trainer._aggregate_metrics(
        {f"{task}_{name}": each for task in kept for name, each in kept[task].items()}
    )
    if metrics and distutils.is_master():
        shown = ", ".join(f"{name}: {metrics[name]['metric']:.4f}" for name in metrics)
        systems = int(metrics["is2re_energy_mae"]["numel"])
        logging.info("Relaxations of %d systems: %s", systems, shown)
    return metrics


def _barrier(group: Any) -> None:
    if group is not None:
        torch.distributed.barrier(group)


def _claim(trainer: HostTrainer, task: dict[str, Any], systems: int | None) -> None:
    """The folder of trajectories is this run's; all ranks fail if it is not."""

    def claim() -> None:
        modules = {**trainer.normalizers, **trainer.elementrefs}
        weights = trajectories.weights_digest(trainer._unwrapped_model, modules)
        settings = {"weights": weights, **relaxation_options.fingerprint(task)}
        folder = task["relax_opt"]["traj_dir"]
        trajectories.claim(folder, settings, trainer.in_training, systems)

    on_master(claim, trainer.device)


def _check_system_ids(trainer: HostTrainer, dataset: Any) -> None:
    """Each system has a trajectory of its own."""
    if trainer.system_ids_are_unique:
        return
    mine = [index for batch in trainer.relax_sampler for index in batch]
    ids = record_ids.gathered(
        [record_ids.record_id(dataset[index], with_fid=False) for index in mine]
    )
    record_ids.check_unique(ids, dataset, "dataset.relax")
    trainer.system_ids_are_unique = True


def _say_which_labels_are_missing(record: Any) -> None:
    missing = [name for name in _RELAXED_LABELS if getattr(record, name, None) is None]
    if missing and distutils.is_master():
        logging.warning(
            "dataset.relax has no %s, so there are no metrics; if the label has another name, "
            "give dataset.relax.key_mapping: {NAME: %s}",
            " and no ".join(missing),
            missing[0],
        )
