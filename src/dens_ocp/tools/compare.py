"""``dens-ocp compare``: the scores of several evaluations in one table."""

from __future__ import annotations

from pathlib import Path

import click

from dens_ocp.whole_files import write_text

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("evaluations", nargs=-1, required=True, type=_FILE, metavar="EVALUATION...")
@click.option("--json", type=_FILE, metavar="FILE", help="write unrounded numbers")
@click.option("--latex", type=_FILE, metavar="FILE", help="write the table for LaTeX")
def command(evaluations: tuple[Path, ...], json: Path | None, latex: Path | None) -> None:
    """Scores of several checkpoints beside each other: with and without DeNS for example.

    Each EVALUATION is a folder that `dens-ocp evaluate` made, of the same data sets; changes are
    those against the first.

    \b
      dens-ocp compare evaluations/without_dens evaluations/with_dens
    """
    from dens_ocp.results.scores import comparison

    found = comparison.named(evaluations)
    rows = comparison.compared(found)
    print(comparison.table(found, rows), end="")
    if json is not None:
        write_text(json, comparison.as_json(found, rows))
    if latex is not None:
        write_text(latex, comparison.latex(found, rows))
