"""The options of ``optim`` and of its ``scheduler_params``."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from dens_ocp.dens.options import FairchemSection, choice, one_of
from dens_ocp.settings.sections.values import (
    Decimal,
    DecimalOrOff,
    Flag,
    Number,
    NumberOrOff,
    Numbers,
    Whole,
    flag,
)


def _balancing(value: Any) -> str | bool:
    try:
        return "atoms" if flag(value) else False
    except ValueError:
        pass
    word = choice(value, ("atoms", "neighbors"))
    if word == "neighbors":
        logging.warning(
            "optim.load_balancing: neighbors: fairchem-core 1.10.0 balances the number of atoms "
            "instead"
        )
    return "atoms"


class Optim(FairchemSection):
    """What fairchem-core 1.10.0 and this package read of ``optim``; the last block is known from
    published configs and has no effect."""

    batch_size: Whole = Field(
        1, ge=1, examples=[4], description="structures per batch and rank in training"
    )
    eval_batch_size: Whole = Field(
        1,
        ge=1,
        examples=[4],
        description="structures per batch and rank in evaluation (default: batch_size)",
    )
    num_workers: Whole = Field(
        0, ge=0, examples=[8], description="number of data workers of each rank"
    )
    load_balancing: Annotated[str | bool, BeforeValidator(_balancing)] = Field(
        "atoms",
        description="atoms: the batches of the ranks get similar numbers of atoms (without "
        "metadata.npz all records are read first, to count them); False: do not balance",
    )
    load_balancing_on_error: one_of("warn_and_balance", "warn_and_no_balance", "raise") = Field(
        "raise",
        description="what to do without metadata.npz: raise (count the atoms before training), "
        "warn_and_balance (count them batch by batch, slow) or warn_and_no_balance",
    )
    lr_initial: Decimal = Field(
        0.0, ge=0, examples=[0.0002], description="learning rate after the warm-up"
    )
    optimizer: Any = Field(None, description="class of torch.optim (default: AdamW)")
    optimizer_params: Any = Field(
        None, description="arguments of the optimizer, for example {weight_decay: 0.001}"
    )
    weight_decay: Number = Field(
        0,
        ge=0,
        examples=[0.001],
        description="older configs: weight decay; use optimizer_params.weight_decay",
    )
    scheduler: Any = Field(
        None,
        description="schedule of the learning rate: LambdaLR, a class of "
        "torch.optim.lr_scheduler, or Null for a constant learning rate",
    )
    scheduler_params: Any = Field(None, description="arguments of the schedule")
    max_epochs: Whole = Field(0, ge=0, examples=[12], description="number of epochs")
    clip_grad_norm: NumberOrOff = Field(
        0,
        ge=0,
        examples=[100],
        description="largest norm of the gradient; larger gradients are scaled down; 0 or False: "
        "do not clip",
    )
    ema_decay: DecimalOrOff = Field(
        0.0,
        ge=0,
        le=1,
        examples=[0.999],
        description="decay of the averaged weights (EMA); 0 or False: do not average",
    )
    eval_every: Whole = Field(
        1, ge=1, examples=[5000], description="steps between validations (default: one epoch)"
    )
    checkpoint_every: Whole = Field(
        1,
        examples=[5000],
        description="steps between checkpoints; -1: at the end of each epoch (default: eval_every)",
    )
    checkpoint_format: one_of("pt", "dcp") = Field(
        "pt",
        description="format of the checkpoint that fairchem-core looks for at a resume: pt or "
        "dcp; this package writes pt",
    )
    load_datasets_and_model_then_exit: Flag = Field(
        False, description="build the data sets and the model, then stop; for tests of a config"
    )
    # fairchem's schedule without scheduler_params
    lr_gamma: Number = Field(
        1,
        ge=0,
        examples=[0.3],
        description="schedule in steps: factor of the learning rate at each of lr_milestones",
    )
    lr_milestones: Numbers = Field(
        [],
        examples=["[145833, 187500]"],
        description="schedule in steps: steps at which the learning rate is lowered",
    )
    warmup_steps: Number = Field(
        0, examples=[100], description="schedule in steps: steps of the warm-up"
    )
    warmup_factor: Number = Field(
        0,
        ge=0,
        examples=[0.2],
        description="schedule in steps: factor of the learning rate at the first step",
    )
    warmup_epochs: Number = Field(
        0, ge=0, description="an error outside scheduler_params; use warmup_steps"
    )
    # losses of configs before version 2
    loss_energy: str = Field(
        "mae", description="older configs: loss of the energy; use loss_functions"
    )
    loss_forces: str = Field(
        "l2mae", description="older configs: loss of the forces; use loss_functions"
    )
    energy_coefficient: Number = Field(
        1, ge=0, description="older configs: weight of the energy loss; use loss_functions"
    )
    force_coefficient: Number = Field(
        1, ge=0, description="older configs: weight of the force loss; use loss_functions"
    )
    # this package
    dens: Any = Field(
        None, description="options of DeNS, or auto to pick them from the training set"
    )
    use_denoising_pos: Flag = Field(False, description="the authors' spelling of dens.enabled")
    denoising_pos_params: Any = Field(
        None, description="the authors' spelling of p, r, sigma and others of dens"
    )
    denoising_pos_coefficient: Number = Field(
        10, ge=0, examples=[10], description="the authors' spelling of dens.coefficient"
    )
    keep_checkpoints: Whole = Field(
        2,
        ge=1,
        examples=[2],
        description="number of checkpoints to keep: checkpoint.pt and those before it",
    )
    non_finite: one_of("stop", "skip") = Field(
        "stop",
        description="what to do if the loss or a gradient is NaN or infinite; no rank takes the "
        "step in either case. stop: end the run; skip: leave out the batch",
    )
    amp_dtype: one_of("float16", "bfloat16") = Field(
        "float16",
        description="number format of mixed precision (--amp, on a GPU): float16 with a scaler "
        "of the loss, as in fairchem-core, or bfloat16 without a scaler",
    )
    worker_start_method: str = Field(
        "fork",
        description="how data workers are started: fork, spawn or forkserver (default: Python's, "
        "fork on Linux)",
    )
    eval_each_epoch: Flag = Field(
        False,
        description="also validate at the end of each epoch, as the authors' OC20 code does",
    )
    ddp_find_unused_parameters: Flag = Field(
        False,
        description="search for parameters without gradient at each step; makes a resume on CPUs "
        "exact to the last bit with any number of ranks, but costs time (default: True on CPUs, "
        "False on GPUs)",
    )
    # without effect
    loss_force: str = Field("", description="known from published configs; without effect")
    loss_position: str = Field("", description="known from published configs; without effect")
    position_coefficient: Number = Field(
        0, description="known from published configs; without effect"
    )
    grad_accumulation_steps: Whole = Field(
        1, description="only 1: fairchem-core 1.10.0 cannot accumulate gradients"
    )
    # of EquiformerV3's trainer
    use_compile: Flag = Field(
        False, description="known from EquiformerV3's configs; without effect, with a warning"
    )
    load_pretrained_weights: str = Field(
        "", description="known from EquiformerV3's configs; an error: use --checkpoint PATH"
    )


class LambdaSchedule(FairchemSection):
    """``optim.scheduler_params`` of fairchem's EquiformerV2 trainer; ``epochs`` and ``lr`` are its
    own entries, found in configs of checkpoints."""

    lambda_type: one_of("cosine", "multistep") = Field(
        "cosine",
        description="cosine: the learning rate falls as a cosine; multistep: it falls in steps",
    )
    warmup_factor: Decimal = Field(
        0.0,
        ge=0,
        examples=[0.2],
        description="factor of the learning rate at the first step; it rises to 1 in the warm-up",
    )
    warmup_epochs: Number = Field(
        0, ge=0, examples=[0.1], description="length of the warm-up, epochs"
    )
    lr_min_factor: Decimal = Field(
        0.0, ge=0, examples=[0.01], description="cosine: factor of the learning rate at the end"
    )
    decay_epochs: Numbers = Field(
        [],
        examples=["[11.7, 15, 18.3]"],
        description="multistep: epochs at which the learning rate falls",
    )
    decay_rate: Decimal = Field(
        0.0,
        ge=0,
        examples=[0.3],
        description="multistep: factor of the learning rate at each of decay_epochs",
    )
    epochs: Number = Field(
        0, description="written by fairchem-core into checkpoints; without effect"
    )
    lr: Number = Field(0, description="written by fairchem-core into checkpoints; without effect")
