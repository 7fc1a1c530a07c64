"""``scipy.special.sph_harm``: SciPy 1.17 dropped it, ``fairchem.core.models.utils.basis`` imports
it for SCN's and SpinConv's smearing. It can go when SciPy below 1.17 is not supported any more and
fairchem uses ``sph_harm_y`` (it never will)."""

from __future__ import annotations

from types import ModuleType

import numpy as np
from scipy import special


def sph_harm(m: np.ndarray, n: np.ndarray, theta: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Spherical harmonics, by ``sph_harm_y``.

    Args:
        m, n: order and degree.
        theta, phi: azimuthal and polar angle (``sph_harm_y`` has the names the other way round).
    """
    return special.sph_harm_y(n, m, phi, theta)


def before() -> None:
    """Let the module find it."""
    if not hasattr(special, "sph_harm"):
        special.sph_harm = sph_harm


def after(_: ModuleType) -> None:
    """Leave SciPy as it was."""
    if getattr(special, "sph_harm", None) is sph_harm:
        del special.sph_harm
