"""Is the run good: checks of its numbers, each a level and a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dens_ocp.dens.config import DeNSConfig
from dens_ocp.dens.corruption import sigma_levels
from dens_ocp.results.report.breakdown import Scores
from dens_ocp.results.report.relaxation_files import Relaxations
from dens_ocp.results.report.scalars import Series, tail

GOOD, NOTE, BAD = "good", "note", "bad"
LEVELS = (GOOD, NOTE, BAD)
NO_BETTER = 0.95
"""From this share of the trivial predictor's error on a predictor has learned next to nothing."""
HARDLY_BETTER = 0.8

_RISING, _FALLING = 0.05, 0.05
_SHARE_OFF = 0.1  # small structures with no corrupted atom do not count as DeNS structures
_CONVERGED = 0.5  # share of relaxations
_VALIDATED = {"val/forces_mae": "force", "val/energy_mae": "energy"}
_LOW_RATE = 0.05  # of the highest learning rate: the schedule is at its end


@dataclass(frozen=True)
class Check:
    """A level (``good``, ``note``, ``bad``), what was looked at, and what was found."""

    level: str
    subject: str
    text: str


def worst(checks: Iterable[Check]) -> str:
    """The worst level."""
    return max((check.level for check in checks), key=LEVELS.index, default=NOTE)


def noise_of_zero(dens: DeNSConfig) -> float:
    """MAE of predicting no noise, Angstrom: sigma sqrt(2 / pi), the mean over a schedule."""
    return float(sigma_levels(dens.sigma).double().mean()) * math.sqrt(2 / math.pi)


def finite(series: Series) -> Check:
    """NaN or infinity among the logged numbers."""
    for tag, (steps, values) in sorted(series.items()):
        bad = ~np.isfinite(values)
        if bad.any():
            return Check(BAD, "Numbers", f"{tag} is NaN or infinite from step {steps[bad][0]} on.")
    return Check(GOOD, "Numbers", "No NaN or infinity was logged.")


def finished(epoch: float | None, max_epochs: Any) -> Check | None:
    """Whether training came to its planned end."""
    if epoch is None or not max_epochs:
        return None
    text = f"epoch {epoch:.4g} of {max_epochs}"
    if epoch >= max_epochs - 1e-6:
        return Check(GOOD, "Length", f"Training is complete: {text}.")
    return Check(NOTE, "Length", f"Training stopped early, or is still running: {text}.")


def validation(series: Series, primary: str | None = None) -> Check | None:
    """Whether the validation error of forces (of energies where there is none) rises or falls.

    Args:
        series: logged scalars.
        primary: the metric that chooses ``best_checkpoint.pt``, or None where it is not known.
    """
    known = [tag for tag in _VALIDATED if tag in series and np.isfinite(series[tag][1]).any()]
    if not known:
        return None
    tag, name = known[0], _VALIDATED[known[0]]
    steps, values = series[tag]
    unit = "meV/\u00c5" if name == "force" else "meV"
    if not np.isfinite(values[-1]):
        text = f"The {name} MAE of the last validation (step {steps[-1]}) is NaN or infinite."
        return Check(BAD, "Validation", text)
    steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
    last, best = values[-1], int(values.argmin())
    now = f"{1000 * last:.1f} {unit}"
    if len(values) < 3:
        many = "" if len(values) == 1 else "s"
        text = f"Only {len(values)} validation{many}; {name} MAE {now}."
        return Check(NOTE, "Validation", text)
    if last > (1 + _RISING) * values[best]:
        text = (
            f"The {name} MAE rises: {now} at the end, {1000 * values[best]:.1f} at step "
            f"{steps[best]}"
        )
        if primary == tag.removeprefix("val/"):
            text += "; best_checkpoint.pt is from there"
        return Check(BAD, "Validation", f"{text}.")
    at = min(int(np.searchsorted(steps, steps[-1] * 0.75)), len(values) - 2)
    fall = 1 - last / values[at] if values[at] else 0.0
    since = f"{100 * abs(fall):.1f} % {'lower' if fall >= 0 else 'higher'} than at step {steps[at]}"
    rate = series.get("train/lr")
    ended = rate is not None and rate[1][-1] < _LOW_RATE * rate[1].max()
    schedule = "" if rate is None else (
        f" The learning rate is {rate[1][-1]:.2g}, {100 * rate[1][-1] / rate[1].max():.0f} % of "
        "its peak."
    )  # fmt: skip
    if fall < _FALLING:
        text = f"The {name} MAE has settled: {now}, {since}.{schedule}"
        return Check(GOOD, "Validation", text)
    if ended:
        text = (
            f"The {name} MAE fell up to the end of the schedule: {now}, {since}.{schedule} A "
            "longer schedule may lower it further."
        )
        return Check(GOOD, "Validation", text)
    text = f"The {name} MAE still falls: {now}, {since}.{schedule} Longer training may help."
    return Check(NOTE, "Validation", text)


def noise(series: Series, dens: DeNSConfig) -> Check | None:
    """Whether the noise head predicts anything."""
    if "train/dens_noise_mae" not in series:
        return None
    last = float(tail(series["train/dens_noise_mae"][1]).mean())
    zero = noise_of_zero(dens)
    text = f"noise MAE {last:.3f} Å at the end; predicting no noise gives {zero:.3f} Å"
    if not math.isfinite(last):
        return Check(BAD, "Denoising", f"The noise MAE is not a number: {text}.")
    if last >= zero:
        return Check(
            BAD, "Denoising", (f"The noise head is worse than predicting no noise: {text}.")
        )
    if last >= NO_BETTER * zero:
        return Check(BAD, "Denoising", f"The noise head has learned almost nothing: {text}.")
    return Check(GOOD, "Denoising", f"The noise head works: {text}.")


def corrupted_share(
    series: Series, dens: DeNSConfig, batch_size: int, md_possible: bool
) -> Check | None:
    """Whether as much was corrupted as p and r say.

    Args:
        series: logged scalars (of one rank).
        dens: options.
        batch_size: structures in a step of that rank.
        md_possible: the data may hold MD structures, which are never corrupted.
    """
    if "train/dens_corrupted_atoms" not in series or dens.all_atoms:
        return None
    steps, values = series["train/dens_corrupted_atoms"]
    share, expected = float(values.mean()), dens.p * dens.r
    coins = max(1, int(steps[-1])) * (1 if dens.choice == "batch" else max(1, batch_size))
    # of the mean over that many coins, for structures of about the same size
    spread = 5 * dens.r * math.sqrt(dens.p * (1 - dens.p) / coins) + 0.01
    text = (
        f"{100 * share:.1f} % of the atoms in the loss were corrupted, p\u00b7r is "
        f"{100 * expected:.1f} %"
    )
    limited = md_possible or dens.leaves_structures_out
    if share > expected + spread or share == 0 or (share < expected - spread and not limited):
        return Check(BAD, "Corruption", f"This is not what was set: {text}.")
    if share >= expected - spread:
        return Check(GOOD, "Corruption", f"As set: {text}.")
    # fewer structures than p says; of the atoms of these, r
    within = share / float(series["train/dens_structures"][1].mean())
    text += f"; within DeNS structures {100 * within:.1f} %, r is {100 * dens.r:.0f} %"
    if abs(within - dens.r) > _SHARE_OFF and not dens.strict_max_ratio:
        return Check(BAD, "Corruption", f"This is not what was set: {text}.")
    why = "MD structures are never corrupted" if md_possible else "limits leave structures out"
    return Check(GOOD, "Corruption", f"As set, because {why}: {text}.")


def splits(scores: Mapping[str, Scores]) -> list[Check]:
    """Whether predictions are all there and better than trivial ones: a check for each split in
    which they are not, and one for all others together."""
    checks, good = [], []
    for name, each in scores.items():
        faults = _faults(each)
        if faults:
            checks.append(Check(BAD, name, f"{_sentence('; '.join(faults))}."))
            continue
        force = _share(each.force_mae, each.zero_force_mae)
        energy = _share(each.energy_mae, each.mean_energy_mae)
        weak = [
            f"{what} are hardly better than {trivial} ({100 * share:.0f} % of its error)"
            for what, trivial, share in (
                ("forces", "predicting zero", force),
                ("energies", "predicting the split's mean", energy),
            )
            if share is not None and share >= HARDLY_BETTER
        ]
        if weak:
            checks.append(Check(NOTE, name, f"{_sentence('; '.join(weak))}."))
        else:
            good.append((name, force, energy))
    if good:
        parts = [
            f"{what} errors are {_span(shares)} of {trivial}"
            for what, trivial, shares in (
                ("force", "predicting zero", [force for _, force, _ in good]),
                ("energy", "predicting the split's mean", [energy for _, _, energy in good]),
            )
            if any(share is not None for share in shares)
        ]
        names = ", ".join(name for name, *_ in good)
        text = f"{_sentence('; '.join(parts))} ({names})." if parts else f"Scored: {names}."
        checks.append(Check(GOOD, "Predictions", text))
    return checks


def _faults(each: Scores) -> list[str]:
    faults = []
    if each.not_finite:
        faults.append(
            f"{each.not_finite} predictions are NaN or infinite and are not in any number"
        )
    if each.missing:
        faults.append(f"{each.missing} structures have no prediction")
    for what, mine, unit, trivial, its in (
        ("force", each.force_mae, "meV/\u00c5", "predicting zero", each.zero_force_mae),
        ("energy", each.energy_mae, "meV", "the split's mean energy", each.mean_energy_mae),
    ):
        share = _share(mine, its)
        if share is None or share < NO_BETTER:
            continue
        better = "no better than" if share >= 1 else f"only {100 * (1 - share):.1f} % below"
        faults.append(
            f"the {what} MAE ({mine:.1f} {unit}) is {better} that of {trivial} ({its:.1f})"
        )
    return faults


def _sentence(text: str) -> str:
    """With a capital letter in front; names of splits and elements keep theirs."""
    return text[:1].upper() + text[1:]


def _share(mine: float | None, trivial: float | None) -> float | None:
    return mine / trivial if mine is not None and trivial else None


def _span(shares: list[float | None]) -> str:
    percents = sorted({round(100 * share) for share in shares if share is not None})
    first, last = percents[0], percents[-1]
    return f"{first} %" if first == last else f"{first} to {last} %"


def relaxations(done: Mapping[str, Relaxations], fmax: float | None) -> list[Check]:
    """Whether relaxations converged: a check for each split with damaged ones, and one for
    all together."""
    checks = []
    for name, each in done.items():
        if each.unreadable:
            text = f"{each.unreadable} of {each.systems} trajectories are empty or damaged."
            checks.append(Check(BAD, f"Relaxations of {name}", text))
        if not np.isfinite(each.last_forces).all():
            checks.append(Check(BAD, f"Relaxations of {name}", "Some end in NaN or infinity."))
    number = sum(len(each.steps) for each in done.values())
    if not number:
        return checks
    if fmax is None:
        return [*checks, Check(GOOD, "Relaxations", f"{number} trajectories read.")]
    converged = sum(int(each.converged(fmax).sum()) for each in done.values())
    share = converged / number
    text = f"{converged} of {number} ({100 * share:.0f} %) converged to {fmax:g} eV/\u00c5."
    return [*checks, Check(GOOD if share >= _CONVERGED else NOTE, "Relaxations", text)]
