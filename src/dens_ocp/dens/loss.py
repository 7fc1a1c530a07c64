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

from dataclasses import dataclass

import torch
from fairchem.core.common import distutils
from fairchem.core.modules.loss import DDPLoss

from dens_ocp.dens.step_plan import Corruption


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
