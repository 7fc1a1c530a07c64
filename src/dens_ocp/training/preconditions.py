"""What training asks of config and data, each with the words to say when it is not there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from dens_ocp.errors import DensError
from dens_ocp.registration import MODELS_IN_WORDS
from dens_ocp.training.metric_errors import metric_name

NO_BLOCK = (
    "the trainer is dens, but the config has no optim.dens block; add for example "
    "dens: {p: 0.5, r: 0.5, sigma: 0.1, coefficient: 10}, or enabled: false to train without DeNS"
)


def check_targets(outputs: Collection[str], losses: Collection[str]) -> None:
    """Forces are an output and have a loss: noise is predicted, and trained, in their place.

    Args:
        outputs: names in ``outputs``. losses: names in ``loss_functions``.

    Raises:
        DensError: they are not, or have none.
    """
    if "forces" not in outputs:
        raise DensError(
            "outputs: DeNS predicts noise in place of forces, but the config has no output "
            "`forces`; add forces: {level: atom, train_on_free_atoms: True, eval_on_free_atoms: "
            "True}"
        )
    if "forces" not in losses:
        raise DensError(
            "loss_functions: DeNS trains noise with the force loss, but there is none; add - "
            "forces: {fn: l2mae, coefficient: 100}, or set optim.dens.enabled: false"
        )


def check_model(name: str, has_noise_head: bool, could_have_one: bool) -> None:
    """The model has a noise head.

    Args:
        name: of the model. has_noise_head: it has. could_have_one: it is a model of ours.

    Raises:
        DensError: it has none.
    """
    if has_noise_head:
        return
    if could_have_one:
        name = f"{name} with use_noise_head: False"
    raise DensError(
        f"model.name: {name} has no noise head and no force encoding, so DeNS cannot train "
        f"it; use {MODELS_IN_WORDS}, one that follows the authors' contract "
        "(docs/models.md), or set optim.dens.enabled: false"
    )


def check_energies(left_out: Collection[str]) -> None:
    """A model gives the energy (or stress) of structures in one batch with DeNS structures.

    Args:
        left_out: what it does not give.

    Raises:
        DensError: it does not, and each structure is chosen for itself.
    """
    if left_out:
        raise DensError(
            "optim.dens.choice: structure: if an atom is corrupted, the model leaves out the "
            f"{', '.join(left_out)} of the whole batch, also for structures that are not "
            "corrupted; set optim.dens.choice: batch"
        )


def check_normalizers(normalizers: Collection[str], gradient_forces: bool) -> None:
    """Forces are normalised.

    Args:
        normalizers: names of targets that have one.
        gradient_forces: the model's forces are gradients of its energy.

    Raises:
        DensError: they are not.
    """
    if "forces" in normalizers:
        return
    if gradient_forces:
        raise DensError(
            "dataset.train.transforms.normalizer.energy is missing: it is also the scale of the "
            "forces, which are gradients of the energy; give fit: {targets: {energy: {}}, "
            "batch_size: 8}, or mean and stdev in eV"
        )
    raise DensError(
        "dataset.train.transforms.normalizer.forces is missing: DeNS adds the loss of noise in "
        "units of sigma to that of normalised forces; give mean: 0.0 and stdev: (the standard "
        "deviation of the forces in eV/Angstrom), or let fairchem fit it"
    )


def check_free_atoms_of_train(
    dataset: Any, outputs: Mapping[str, Any], losses: list[dict[str, Any]]
) -> None:
    """A loss of free atoms has some.

    Args:
        dataset: the training set. outputs: the trainer's targets. losses: ``loss_functions``.

    Raises:
        DensError: no record has a free atom; all are read then, else one as a rule.
    """
    names = {name for loss in losses for name in loss}
    asked = [name for name in names if _of_free_atoms(outputs, name, "train_on_free_atoms")]
    if asked and not _any_free(dataset):
        raise DensError(
            f"dataset.train: none of the atoms of its {len(dataset)} records is free (fixed: 0), "
            f"so the model cannot learn {asked[0]}; correct `fixed` in the records, or set "
            f"outputs.{asked[0]}.train_on_free_atoms: False to train on fixed atoms too"
        )


def check_free_atoms_of_val(
    dataset: Any, outputs: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> None:
    """The metric that chooses the best checkpoint can be computed.

    Args:
        dataset: the validation set. outputs: the trainer's targets.
        evaluation: ``evaluation_metrics``.

    Raises:
        DensError: it is a metric of free atoms, and no record has one.
    """
    primary = evaluation["primary_metric"]
    for target, functions in evaluation["metrics"].items():
        if primary not in {metric_name(target, function) for function in functions}:
            continue
        if _of_free_atoms(outputs, target, "eval_on_free_atoms") and not _any_free(dataset):
            raise DensError(
                f"dataset.val: none of the atoms of its {len(dataset)} records is free (fixed: 0), "
                f"so evaluation_metrics.primary_metric: {primary} cannot be computed; take "
                f"another validation set or another metric (energy_mae), or set "
                f"outputs.{target}.eval_on_free_atoms: False to count fixed atoms too"
            )


def _of_free_atoms(outputs: Mapping[str, Any], target: str, option: str) -> bool:
    options = outputs.get(target) or {}
    return options.get("level") == "atom" and bool(options.get(option))


def _any_free(dataset: Any) -> bool:
    return any(
        bool((torch.as_tensor(dataset[index].fixed) == 0).any()) for index in range(len(dataset))
    )
