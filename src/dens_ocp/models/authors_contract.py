"""Models that speak the language of the authors' code: EquiformerV3's, fairchem's with DeNS, or a
user's own.

Such a model reads ``denoising_pos_forward``, ``noise_mask`` and ``forces`` of a batch, encodes the
forces of the masked atoms, and answers with their noise, in units of sigma, in the rows of
``forces``. :func:`adopt` makes it a :class:`~dens_ocp.models.denoising_model.DenoisingModel`; the
loss is that of this package.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from dens_ocp.dens.step_plan import carries_corruption, read
from dens_ocp.errors import DensError
from dens_ocp.models.denoising_model import DenoisingModel
from dens_ocp.models.outputs import named

if TYPE_CHECKING:
    from torch_geometric.data import Batch

_WORD = "denoising_pos_forward"
_OF_DENS = (_WORD, "noise_mask", "noise_vec", "sigmas", "dens_batch_mask", "forces")
DECLARED = "follows_authors_contract"
"""A class whose source cannot be read says so by an attribute of this name, True."""


def follows(model: torch.nn.Module) -> bool:
    """Whether the class of the model, or of a module in it, reads the authors' fields."""
    classes: set[Any] = {type(module) for module in model.modules()}
    return any(map(_reads, classes))


@cache
def _reads(cls: type) -> bool:
    if cls.__module__.startswith("torch."):
        return False
    if getattr(cls, DECLARED, False):
        return True
    try:
        return _WORD in inspect.getsource(cls)
    except (OSError, TypeError):
        return False


def adopt_if_followed(model: torch.nn.Module) -> None:
    """:func:`adopt` a model of others that follows the contract."""
    if not isinstance(model, DenoisingModel) and follows(model):
        adopt(model)


_adopted: dict[type, type] = {}


def adopt(model: torch.nn.Module) -> None:
    """Make a model of the authors' contract one that the trainer can train. Its parameters and
    their names stay what they are, so do its predictions."""
    cls = type(model)
    if cls not in _adopted:
        _adopted[cls] = type(cls.__name__, (AuthorsContract, cls), {"__module__": cls.__module__})
    model.__class__ = _adopted[cls]


class AuthorsContract(DenoisingModel):
    """First base of an adopted class.

    At the first corrupted batches it is checked whether its heads leave out the energy, or the
    stress, of a whole batch, as fairchem's do with ``use_denoising_energy: False`` and its head of
    eSEN's gradients always. Such an output has no loss on DeNS structures; where it is left out of
    the others of the batch too, it has none on them, and the trainer asks for one choice for a
    batch (``left_out_of_batches``).
    """

    keeps_names = True
    _checked = False

    def predict(self, data: Batch) -> dict[str, Any]:
        """Its outputs of a batch without any field of DeNS; ``forces`` neither."""
        plain = copy.copy(data)
        for name in _OF_DENS:
            if name in plain:
                del plain[name]
        return self._own(plain)

    def denoise(self, data: Batch) -> dict[str, Any]:
        """Its outputs, and ``noise`` (N, 3): its ``forces``, whose rows are noise where the atom is
        corrupted, and forces elsewhere."""
        outputs = self._own(data)
        if carries_corruption(data) and not self._checked:
            self._check(outputs, read(data).structure_mask)
        return {**outputs, "noise": _find(outputs, "forces")}

    def _own(self, data: Batch) -> dict[str, Any]:
        return super(DenoisingModel, self).forward(data)

    def _check(self, outputs: Mapping[str, Any], corrupted: torch.Tensor) -> None:
        if not corrupted.any():
            return
        self._checked = not bool(corrupted.all())  # else the others are still to be seen
        for kind in ("energy", "stress"):
            found = [value for name, value in named(outputs) if name.startswith(kind)]
            rows = [value.detach().reshape(len(corrupted), -1) for value in found]
            if not rows:
                continue
            zero = (torch.cat(rows, dim=1) == 0).all(dim=1)
            if not zero[corrupted].all():
                continue
            if self._checked and zero.all():
                self.left_out_of_batches = (*self.left_out_of_batches, kind)
            if getattr(self, f"use_denoising_{kind}"):
                logging.info(
                    "the model gives no %s for DeNS structures, so DeNS structures have no loss "
                    "of it, as with optim.dens.%s: false", kind, kind,
                )  # fmt: skip
                setattr(self, f"use_denoising_{kind}", False)


def _find(outputs: Mapping[str, Any], name: str) -> torch.Tensor:
    """A tensor by name.

    Raises:
        DensError: there is none.
    """
    found = [value for each, value in named(outputs) if each == name]
    if not found:
        names = sorted({each for each, _ in named(outputs)})
        raise DensError(f"the model has no output {name}; its outputs are {', '.join(names)}")
    return found[0]
