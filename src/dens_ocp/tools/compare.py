"""``dens-ocp compare``: the scores of several evaluations in one table."""

from __future__ import annotations

from pathlib import Path

import click

from dens_ocp.whole_files import write_text

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("evaluations", nargs=-1, required=True, type=_FILE, metavar="EVALUATION...")
@click.option("--json", type=_FILE, metavar="FILE", help="write the unrounded numbers to FILE")
@click.option("--latex", type=_FILE, metavar="FILE", help="write the table to FILE in LaTeX")
def command(evaluations: tuple[Path, ...], json: Path | None, latex: Path | None) -> None:
    """Compare the scores of several checkpoints, for example with and without DeNS.

    Each EVALUATION is a folder that `dens-ocp evaluate` wrote. All must be of the same data sets.
    Changes are relative to the first evaluation.

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
