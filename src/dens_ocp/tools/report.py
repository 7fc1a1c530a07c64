"""``dens-ocp report``: one page about a training run and its evaluation."""

from __future__ import annotations

from pathlib import Path

import click

from dens_ocp.errors import DensError


@click.command()
@click.argument("run")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    help="the --run-dir of the training, the folder with checkpoints/ and logs/",
)
@click.option(
    "--evaluation",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="folder of a `dens-ocp evaluate`; adds errors and relaxations to the report",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="where to write index.html and the pictures (default: report/ in the evaluation folder, "
    "else <run-dir>/results/<run>/report)",
)
def command(run: str, run_dir: Path, evaluation: Path | None, out: Path | None) -> None:
    """Write an HTML report on a training run and its evaluation, with a judgement of both.

    RUN is a training run, given by its name (2024-05-01-12-00-00-123456-first), its folder in
    checkpoints/ or a checkpoint; or RUN is an evaluation folder, which names its checkpoint.
    """
    from dens_ocp.results.report.page import sources, write_report

    training, evaluated = sources(run, run_dir, evaluation)
    if out is None and evaluated is not None:
        out = evaluated.report
    elif out is None:
        assert training is not None
        out = training.run_dir / "results" / training.name / "report"
    if out.exists() and not out.is_dir():
        raise DensError(f"--out: {out} is a file; name a folder")
    path, verdict = write_report(training, evaluated, out)
    print(f"{verdict}\n{path}")
