"""What is chosen for the machine at the start of a run, for all ranks and for resumes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from fairchem.core.common import distutils, gp_utils

from dens_ocp.models.fast import choice
from dens_ocp.models.fast.operations import matrix_products
from dens_ocp.patched import swapped
from dens_ocp.training import step_randomness

if TYPE_CHECKING:
    from dens_ocp.training.fairchem_trainer import HostTrainer


def settle(trainer: HostTrainer, batch: Any) -> None:
    """Before the first step of a run: on a GPU time the forward and backward of its batch in both
    forms; on a CPU note which library multiplies its matrices.

    Ranks add up their seconds, so all take the same form. A run that goes on takes the choice of
    the run that wrote the checkpoint, if that was on the same kind of device: a resumed run repeats
    the uninterrupted one. Ranks of a graph-parallel group, which wait for each other within a
    forward, take the fast form without a trial.

    Args:
        trainer: ready for the step. batch: on the CPU; it stays as it is.
    """
    checkpoints, device = trainer.checkpoints, trainer.device
    if checkpoints.form is not None:
        return
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    kept = checkpoints.restored_form or {}
    if kept.get("device") != name:
        kept = {}
    checkpoints.form = {"device": name}
    if device.type == "cpu":
        if "onednn" in kept:
            matrix_products.take_onednn(kept["onednn"])
        checkpoints.form["onednn"] = matrix_products.takes_onednn()
    model = trainer._unwrapped_model
    if choice.is_timed(model, device):
        model.form_is_open = False
        if "fast" in kept:
            fast = kept["fast"]
        else:
            fast = gp_utils.initialized() or _measured(trainer, model, batch)
        model.take_form(fast)
        checkpoints.form["fast"] = fast


def _measured(trainer: HostTrainer, model: Any, batch: Any) -> bool:
    parameters = [each for each in model.parameters() if each.requires_grad]

    def forward_and_backward() -> None:
        step_randomness.seed_step(trainer.seed, distutils.get_rank(), trainer.step)
        own = copy.copy(batch)
        outputs = trainer._forward(own)
        loss = trainer.whole_loss(trainer.loss_terms(outputs, own))
        torch.autograd.grad(loss, parameters, allow_unused=True)

    # without DDP, whose ranks would wait for each other
    with _outputs_noted(trainer, model), swapped(trainer, "model", model):
        own = choice.seconds(model, forward_and_backward, trainer.device)
    total = distutils.all_reduce(list(own), device=trainer.device)
    fast, stock = (float(each) / distutils.get_world_size() for each in total)
    logging.info(choice.said(fast, stock))
    return fast <= stock


@contextmanager
def _outputs_noted(trainer: HostTrainer, model: torch.nn.Module) -> Iterator[None]:
    """As the trainer notes them of the model that it trains."""
    if model is trainer.model:
        yield
        return
    hook = model.register_forward_hook(trainer._note_outputs)
    try:
        yield
    finally:
        hook.remove()
