"""``optim``: optimizer, learning rate, schedule, batches, checkpoints."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import torch

from dens_ocp.dens.options import chosen, is_missing, mapping, need, read
from dens_ocp.errors import DensError
from dens_ocp.settings.sections import signatures
from dens_ocp.settings.sections.optim_options import LambdaSchedule, Optim

NO_SCHEDULER = "Null"
"""fairchem's word for a constant learning rate."""

_SCHEDULE = (
    "scheduler: LambdaLR and scheduler_params: {lambda_type: cosine, warmup_factor: 0.2, "
    "warmup_epochs: 0.1, lr_min_factor: 0.01}"
)


_NEEDED = {
    "cosine": ("warmup_factor", "warmup_epochs", "lr_min_factor"),
    "multistep": ("warmup_factor", "warmup_epochs", "decay_epochs", "decay_rate"),
}


def checked(block: Any, where: str = "optim") -> dict[str, Any]:
    """The section, typed.

    Raises:
        DensError: an unknown name or value, an optimizer or a schedule that cannot be made.
    """
    block = dict(mapping(block, where))
    if "scheduler" in block and is_missing(block["scheduler"]):
        block["scheduler"] = NO_SCHEDULER
    scheduler = _class(block, "scheduler", where, _schedulers())
    of_scheduler = [
        name for name in (signatures.parameters(scheduler) if scheduler else ())
        if name not in ("optimizer", *Optim.model_fields)
    ]  # fmt: skip
    optim = read(Optim, block, where, also=of_scheduler)
    if block.get("scheduler") == NO_SCHEDULER:
        optim["scheduler"] = NO_SCHEDULER
    if optim.get("checkpoint_every", 1) != -1 and optim.get("checkpoint_every", 1) < 1:
        raise DensError(
            f"{where}.checkpoint_every: {optim['checkpoint_every']!r} must be a number of steps, 1 "
            "or more, or -1 for the end of each epoch"
        )
    if optim.get("grad_accumulation_steps", 1) != 1:
        raise DensError(
            f"{where}.grad_accumulation_steps: {optim['grad_accumulation_steps']}: fairchem-core "
            "1.10.0 cannot accumulate gradients; use a larger batch_size or more GPUs"
        )
    if optim.get("load_pretrained_weights"):
        raise DensError(
            f"{where}.load_pretrained_weights: {optim['load_pretrained_weights']}: to start from "
            "the weights of a checkpoint, give --checkpoint PATH; remove the option"
        )
    if optim.get("use_compile"):
        logging.warning(
            "%s.use_compile: this package does not compile models; the results are the same", where
        )
    if "dens" in optim:
        optim["dens"] = _without_words(optim["dens"])
    if "denoising_pos_params" in optim:
        optim["denoising_pos_params"] = _without_words(optim["denoising_pos_params"])
    _read_optimizer(optim, where)
    _read_schedule(optim, scheduler, of_scheduler, where)
    return optim


def needed_for_training(optim: Mapping[str, Any], where: str = "optim") -> None:
    """Make sure that what training asks for is there.

    Args:
        optim: the section, checked.
        where: its name, for messages.

    Raises:
        DensError: an option without a default is missing, or the schedule cannot be made.
    """
    need(optim, ("lr_initial", "max_epochs"), Optim, where)
    name = optim.get("scheduler")
    if name == "LambdaLR":
        _check_lambda(optim, where)
    elif name is None:
        _check_milestones(optim, where)
    elif name != NO_SCHEDULER:
        in_params = "scheduler_params" in optim
        given = optim["scheduler_params"] if in_params else optim
        for option in signatures.missing(given, _schedulers()[name], "optimizer"):
            place = f"{where}.scheduler_params" if in_params else where
            raise DensError(f"{place}.{option} is missing: {where}.scheduler: {name} needs it")


def _without_words(block: Any) -> Any:
    """``std_low: None`` is YAML's string ``"None"``; it says nothing."""
    if not isinstance(block, Mapping):
        return block
    return {name: None if is_missing(value) else value for name, value in block.items()}


# ---- optimizer and schedule --------------------------------------------------------------------


def _read_optimizer(optim: dict[str, Any], where: str) -> None:
    optimizers = {
        name: each for name, each in vars(torch.optim).items()
        if isinstance(each, type) and issubclass(each, torch.optim.Optimizer)
    }  # fmt: skip
    optimizer = _class(optim, "optimizer", where, optimizers) or torch.optim.AdamW
    if "optimizer_params" not in optim:
        return
    inside = f"{where}.optimizer_params"
    given = mapping(optim["optimizer_params"], inside, "{weight_decay: 0.001}")
    if "lr" in given:
        raise DensError(
            f"{inside}.lr: the learning rate is given by {where}.lr_initial; remove this option"
        )
    for name, value in given.items():
        if name == "weight_decay" and is_missing(value):
            raise DensError(
                f"{inside}.weight_decay: {value!r} is not a number; write 0 for no weight decay"
            )
    optim["optimizer_params"] = signatures.typed(given, optimizer, inside)


def _read_schedule(
    optim: dict[str, Any], scheduler: type | None, of_scheduler: list[str], where: str
) -> None:
    name, inside = optim.get("scheduler"), f"{where}.scheduler_params"
    if scheduler is not None:
        here = {key: optim[key] for key in of_scheduler if key in optim}
        optim |= signatures.typed(here, scheduler, where)
    if "scheduler_params" in optim:
        block = mapping(optim["scheduler_params"], inside, "{lambda_type: cosine, ...}")
        own = [each for each in block if each in of_scheduler and each not in ("lr", "epochs")]
        lambdas = {key: value for key, value in block.items() if key not in own}
        params = read(
            LambdaSchedule, lambdas, inside, also=of_scheduler, others=name == NO_SCHEDULER
        )
        if own:
            params |= signatures.typed({key: block[key] for key in own}, scheduler, inside)
        optim["scheduler_params"] = {key: params[key] for key in block if key in params}
        if name is None and "lambda_type" in params:
            optim["scheduler"] = "LambdaLR"


def _check_lambda(optim: Mapping[str, Any], where: str) -> None:
    if not optim.get("scheduler_params"):
        raise DensError(f"{where}.scheduler_params is missing; write for example {_SCHEDULE}")
    params, inside = optim["scheduler_params"], f"{where}.scheduler_params"
    if "lambda_type" not in params:
        raise DensError(f"{inside}.lambda_type is missing; write cosine or multistep")
    kind = params["lambda_type"]
    need(params, _NEEDED[kind], LambdaSchedule, inside, f": lambda_type: {kind} needs it")


def _check_milestones(optim: Mapping[str, Any], where: str) -> None:
    """fairchem's schedule of old configs counts in steps (``common/utils.py:131``)."""
    milestones = optim.get("lr_milestones")
    if not milestones:
        return
    if any(step < 100 for step in milestones) or "warmup_epochs" in optim:
        given = "warmup_epochs" if "warmup_epochs" in optim else f"lr_milestones: {milestones}"
        raise DensError(
            f"{where}.{given}: fairchem counts lr_milestones and warmup_steps in steps, not "
            f"epochs; give steps, or write for epochs {where}.scheduler: LambdaLR and "
            "scheduler_params: {lambda_type: multistep, warmup_factor: 0.2, warmup_epochs: 0.1, "
            f"decay_epochs: {[each for each in milestones if each < 100] or [10]}, decay_rate: "
            "0.3}"
        )
    why = f": {where}.lr_milestones needs it"
    need(optim, ("lr_gamma", "warmup_steps"), Optim, where, why)
    if optim["warmup_steps"] > 0:
        need(optim, ("warmup_factor",), Optim, where, why)


def _class(
    block: dict[str, Any], option: str, where: str, known: Mapping[str, type]
) -> type | None:
    """The class that an option names; its name is put in order."""
    name = block.get(option)
    if is_missing(name) and name != NO_SCHEDULER:
        block.pop(option, None)
        return None
    words = (*known, NO_SCHEDULER) if option == "scheduler" else known
    block[option] = chosen(name, words, f"{where}.{option}")
    return known.get(block[option])


def _schedulers() -> dict[str, type]:
    module = torch.optim.lr_scheduler
    return {
        name: each for name, each in vars(module).items()
        if inspect.isclass(each) and issubclass(each, module.LRScheduler)
        and not name.startswith("_") and each is not module.LRScheduler
    }  # fmt: skip
