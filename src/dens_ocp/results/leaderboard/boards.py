"""The leaderboards of OC20 and OC22: which test splits they ask for, under which names."""

from __future__ import annotations

from dataclasses import dataclass

from dens_ocp.errors import DensError, nearest


@dataclass(frozen=True)
class Board:
    """A leaderboard, on EvalAI or its successor on Hugging Face (the same files).

    Attributes:
        name: ``OC20`` or ``OC22``, as fairchem's ``make_submission_file`` calls it.
        splits: names of the splits in the board's order; they are the prefixes of the keys in a
            submission file (``id_ids``, ``ood_ads_energy``, ...).
        titles: headings of the splits in tables.
        prediction_dtype: of predictions, the smallest that is accurate enough: OC20 energies are
            adsorption energies (float16 does), OC22 ones are total energies.
    """

    name: str
    splits: tuple[str, ...]
    titles: tuple[str, ...]
    prediction_dtype: str


OC20 = Board(
    "OC20",
    ("id", "ood_ads", "ood_cat", "ood_both"),
    ("ID", "OOD Ads", "OOD Cat", "OOD Both"),
    "float16",
)
OC22 = Board("OC22", ("id", "ood"), ("ID", "OOD"), "float32")

BOARDS = {board.name: board for board in (OC20, OC22)}


def board(name: str) -> Board:
    """The board called ``name``, upper or lower case.

    Raises:
        DensError: there is none.
    """
    try:
        return BOARDS[name.upper()]
    except KeyError:
        raise DensError(
            f"there is no board {name!r}{nearest(name.upper(), BOARDS)}; "
            f"boards: {', '.join(BOARDS)}"
        ) from None
