"""Tables for people: columns of plain text, and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Plain text, columns aligned: the first ``left`` to the left, the others to the right.

    >>> print(format_table(["split", "MAE"], [["id", "3.1"]]))
    split  MAE
    -----  ---
    id     3.1
    """
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def latex_tabular(header: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], left: int) -> str:
    """A ``tabular`` with booktabs rules.

    Args:
        header: lines of cells, already LaTeX; a line may end early where cells span columns.
        rows: lines of cells, already LaTeX.
        left: number of left-aligned columns; the others are aligned to the right.
    """
    columns = "l" * left + "r" * (len(rows[0]) - left)
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    lines += [" & ".join(line) + r" \\" for line in header]
    lines += ["\\midrule", *(" & ".join(row) + r" \\" for row in rows)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def latex_text(text: str) -> str:
    """``text`` with LaTeX's special characters escaped.

    >>> latex_text("a_b & 5%")
    'a\\\\_b \\\\& 5\\\\%'
    """
    escapes = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    escapes |= {character: "\\" + character for character in "&%$#_{}"}
    return "".join(escapes.get(character, character) for character in text)
