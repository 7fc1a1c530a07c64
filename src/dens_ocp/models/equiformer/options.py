"""Checks of the options of ``equiformer_dens``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from e3nn import o3

from dens_ocp.errors import DensError, nearest

_ONE_VALUE = {
    "irreps_node_attr": "1x0e",
    "basis_type": "exp",
    "rescale_degree": False,
    "nonlinear_message": True,
    "regress_forces": True,
    "direct_forces": False,
    "mean": None,
    "std": None,
    "scale": None,
    "atomref": None,
}
"""Options of the authors' files and of fairchem that have one value here."""

_CHOICES = {"norm_layer": ("layer", None), "weight_init": ("normal", "uniform")}


def check_options(cls: type, other: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Make sure that a model can be built.

    Args:
        cls: the model.
        other: options that are no arguments of its constructor. Those of the authors' files are
            known: ``irreps_in`` says the number of elements (64x0e), ``irreps_equivariant_inputs``
            has to equal ``irreps_sh``, others have one value (``basis_type: exp``).
        values: the arguments.

    Raises:
        DensError: an unknown option (with the nearest name), or a value that is not known.
    """
    known = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    known = [name for name in known if name != "other"]
    one_value = {
        **_ONE_VALUE,
        "irreps_in": f"{values['max_num_elements']}x0e",
        "irreps_equivariant_inputs": values["irreps_sh"],
        "otf_graph": True,
    }
    for name, value in {**other, "otf_graph": values["otf_graph"]}.items():
        if name not in one_value:
            raise DensError(f"unknown option model.{name}{nearest(name, [*known, *one_value])}")
        if value != one_value[name]:
            raise DensError(
                f"model.{name}: {value!r}: equiformer_dens knows {one_value[name]!r} only; set it "
                "to that, or remove it"
            )
    for name, choices in _CHOICES.items():
        if values[name] not in choices:
            raise DensError(
                f"model.{name}: {values[name]!r} is not one of "
                f"{', '.join('null' if choice is None else choice for choice in choices)}"
            )
    for name in ("num_layers", "num_heads", "number_of_basis", "max_num_elements"):
        if not isinstance(values[name], int) or values[name] < 1:
            raise DensError(f"model.{name}: {values[name]!r} must be a number above 0")
    if not values["max_radius"] > 0:
        raise DensError(f"model.max_radius: {values['max_radius']!r} must be above 0 (Angstrom)")


def even_irreps(option: str, value: str) -> o3.Irreps:
    """The irreps of an option: even, each degree once and in ascending order, l = 0 among them.

    Raises:
        DensError: other irreps.
    """
    try:
        irreps = o3.Irreps(value)
    except ValueError as error:
        raise DensError(f"model.{option}: {value!r} are no irreps: {error}") from None
    degrees = [ir.l for _, ir in irreps]
    if any(ir.p != 1 for _, ir in irreps) or degrees != sorted(set(degrees)) or 0 not in degrees:
        raise DensError(
            f"model.{option}: {value!r}: write even irreps in ascending order, each degree once, "
            "for example 128x0e+64x1e+32x2e"
        )
    return irreps
