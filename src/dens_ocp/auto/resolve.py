"""``dens: auto``: evidence of a training set -> options of DeNS. docs/auto.md has the reasoning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dens_ocp.auto.evidence import Evidence, observe
from dens_ocp.dens.config import DeNSConfig
from dens_ocp.errors import DensError

SHARE_OF_NEAREST = 0.05
"""Largest sigma as a share of the nearest-neighbour distance."""
NOISE_TO_FORCE = 0.35
"""lambda_DeNS over lambda_F, if forces are normalised to an rms of 1; else times their rms."""
LARGE = 20_000_000
"""From this many records on a training set is so dense that DeNS is used sparingly."""
FEWEST_CORRUPTED = 2
"""Corrupted atoms of a DeNS structure, on average, at least."""

PAPER: dict[str, dict[str, str]] = {
    "OC20 2M": {"sigma": "0.1, 0.15", "p": "0.5", "r": "0.5", "coefficient": "10",
                "coefficient_decay": "constant", "lambda_F": "100", "forces": "direct"},
    "OC20 All+MD": {"sigma": "0.1", "p": "0.125", "r": "0.25", "coefficient": "15",
                    "coefficient_decay": "constant", "lambda_F": "100", "forces": "direct"},
    "OC22": {"sigma": "0.15", "p": "0.5", "r": "0.5", "coefficient": "25",
             "coefficient_decay": "constant", "lambda_F": "100", "forces": "direct"},
    "MD17": {"sigma": "0.05 (0.025)", "p": "0.25 (0.125)", "r": "0.25", "coefficient": "5 *",
             "coefficient_decay": "linear", "lambda_F": "80 (20, 100)", "forces": "gradient"},
}  # fmt: skip
"""The paper's own choices (Tables 7, 8, 9), by data set and option. OC20 2M: 12 epochs, and
20 or 30. MD17: in brackets other molecules."""
NOTE = (
    "* MD17: the noise loss is divided by the number of corrupted atoms; divided by the number "
    "of all atoms, as in the other columns, this is 5 / (p r) = 80"
)

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
    power = 10.0 ** int(f"{value:e}".partition("e")[2])
    nearest = min(_STEPS, key=lambda step: abs(math.log(value / power / step)))
    return float(f"{nearest * power:.3g}")


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
            "dens: auto: the coefficient of the forces in loss_functions "
            f"({force_coefficient:g}) and their scale ({scale:g} eV/Angstrom) must be larger "
            "than 0 to pick the weight of the noise; give optim.dens.coefficient"
        )
    options: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    options["sigma"], reasons["sigma"] = _sigma(evidence)
    sparing = gradient_forces or evidence.records >= LARGE
    options["p"] = 0.125 if evidence.records >= LARGE else 0.25 if gradient_forces else 0.5
    reasons["p"] = (
        f"{evidence.records:,} records: the set is already dense (as OC20 All+MD)"
        if evidence.records >= LARGE
        else "forces are gradients of the energy, as on MD17"
        if gradient_forces
        else "forces are predicted directly, as on OC20 2M and OC22"
    )
    ratio = 0.25 if sparing else 0.5
    fewest = min(1.0, FEWEST_CORRUPTED / max(evidence.free_atoms, 1.0))
    options["r"] = round(max(ratio, fewest), 3)
    corrupted = options["r"] * evidence.free_atoms
    reasons["r"] = f"{evidence.free_atoms:g} free atoms, {corrupted:.1f} of them corrupted"
    if fewest > ratio:
        reasons["r"] += f"; with {ratio} there would be fewer than {FEWEST_CORRUPTED}"
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


def resolve(
    config: DeNSConfig,
    dataset: Any,
    *,
    force_coefficient: float,
    force_scale: float | None,
    gradient_forces: bool,
) -> tuple[DeNSConfig, Picks]:
    """Options picked from the training set; those that were given stay.

    Args:
        config: with ``auto``.
        dataset: the training set.
        force_coefficient, force_scale, gradient_forces: as of :func:`pick`.

    Returns:
        Options without ``auto``; what was picked.

    Raises:
        DensError: the data do not allow it.
    """
    picks = pick(
        observe(dataset),
        force_coefficient=force_coefficient,
        force_scale=force_scale,
        gradient_forces=gradient_forces,
    )
    given = config.model_fields_set
    if config.denominator == "separate":
        # the noise loss is divided by the corrupted atoms only, a share p r of all
        p, r = (getattr(config, n) if n in given else picks.options[n] for n in ("p", "r"))
        share = p * r
        picks.options["coefficient"] = rounded(picks.options["coefficient"] * share)
        picks.reasons["coefficient"] += f" x p r {share:g} (denominator: separate)"
    taken = {name: value for name, value in picks.options.items() if name not in given}
    reasons = {name: reason for name, reason in picks.reasons.items() if name in taken}
    return config.model_copy(update={**taken, "auto": False}), Picks(taken, reasons)


def force_coefficient(loss_functions: Any) -> float:
    """lambda_F of a config's ``loss_functions``.

    Raises:
        DensError: there is no loss of forces.
    """
    for loss in loss_functions or ():
        if "forces" in loss:
            return float(loss["forces"].get("coefficient", 1))
    raise DensError(
        "dens: auto: loss_functions has no forces, from which the weight of the noise is picked; "
        "give optim.dens.coefficient, or a force loss"
    )
