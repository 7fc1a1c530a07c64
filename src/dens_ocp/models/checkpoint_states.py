"""Fits the state dict of a checkpoint to a DeNS model: names, fine-tuning starts, mismatches."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from dens_ocp.errors import DensError
from dens_ocp.models.denoising_model import DenoisingModel
from dens_ocp.models.parameter_names import head_of, is_buffer, is_constant, is_dens, translated

_ORIGINAL_TASK = ("energy", "forces")
"""What fairchem's hydra models call the heads that all models here have."""

_SEEN_IN_NUMBERS = (
    "max_radius", "cutoff", "max_neighbors", "enforce_max_neighbors_strictly", "avg_num_nodes",
    "avg_degree",
)  # fmt: skip
"""Options of the backbones that weights do not show in their shapes."""


@dataclass(frozen=True)
class FittedState:
    """Attributes:
    state_dict: under the model's names, complete.
    initialised: names that the checkpoint lacks, or whose values there are not taken over; they
        keep the model's initial values.
    given: the checkpoint's weights under our names, in its own order: that of the parameters of
        the model it is of.
    dropped: names among them that are not taken over.
    """

    state_dict: dict[str, torch.Tensor]
    initialised: tuple[str, ...]
    given: dict[str, torch.Tensor] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


def without_dens(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights without the modules of DeNS, which give the same energies and forces.

    Without an encoded force and with sigma = 0, a DeNS model adds the same vector to the l = 0
    coefficient of every atom: the bias of the force encoding and of the sigma encoding
    (``DeNSModel.predict``). The initial l = 0 coefficient is a row of ``sphere_embedding``, so the
    vector added to every row gives the same node embedding. Nothing else of DeNS is used in
    evaluation.

    Args:
        state: of a DeNS model on a fairchem backbone, or of one without DeNS; it stays as it is.
    """
    kept = {name: value for name, value in state.items() if not is_dens(name)}
    biases = [
        state[name]
        for name in ("force_embedding.bias", "noise_schedule_sigma_embedding.bias")
        if name in state
    ]
    if biases:
        atoms = kept["sphere_embedding.weight"]
        kept["sphere_embedding.weight"] = atoms + torch.stack(biases).sum(0).to(atoms)
    return kept


def other_options(trained: Any, options: Mapping[str, Any] | None) -> str:
    """The options of the model that a checkpoint was trained with and that the config gives another
    value, as they are written on a command line."""
    trained = trained.get("model") if isinstance(trained, Mapping) else None
    if not isinstance(trained, Mapping) or not options:
        return ""
    return " ".join(
        f"--model.{name}={value}".replace(" ", "")
        for name, value in trained.items()
        if name in options and options[name] != value and not isinstance(value, Mapping)
    )


def fit(
    model: torch.nn.Module, state_dict: dict[str, torch.Tensor], origin: str, repeat: str = ""
) -> FittedState:
    """Bring a checkpoint's state dict into the model's form.

    Args:
        model: the model, not wrapped in DDP.
        state_dict: of the authors' code, of fairchem's flat or hydra models, or our own.
        origin: the file's name, for messages.
        repeat: of :func:`other_options`.

    Raises:
        DensError: the checkpoint is of another architecture, or has other heads than the model.
    """
    own = model.state_dict()
    heads = tuple(getattr(model, "heads", ()))
    given = {
        translated(name, heads): value
        for name, value in state_dict.items()
        if not is_constant(name)
    }
    usable = model.start_from(given) if isinstance(model, DenoisingModel) else given
    if not (isinstance(model, DenoisingModel) and model.replaces_heads(given)):
        _check_heads(list(own), state_dict, heads, origin)
    dropped = [name for name in given if name not in usable]
    missing = [name for name in own if name not in usable]
    unexpected = [name for name in usable if name not in own]
    foreign = [name for name in missing if not is_dens(name) and name not in dropped]
    shapes = [
        f"{name}: {tuple(usable[name].shape)} in the checkpoint, "
        f"{tuple(own[name].shape)} in the model"
        for name in own
        if name in usable and usable[name].shape != own[name].shape
    ]
    if foreign or unexpected or shapes:
        found = [f"{name} is missing in the checkpoint" for name in foreign[:1]]
        found += [f"{name} is unknown to the model" for name in unexpected[:1]]
        raise DensError(
            f"checkpoint: {origin} has another architecture than the model of the config "
            f"({len(foreign)} parameters missing, {len(unexpected)} unknown, {len(shapes)} of "
            f"another shape; first: {(shapes + found)[0]}); give the `model` section that the "
            f"checkpoint was trained with{f', or repeat {repeat}' if repeat else ''}"
        )
    return FittedState(
        state_dict={name: usable.get(name, value) for name, value in own.items()},
        initialised=tuple(missing),
        given=given,
        dropped=tuple(dropped),
    )


def _check_heads(
    own: Collection[str], state_dict: Mapping[str, Any], asked: Collection[str], origin: str
) -> None:
    """Heads of further outputs are in the checkpoint and in ``model.heads``, or in neither.

    Args:
        own: names of the model. asked: ``model.heads``. state_dict, origin: of :func:`fit`.

    Raises:
        DensError: one is not.
    """
    given: dict[str, list[str]] = {}
    for name in state_dict:
        head = head_of(name)
        if head is not None and not is_constant(name):
            given.setdefault(head, []).append(name)
    original = {translated(name) for head in _ORIGINAL_TASK for name in given.get(head, ())}
    for head, names in given.items():
        if head in (*_ORIGINAL_TASK, *asked):
            continue
        # energy and forces may have heads of other names in a hydra model
        ours = {translated(name) for name in names}
        if ours <= set(own) - original:
            continue
        kind = "rank2_symmetric_head, decompose: True" if any("_MLP" in n for n in names) else "..."
        raise DensError(
            f"checkpoint: {origin} has a head {head!r}, but the model of the config has no head "
            "of this name; add it as in the config that the checkpoint was trained with, for "
            f"example model.heads: {{{head}: {{module: {kind}, output_name: {head}, ...}}}}, and "
            f"outputs.{head}"
        )
    for head in asked:
        if head not in given and any(name.startswith(f"heads.{head}.") for name in own):
            found = [each for each in given if each not in _ORIGINAL_TASK]
            raise DensError(
                f"model.heads.{head}: {origin} has no such head (in addition to energy and "
                f"forces it has {', '.join(found) or 'none'}); leave out model.heads.{head}, "
                f"outputs.{head} and their losses and metrics, or use a checkpoint that was "
                "trained with this head"
            )


def is_in_own_order(model: torch.nn.Module, state: FittedState) -> bool:
    """Whether the checkpoint is of a model with its parameters in the same order, by which averaged
    weights and the optimizer's state are stored. In fairchem's hydra models it is another.

    Args:
        model: the model, not wrapped in DDP. state: from :func:`fit`.
    """
    own = _trainable(model)
    return _trainable_in(state, model) == [name for name in own if name not in state.initialised]


def _trainable(model: torch.nn.Module) -> list[str]:
    return [
        # a state dict does not name the wrappers of activation checkpointing
        name.replace("_checkpoint_wrapped_module.", "")
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]


def _trainable_in(state: FittedState, model: torch.nn.Module) -> list[str]:
    """Names of trainable parameters in the order of the checkpoint."""
    trainable = {*_trainable(model), *(name for name in state.dropped if not is_buffer(name))}
    return [name for name in state.given if name in trainable]


def warn_of_another_scale(model: DenoisingModel, checkpoint: dict[str, Any], origin: str) -> None:
    """Say so when a checkpoint was trained with another ``force_encoding_scale`` than the model has
    (its config does not name it: 1), so that its force encoding sees other numbers.

    Args:
        model: the model, not wrapped in DDP.
        checkpoint: its whole content.
        origin: the file's name.
    """
    options = (checkpoint.get("config") or {}).get("model")
    if not isinstance(options, dict) or not options.get("use_force_encoding", True):
        return
    then = options.get("force_encoding_scale", 1.0)
    if then != model.force_encoding_scale:
        logging.warning(
            "%s was trained with model.force_encoding_scale: %g, but this config has %g; its "
            "force encoding was learned with the former",
            origin, then, model.force_encoding_scale,
        )  # fmt: skip


def warn_of_other_options(model: torch.nn.Module, checkpoint: dict[str, Any], origin: str) -> None:
    """Say so when a checkpoint's config names other neighbours or averages than the model has: the
    weights have the same shapes, and give other numbers.

    Args:
        model, checkpoint, origin: as of :func:`warn_of_another_scale`. The config's model is flat,
            hydra, or the authors' ``model_attributes``.
    """
    config = checkpoint.get("config") or {}
    options = config.get("model")
    options = options if isinstance(options, Mapping) else config.get("model_attributes") or {}
    options = options.get("backbone") or options
    found = [
        f"model.{name}: {options[name]} before, {getattr(model, name)} now"
        for name in _SEEN_IN_NUMBERS
        if options.get(name) is not None and getattr(model, name, options[name]) != options[name]
    ]
    if found:
        logging.warning(
            "%s was trained with other options than those of this config, so its results are "
            "different here: %s", origin, "; ".join(found),
        )  # fmt: skip


def averaged(model: DenoisingModel, state: FittedState, ema: dict[str, Any] | None) -> FittedState:
    """The state with its parameters replaced by the averaged ones (EMA) of the checkpoint.

    fairchem stores the average as a list in the order of the trainable parameters of the model
    that was trained, which is also that of the names in the checkpoint's state dict.

    Args:
        model: the model, not wrapped in DDP.
        state: from :func:`fit`.
        ema: the checkpoint's ``ema`` entry, or None.
    """
    if not ema or "shadow_params" not in ema:
        return state
    names = _trainable_in(state, model)
    shadow = ema["shadow_params"]
    if [p.shape for p in shadow] != [state.given[name].shape for name in names]:
        raise DensError(
            f"the checkpoint's averaged weights (EMA) do not belong to its model: {len(shadow)} "
            f"tensors for {len(names)} parameters; remove its `ema` entry to use the plain weights"
        )
    usable = model.start_from({**state.given, **dict(zip(names, shadow, strict=True))})
    return replace(state, state_dict={**state.state_dict, **usable})


def _modules(names: Collection[str]) -> str:
    return ", ".join(sorted({name.split(".")[0] for name in names}))


def _said(state: FittedState, evaluation: bool) -> str:
    """What was done to a checkpoint, for the log."""
    if state.dropped:
        found = f"has {_modules(state.dropped)}, which this model does not use"
        start = "it is the start of fine-tuning, at step 0"
    else:
        found, start = (
            "has no DeNS parameters",
            "it is the start of fine-tuning with DeNS, at step 0",
        )
    if evaluation:
        return f"{found}; they are not needed for evaluation"
    new = f"; initialised: {_modules(state.initialised)}" if state.initialised else ""
    return f"{found}; {start}{new}"


def _not_trained(state: FittedState, path: str) -> str:
    return (
        f"checkpoint: {path} was trained with direct forces, but the config has model.forces: "
        f"gradient and model.new_energy_head: True, so {_modules(state.initialised)} is not "
        "trained; evaluate a checkpoint of the run that starts from this checkpoint"
    )


def fitted(
    model: DenoisingModel,
    checkpoint: dict[str, Any],
    path: str,
    evaluation: bool,
    of_a_run: Collection[str],
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A whole checkpoint in the form of the model.

    In training a checkpoint without DeNS parameters, or with parameters in another order, is a
    start for fine-tuning: its (averaged) weights, at step 0.

    Args:
        model: not wrapped in DDP.
        checkpoint: the file's content. path: its name, for messages.
        evaluation: nothing is trained.
        of_a_run: entries that belong to a run and not to its weights.
        options: the section ``model`` of the config, for messages.

    Raises:
        DensError: it is of another architecture.
    """
    if model.keeps_names:
        return checkpoint
    repeat = other_options(checkpoint.get("config"), options)
    state = fit(model, checkpoint["state_dict"], path, repeat)
    warn_of_other_options(model, checkpoint, path)
    if not evaluation and not state.initialised:
        warn_of_another_scale(model, checkpoint, path)
    changed = bool(state.initialised or state.dropped)
    if not changed and is_in_own_order(model, state):
        return {**checkpoint, "state_dict": state.state_dict}
    if evaluation and any(not is_dens(name) for name in state.initialised):
        raise DensError(_not_trained(state, path))
    if changed:
        logging.warning("%s %s", path, _said(state, evaluation))
    elif not evaluation:
        logging.warning(
            "%s is from a model of fairchem-core with its parameters in another order; it is the "
            "start of fine-tuning with DeNS, at step 0",
            path,
        )
    state = averaged(model, state, checkpoint.get("ema"))
    kept = {name: value for name, value in checkpoint.items() if name not in of_a_run}
    return {**kept, "state_dict": state.state_dict}
