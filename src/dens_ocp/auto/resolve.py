"""``dens: auto`` in a training run."""

from __future__ import annotations

from typing import Any

from dens_ocp.auto.evidence import observe
from dens_ocp.auto.pick import Picks, pick, rounded
from dens_ocp.dens.config import DeNSConfig
from dens_ocp.errors import DensError


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
        force_coefficient, force_scale, gradient_forces: as of :func:`~dens_ocp.auto.pick.pick`.

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
    if getattr(config, "denominator", "shared") == "separate":
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
        "dens: auto: loss_functions has no forces, against which noise is weighed; give "
        "optim.dens.coefficient, or a loss of forces"
    )
