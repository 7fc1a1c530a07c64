"""What the demo says about DeNS: with against without, on each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dens_ocp.data.structures import Structure
from dens_ocp.results.scores.paired_errors import PairedErrors, paired_errors
from dens_ocp.results.scores.prediction_files import Predictions
from dens_ocp.results.scores.score_tables import text_table


def verdict(
    plain: Mapping[str, Predictions],
    dens: Mapping[str, Predictions],
    splits: Mapping[str, Sequence[Structure]],
) -> str:
    """A table with a row for each split, and a sentence about the first one.

    Args:
        plain, dens: predictions by split of the models trained without and with DeNS.
        splits: labelled structures by split.
    """
    found = {
        split: paired_errors(plain[split], dens[split], structures)
        for split, structures in splits.items()
    }
    header = ["split", "without DeNS", "DeNS", "difference", "in percent", "relaxations"]
    rows = [
        [
            split,
            f"{each.first:.1f}",
            f"{each.second:.1f}",
            f"{each.difference:+.1f}" + ("" if each.error is None else f" +- {each.error:.1f}"),
            f"{each.percent:+.1f}",
            str(each.systems),
        ]
        for split, each in found.items()
    ]
    split, first = next(iter(found.items()))
    return (
        f"{text_table(header, rows)}\n"
        "force MAE, meV/A; +-: standard error of the difference over relaxations, because frames "
        "of one relaxation are similar\n"
        "\n"
        f"{_sentence(split, first)}"
    )


def _sentence(split: str, errors: PairedErrors) -> str:
    """In words. One training run each: what another seed gives is not in the error."""
    if errors.error is None:
        size = "but one system says nothing about others"
    elif errors.is_clear:
        size = "more than twice its standard error"
    else:
        size = "less than twice its standard error, so it may be different for other structures"
    how = "lower" if errors.difference < 0 else "higher"
    return (
        f"On {split} the force error is {abs(errors.percent):.0f} % {how} with DeNS, {size}. "
        "This compares only one training of each kind; another --seed gives other data and other "
        "numbers."
    )
