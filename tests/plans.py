"""Batches with a corruption, or with atoms that are looked at, as a training step has them."""

from dataclasses import replace

import torch

from dens_ocp.dens import step_plan
from dens_ocp.dens.step_plan import Corruption, StepPlan, read, read_plan


def attach(batch, corruption: Corruption) -> None:
    """Corrupt a batch. Its fields are what is read then, so that a test can change them."""
    step_plan.attach(batch, StepPlan(corruption))
    batch.step_plan = StepPlan()


def attach_scored(batch, mask: torch.Tensor) -> None:
    """Forces and noise of the atoms (N,) bool are looked at."""
    noisy = read(batch).noise_mask
    batch.step_plan = replace(read_plan(batch), force_atoms=mask & ~noisy, noise_atoms=mask & noisy)
