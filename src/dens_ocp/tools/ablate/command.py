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
    "With --submit the runs become one SLURM array; when it is done, the same command\n"
    "submits the predictions, and --collect-only prints the table.",
)
@click.argument("plan", type=ConfigPath(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path),
              help="folder (default: ablations/NAME, of the plan)")  # fmt: skip
@click.option("--collect-only", is_flag=True, help="run nothing: score what finished jobs have "
              "predicted, print the table of what there is")  # fmt: skip
@click.option("--list", "list_only", is_flag=True, help="print where each run stands, and end")
@click.option("--only", multiple=True, metavar="RUN...",
              help="only these runs, dens-seed0 for example (to share the work out)")  # fmt: skip
@fairchem_options(*OF_EACH_RUN)
def command(
    plan: Path, out: Path | None, collect_only: bool, list_only: bool, only: tuple[str, ...],
    **of_each_run: Any,
) -> int:  # fmt: skip
    """Train every variant of a plan with every seed, score the models and compare them. Called
    again it goes on where it stopped: finished runs are not repeated, interrupted ones continue
    from their checkpoint.

    PLAN: YAML: base config, variants, seeds, what to score on; see configs/ablations.
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
