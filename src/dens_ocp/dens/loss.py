"""The training loss, Eq. 6 / Algorithm 1, lines 24 to 35.

Every target keeps its configured function (``mae``, ``l2mae``, ...) and coefficient. What DeNS
changes:

* forces: corrupted atoms are scored on their noise instead, with lambda_DeNS; all others on their
  force, with lambda_F. Both share one denominator: the atoms that count (free atoms with
  ``train_on_free_atoms``), over all ranks, as in the authors' OC20/OC22 code. With
  ``denominator: separate`` each has the number of its own atoms, as in their MD17 code.
* energy: the energy of the original structure; optionally not for DeNS structures.

The mean over all ranks is that of fairchem's ``DDPLoss``: the local sum times the number of ranks,
over the global count, because DDP averages gradients. Here a batch in which nothing counts gives
zero, not NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from fairchem.core.common import distutils
from fairchem.core.modules.loss import DDPLoss

from dens_ocp.dens.config import DeNSConfig
from dens_ocp.dens.step_plan import Corruption, read, read_plan, rows_of

if TYPE_CHECKING:
    from torch_geometric.data import Batch


@dataclass(frozen=True)
class NoiseTarget:
    """What the noise head is trained on.

    Attributes:
        scale: the noise is divided by this, Angstrom.
        coefficient: lambda_DeNS.
        separate: forces and noise have denominators of their own (``optim.dens.denominator``).
    """

    scale: float
    coefficient: float
    separate: bool = False

    @classmethod
    def at(cls, config: DeNSConfig, step: int, total_steps: int) -> NoiseTarget:
        """At training step ``step`` (first step: 1) of ``total_steps``."""
        coefficient = config.coefficient_at(step, total_steps)
        return cls(config.noise_scale, coefficient, separate=config.denominator == "separate")


def reduced(loss_fn: DDPLoss, loss: torch.Tensor) -> torch.Tensor:
    """Sum, or mean over the elements of all ranks (see the module), as ``loss_fn`` is configured;
    of this rank's alone where it says so (``across_ranks``).

    Args:
        loss_fn: fairchem's configured loss.
        loss: elementwise loss of any shape, already weighted; may be empty.

    Returns:
        A scalar whose gradient, averaged over ranks, is that of the global reduction.
    """
    total = loss.sum()
    if loss_fn.reduction == "sum":
        return total
    if not getattr(loss_fn, "across_ranks", True):  # validation
        return total / max(loss.numel(), 1)
    count = torch.full((), loss.numel(), dtype=torch.float64, device=loss.device)
    count = distutils.all_reduce(count).clamp(min=1)
    return total * (distutils.get_world_size() / count).to(total.dtype)


def force_and_noise_loss(
    loss_fn: DDPLoss,
    coefficient: float,
    *,
    forces: torch.Tensor,
    force_target: torch.Tensor,
    noise: torch.Tensor | None,
    corruption: Corruption,
    counted: torch.Tensor | slice,
    natoms: torch.Tensor,
    noise_target: NoiseTarget,
) -> dict[str, torch.Tensor]:
    """lambda_F L_F and lambda_DeNS L_DeNS.

    Args:
        loss_fn: the configured loss of ``forces``.
        coefficient: lambda_F.
        forces: (N, 3) prediction, normalised.
        force_target: (N, 3) forces of the original structure, normalised.
        noise: (N, 3) prediction in units of ``noise_target.scale``; None when the model was not
            asked for it.
        corruption: what was done to the batch.
        counted: atoms that enter the loss: (n,) int64, their rows, or a slice; a mask (N,) bool
            waits for the device.
        natoms: (B,) int.
        noise_target: scale and weight of the noise.

    Returns:
        ``forces`` and ``noise`` (only if the model predicted it), both weighted scalars.
    """
    if noise is None:
        elementwise = loss_fn.loss_fn(forces[counted], force_target[counted], natoms)
        return {"forces": coefficient * reduced(loss_fn, elementwise)}
    corrupted = corruption.noise_mask[:, None]
    target = torch.where(corrupted, corruption.noise_vec / noise_target.scale, force_target)
    prediction = torch.where(corrupted, noise, forces)
    elementwise = loss_fn.loss_fn(prediction[counted], target[counted], natoms)
    is_noise = corruption.noise_mask[counted]
    if noise_target.separate:
        return {
            "forces": coefficient * reduced(loss_fn, elementwise[~is_noise]),
            "noise": noise_target.coefficient * reduced(loss_fn, elementwise[is_noise]),
        }
    is_noise = is_noise.to(elementwise.dtype)
    is_noise = is_noise.view(-1, *[1] * (elementwise.dim() - 1))
    return {
        "forces": coefficient * reduced(loss_fn, elementwise * (1 - is_noise)),
        "noise": noise_target.coefficient * reduced(loss_fn, elementwise * is_noise),
    }


def target_loss(
    loss_fn: DDPLoss,
    coefficient: float,
    *,
    prediction: torch.Tensor,
    target: torch.Tensor,
    natoms: torch.Tensor,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of any other target.

    Args:
        loss_fn: the configured loss.
        coefficient: its weight (lambda_E for the energy).
        prediction: (n, k), normalised.
        target: (n, k), normalised.
        natoms: (B,) int.
        weight: (n,) factor of each row, for example 0 for DeNS structures; the denominator stays.

    Returns:
        A weighted scalar.
    """
    elementwise = loss_fn.loss_fn(prediction, target, natoms)
    if weight is not None:
        weight = weight.to(elementwise.dtype)
        elementwise = elementwise * weight.view(-1, *[1] * (elementwise.dim() - 1))
    return coefficient * reduced(loss_fn, elementwise)


def loss(
    outputs: Mapping[str, torch.Tensor],
    batch: Batch,
    config: DeNSConfig | None = None,
    *,
    energy: float = 1.0,
    forces: float = 100.0,
    normalizers: Mapping[str, Any] | None = None,
    step: int = 1,
    total_steps: int = 0,
) -> dict[str, torch.Tensor]:
    """The terms of the training loss (Eq. 6) for a training loop of one's own.

    The energy has a mean absolute error, forces and noise the mean L2 norm of the error over free
    atoms (fairchem's ``mae`` and ``l2mae``), as in the paper's recipes.

    Args:
        outputs: of a model of this package in training mode: ``energy`` (B,) or (B, 1), ``forces``
            (N, 3), both normalised, and ``noise`` (N, 3) in units of sigma.
        batch: what the model was given, from :func:`dens_ocp.corrupt`; with ``energy`` (B,) in eV
            and ``forces`` (N, 3) in eV/Angstrom of the original structures.
        config: the options of DeNS that the batch was corrupted with. None: their defaults.
        energy, forces: lambda_E and lambda_F; lambda_DeNS is ``config.coefficient``.
        normalizers: fairchem's ``Normalizer`` for ``energy`` and ``forces``. None: labels are not
            normalised.
        step, total_steps: for ``coefficient_decay: linear`` the training step, from 1, and the
            number of steps of the run.

    Returns:
        Weighted scalars ``energy``, ``forces`` and ``noise``; the loss is their sum.
    """
    config = DeNSConfig() if config is None else config
    plan, corruption = read_plan(batch), read(batch)
    rows = rows_of(batch.fixed == 0) if plan.loss_rows is None else plan.loss_rows
    scales = normalizers or {}
    targets = {
        name: scales[name].norm(target) if name in scales else target
        for name, target in (("energy", batch.energy.view(-1, 1)), ("forces", batch.forces))
    }
    of_energy = target_loss(
        DDPLoss("mae", "mean"),
        energy,
        prediction=outputs["energy"].view(-1, 1),
        target=targets["energy"],
        natoms=batch.natoms,
        weight=None if config.energy else ~corruption.structure_mask,
    )
    return {"energy": of_energy} | force_and_noise_loss(
        DDPLoss("l2mae", "mean"),
        forces,
        forces=outputs["forces"],
        force_target=targets["forces"],
        noise=outputs.get("noise"),
        corruption=corruption,
        counted=rows,
        natoms=batch.natoms,
        noise_target=NoiseTarget.at(config, step, total_steps),
    )
