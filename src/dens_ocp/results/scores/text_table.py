"""Until its last users (``tools``) call tabulate themselves."""

from __future__ import annotations

from collections.abc import Sequence

from dens_ocp.results.scores.score_tables import text_table as format_table  # noqa: F401


def latex_tabular(header: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], left: int) -> str:
    """A ``tabular`` with booktabs rules, of cells that are LaTeX; ``left`` columns to the left."""
    columns = "l" * left + "r" * (len(rows[0]) - left)
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    lines += [" & ".join(line) + r" \\" for line in header]
    lines += ["\\midrule", *(" & ".join(row) + r" \\" for row in rows)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def latex_text(text: str) -> str:
    """``text`` with LaTeX's special characters escaped."""
    escapes = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    escapes |= {character: "\\" + character for character in "&%$#_{}"}
    return "".join(escapes.get(character, character) for character in text)
