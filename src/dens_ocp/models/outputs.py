"""Outputs of a model by the targets of a config: fairchem's rule, without a wait for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from fairchem.core.common.utils import cg_change_mat

from dens_ocp.errors import DensError


def by_target(
    outputs: Mapping[str, Any],
    targets: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, int],
    denormalised: Callable[[str, torch.Tensor], torch.Tensor],
) -> dict[str, torch.Tensor]:
    """A row for each atom or structure of each target.

    Args:
        outputs: of the model: tensors by name, or by head and name (fairchem's hydra models).
        targets: ``outputs`` of the config and their parts: ``level``, ``property``,
            ``decomposition``.
        rows: numbers of ``atom`` and ``system``.
        denormalised: prediction of a target in the units of the data. A tensor that the model gives
            in parts is put together of theirs.

    Returns:
        (rows, k), normalised, but for tensors that were put together.

    Raises:
        DensError: the model lacks an output.
    """
    flat = {name: _flat(name, value, targets.get(name, {})) for name, value in outputs.items()}
    found = {}
    for name, target in targets.items():
        if name in flat:
            value = flat[name]
        elif "decomposition" in target and all(each in flat for each in target["decomposition"]):
            parts = {
                part["irrep_dim"]: denormalised(each, flat[each])
                for each, part in target["decomposition"].items()
            }
            value = whole_tensor(parts)
        else:
            raise DensError(_missing(name, target, list(flat)))
        found[name] = value.view(rows[target["level"]], -1)
    return found


def named(outputs: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors by name; of fairchem's hydra models too, by the names in their heads."""
    if isinstance(outputs, torch.Tensor):
        yield name, outputs
    elif isinstance(outputs, Mapping):
        for key, value in outputs.items():
            yield from named(value, str(key))


def whole_tensor(parts: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """(B, 9) of its parts by degree, (B, 2 l + 1) each; a degree that is missing is zero. The basis
    is that of fairchem's ``cg_change_mat``."""
    first = next(iter(parts.values()))
    irreps = first.new_zeros(len(first), 9)
    for degree, part in parts.items():
        irreps[:, degree**2 : (degree + 1) ** 2] = part.view(len(first), -1)
    return irreps @ _basis(first.device, first.dtype)


@cache
@torch.inference_mode(False)  # the first to ask may be in it, and later ones may train
def _basis(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """fairchem's matrix, which is copied to the device once and not at each step."""
    return cg_change_mat(2, device).to(dtype)


def _flat(name: str, value: Any, target: Mapping[str, Any]) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    chosen = target.get("property", name)
    if chosen not in value:
        raise DensError(
            f"outputs.{name}.property is missing or not an output of the head {name}, which has "
            f"{', '.join(value)}"
        )
    return value[chosen]


def _missing(name: str, target: Mapping[str, Any], known: list[str]) -> str:
    text = f"outputs.{name}: the model has no such output; its outputs are {', '.join(known)}"
    parts = [each for each in target.get("decomposition") or () if each not in known]
    if parts or target.get("parent"):
        wanted = target.get("parent", name)
        text += (
            f"; add a head for it, model.heads: {{{wanted}: {{module: rank2_symmetric_head, "
            f"output_name: {wanted}, decompose: True}}}}"
        )
    return text
