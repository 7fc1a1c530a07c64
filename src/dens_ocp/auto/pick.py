"""The rules of ``dens: auto``: evidence -> options. docs/auto.md has the reasoning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dens_ocp.auto.evidence import Evidence
from dens_ocp.errors import DensError

SHARE_OF_NEAREST = 0.05
"""Largest sigma as a share of the nearest-neighbour distance."""
NOISE_TO_FORCE = 0.35
"""lambda_DeNS over lambda_F, if forces are normalised to an rms of 1; else times their rms."""
LARGE = 20_000_000
"""From this many records on a training set is so dense that DeNS is used sparingly."""
FEWEST_CORRUPTED = 2
"""Corrupted atoms of a DeNS structure, on average, at least."""

_STEPS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


@dataclass(frozen=True)
class Picks:
    """Options of DeNS, and a sentence about each.

    Attributes:
        options: as in ``optim.dens``.
        reasons: by option.
    """

    options: dict[str, Any]
    reasons: dict[str, str]


def rounded(value: float) -> float:
    """The nearest of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten, by ratio.

    >>> rounded(0.0546), rounded(4.3), rounded(0.103)
    (0.05, 4.0, 0.1)
    """
    power = 10.0 ** _floor_log10(value)
    nearest = min(_STEPS, key=lambda step: abs(math.log(value / power / step)))
    return float(f"{nearest * power:.3g}")


def _floor_log10(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def pick(
    evidence: Evidence,
    *,
    force_coefficient: float,
    force_scale: float | None,
    gradient_forces: bool,
) -> Picks:
    """Options from the evidence.

    Args:
        evidence: of the training set.
        force_coefficient: lambda_F, of ``loss_functions``.
        force_scale: what forces are divided by (``normalizer.forces.stdev``), eV/Angstrom; None:
            their rms.
        gradient_forces: the model's forces are gradients of its energy.

    Raises:
        DensError: lambda_F or the scale is not positive.
    """
    scale = evidence.force_rms if force_scale is None else force_scale
    if not force_coefficient > 0 or not scale > 0:
        raise DensError(
            f"dens: auto: the coefficient of the forces in loss_functions ({force_coefficient:g}) "
            f"and their scale ({scale:g} eV/Angstrom) must be larger than 0 to weigh noise against "
            "forces; give optim.dens.coefficient"
        )
    options: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    options["sigma"], reasons["sigma"] = _sigma(evidence)
    sparing = gradient_forces or evidence.records >= LARGE
    options["p"] = 0.125 if evidence.records >= LARGE else 0.25 if gradient_forces else 0.5
    reasons["p"] = (
        f"{evidence.records:,} records: the set is dense already (OC20 All+MD)"
        if evidence.records >= LARGE
        else "forces are gradients of the energy, as on MD17"
        if gradient_forces
        else "forces are predicted directly, as on OC20 2M and OC22"
    )
    ratio = 0.25 if sparing else 0.5
    fewest = min(1.0, FEWEST_CORRUPTED / max(evidence.free_atoms, 1.0))
    options["r"] = round(max(ratio, fewest), 3)
    reasons["r"] = (
        f"{evidence.free_atoms:g} free atoms, {options['r'] * evidence.free_atoms:.1f} of "
    )
    reasons["r"] += "them corrupted" + (
        f"; {ratio} would be fewer than {FEWEST_CORRUPTED}" if fewest > ratio else ""
    )
    relative = evidence.force_rms / scale
    options["coefficient"] = rounded(NOISE_TO_FORCE * force_coefficient * relative)
    reasons["coefficient"] = (
        f"{NOISE_TO_FORCE} x lambda_F {force_coefficient:g} x rms of normalised forces "
        f"{relative:.3g}"
    )
    options["coefficient_decay"] = "linear" if gradient_forces else "constant"
    reasons["coefficient_decay"] = "as on MD17" if gradient_forces else "as on OC20 and OC22"
    return Picks(options, reasons)


def _sigma(evidence: Evidence) -> tuple[float, str]:
    largest = SHARE_OF_NEAREST * evidence.nearest
    if evidence.displacement is None:
        return rounded(largest), (
            f"{SHARE_OF_NEAREST:.0%} of the nearest-neighbour distance {evidence.nearest:.2f} A "
            "(no two different structures of one system were read)"
        )
    if evidence.displacement < largest:
        return rounded(evidence.displacement), (
            f"atoms of one system differ by {evidence.displacement:.3f} A per coordinate"
        )
    return rounded(largest), (
        f"{SHARE_OF_NEAREST:.0%} of the nearest-neighbour distance {evidence.nearest:.2f} A (atoms "
        f"of one system differ by {evidence.displacement:.3f} A per coordinate, which is more)"
    )
