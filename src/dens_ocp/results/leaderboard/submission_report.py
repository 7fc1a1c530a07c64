"""What the checker of leaderboard files found, and how it is printed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dens_ocp.results.leaderboard.boards import Board
from dens_ocp.results.scores.score_tables import text_table


@dataclass
class SplitSummary:
    """What a split holds.

    Attributes:
        structures: number of ids. atoms: number of rows of forces or positions.
        energy: lowest, mean, highest, eV. largest_force: norm, eV/Angstrom.
        dtypes: of the arrays of floats.
    """

    structures: int
    atoms: int | None = None
    energy: tuple[float, float, float] | None = None
    largest_force: float | None = None
    dtypes: tuple[str, ...] = ()


@dataclass
class Report:
    """The result of a check.

    Attributes:
        problems: what is wrong; a file without any is right as far as was asked.
        notes: what is worth knowing, but not wrong.
    """

    path: Path
    task: str
    board: Board
    splits: dict[str, SplitSummary] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def format_report(report: Report) -> str:
    """The table of splits, the notes, and ``ok`` or the problems."""
    header = ["split", "structures", "atoms", "energy min", "mean", "max (eV)"]
    header += ["largest force (eV/A)", "dtype"]
    rows = [
        (
            split,
            str(each.structures),
            "-" if each.atoms is None else str(each.atoms),
            *(["-"] * 3 if each.energy is None else [f"{value:.3f}" for value in each.energy]),
            "-" if each.largest_force is None else f"{each.largest_force:.3f}",
            ", ".join(dict.fromkeys(each.dtypes)) or "-",
        )
        for split, each in report.splits.items()
    ]
    lines = [f"{report.path}: {report.board.name}, {report.task.upper()}"]
    if rows:
        lines.append(text_table(header, rows))
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"problem: {problem}" for problem in report.problems]
    lines.append("ok" if report.ok else f"{len(report.problems)} problem(s)")
    return "\n".join(lines)
