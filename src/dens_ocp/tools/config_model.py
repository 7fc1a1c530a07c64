"""The model of a config's section ``model``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dens_ocp.errors import DensError
from dens_ocp.registration import MODELS_IN_WORDS


def model_class(name: str) -> Any:
    """fairchem's, ours, or another registered class.

    Raises:
        DensError: there is none.
    """
    from fairchem.core.common.registry import registry

    try:
        return registry.get_model_class(name)
    except (RuntimeError, KeyError, ValueError, ImportError) as error:
        (reason, *_) = str(error).strip("'\"").splitlines() or [""]
        raise DensError(
            f"model.name: {name} is not known ({reason}); give --model.name={MODELS_IN_WORDS}"
        ) from None


def build_model(model: Mapping[str, Any], stock: bool = False) -> Any:
    """A torch module.

    Args:
        model: the section.
        stock: by fairchem's own path, whatever ``model.fast`` says.

    Raises:
        DensError: unknown model or option.
    """
    from dens_ocp.models.dens_model import DeNSModel

    options = dict(model)
    cls = model_class(options.pop("name"))
    if stock and issubclass(cls, DeNSModel):
        options["fast"] = False
    try:
        return cls(**options)
    except TypeError as error:
        raise DensError(
            f"model.name: {model['name']} does not accept its options ({error}); compare the "
            "section model with that of a recipe in configs/"
        ) from None


def has_gradient_forces(model: Mapping[str, Any]) -> bool:
    """Whether the forces of a section's model are gradients of its energy; an unknown model's are
    not (:func:`build_model` says that it is unknown)."""
    from dens_ocp.models.denoising_model import DenoisingModel

    try:
        cls = model_class(model["name"])
        return issubclass(cls, DenoisingModel) and cls.has_gradient_forces(model)
    except DensError:
        return False


def scale_of(section: Mapping[str, Any], target: str) -> float | None:
    """What the normalizer of a data set's section divides ``target`` by, if it gives a number."""
    normalizer = ((section.get("transforms") or {}).get("normalizer") or {}).get(target) or {}
    scale = normalizer.get("stdev", normalizer.get("rmsd"))
    return None if scale is None else float(scale)
