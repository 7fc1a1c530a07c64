"""``dens-ocp ablate``: options. What it does, :mod:`dens_ocp.tools.ablate.work`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dens_ocp.settings.command_line import Command, fairchem_options
from dens_ocp.settings.recipes import ConfigPath

OF_EACH_RUN = (
    "cpu", "num_gpus", "num_nodes", "amp", "print_every",
    "submit", "slurm_partition", "slurm_account", "slurm_qos", "slurm_mem", "slurm_timeout",
)  # fmt: skip
"""Options of ``fairchem main`` that each run gets."""


@click.command(
    cls=Command,
    epilog="\b\nexample: dens-ocp ablate configs/ablations/oc20_table_1b.yml --num-gpus 8 --amp\n"
    "With --submit the runs are submitted as one SLURM array. When it has ended, run the same\n"
    "command again to submit the predictions, and then with --collect-only to print the table.",
)
@click.argument("plan", type=ConfigPath(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path),
              help="folder of all runs (default: ablations/NAME, NAME of the plan)")  # fmt: skip
@click.option("--collect-only", is_flag=True, help="start no run: score what finished jobs have "
              "predicted, and print the table of all scored runs")  # fmt: skip
@click.option("--list", "list_only", is_flag=True, help="print the state of each run and exit")
@click.option("--only", multiple=True, metavar="RUN...",
              help="do only these runs, for example dens-seed0 (to divide the work between "
              "machines)")  # fmt: skip
@fairchem_options(*OF_EACH_RUN)
def command(
    plan: Path, out: Path | None, collect_only: bool, list_only: bool, only: tuple[str, ...],
    **of_each_run: Any,
) -> int:  # fmt: skip
    """Train every variant of a plan with every seed, score the models and compare them. If it was
    interrupted, run it again to resume: finished runs are not repeated, and interrupted runs
    continue from their checkpoint.

    PLAN: a YAML file with the base config, the variants, the seeds and the data sets to score on;
    see configs/ablations.
    """
    from dens_ocp.tools.ablate.plan import read_plan
    from dens_ocp.tools.ablate.runs import runs_of
    from dens_ocp.tools.ablate.work import ablate

    out = (out or Path("ablations") / plan.stem).resolve()
    if not list_only:
        return ablate(plan, out, only, of_each_run, collect_only)
    for run in runs_of(read_plan(plan), plan.parent, out):
        print(f"{run.name}: {run.state()}")
    return 0
