"""``dens-ocp ablate``: options, and the order of things."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairchem.core.common.flags import flags
from tqdm import tqdm

from dens_ocp.errors import DensError, nearest
from dens_ocp.launch import processor, ranks
from dens_ocp.launch.slurm import submit_array
from dens_ocp.results.pipeline.progress import JobsBar
from dens_ocp.results.report.figures.drawing import save
from dens_ocp.tools.ablate.picture import draw
from dens_ocp.tools.ablate.plan import Plan, read_plan
from dens_ocp.tools.ablate.runs import Run, arguments_of, evaluate, runs_of, train, write_config
from dens_ocp.tools.ablate.tables import collect, json_table, latex_table, text_table
from dens_ocp.whole_files import write_text

_OF_EACH_RUN = (
    "cpu", "num_gpus", "num_nodes", "amp", "print_every",
    "submit", "slurm_partition", "slurm_account", "slurm_qos", "slurm_mem", "slurm_timeout",
)  # fmt: skip
_EPOCH = re.compile(r"\bepoch ([\d.]+(?:e[+-]\d+)?) of ")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dens-ocp ablate``."""
    parser.description = (
        "Train every variant of a plan with every seed, score the models and compare them. Called "
        "again it goes on where it stopped: finished runs are not repeated, interrupted ones "
        "continue from their checkpoint."
    )
    parser.epilog = (
        "example: dens-ocp ablate configs/ablations/oc20_table_1b.yml --num-gpus 8 --amp\n"
        "With --submit the runs become one SLURM array; when it is done, the same command submits "
        "the predictions, and --collect-only prints the table."
    )
    parser.add_argument("plan", type=Path, help="YAML: base config, variants, seeds, what to score "
                        "on; see configs/ablations")  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder (default: ablations/NAME, of the plan)")
    parser.add_argument(
        "--collect-only",
        action="store_true",
        help="run nothing: score what finished jobs have predicted, print the table of what there "
        "is",
    )
    parser.add_argument("--list", action="store_true", help="print where each run stands, and end")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="RUN",
        help="only these runs, dens-seed0 for example (to share the work out)",
    )
    fairchem = parser.add_argument_group("each run", "as of fairchem main")
    for action in flags.get_parser()._actions:
        if action.dest in _OF_EACH_RUN:
            fairchem._add_action(action)


def run(args: argparse.Namespace) -> int:
    """Run, collect, print.

    Returns:
        0, or 2 if a run failed.

    Raises:
        DensError: a mistake in the plan or in a config.
    """
    if ranks.of_environment(os.environ) is not None:
        raise DensError(
            "dens-ocp ablate starts its runs itself: call it once, without srun or torchrun, and "
            "give --num-gpus"
        )
    plan = read_plan(args.plan)
    out = (args.out or Path("ablations") / args.plan.stem).resolve()
    runs = runs_of(plan, args.plan.parent, out)
    chosen = _select(runs, args.only)
    if args.list:
        for each in runs:
            print(f"{each.name}: {_state(each)}")
        return 0
    if not args.collect_only:
        processor.choose(args)
        for each in chosen:
            write_config(each)
    failed: dict[str, str] = {}
    if args.collect_only:
        _score_what_is_there(chosen)
    elif args.submit:
        if _submit(chosen, args):
            return 0
    else:
        failed = _run_here(chosen, _options(args))
    _conclude(plan, runs, out)
    for name, reason in failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    return 2 if failed else 0


def _select(runs: Sequence[Run], names: Sequence[str]) -> list[Run]:
    known = {run.name: run for run in runs}
    for name in names:
        if name not in known:
            raise DensError(
                f"--only: there is no run {name!r}{nearest(name, known)}; runs: {', '.join(known)}"
            )
    return [known[name] for name in names] if names else list(runs)


def _state(run: Run) -> str:
    if run.read_scores() is not None:
        return "done"
    epoch = run.epoch()
    return "trained, not scored" if run.is_trained() else f"epoch {epoch:g} of {run.epochs:g}"


def _options(args: argparse.Namespace) -> list[str]:
    """The options of fairchem that were changed from their defaults."""
    words: list[str] = []
    parser = flags.get_parser()
    for name in _OF_EACH_RUN:
        value: Any = getattr(args, name)
        if value != parser.get_default(name):
            option = "--" + name.replace("_", "-")
            words += [option] if value is True else [option, str(value)]
    return words


def _run_here(runs: Sequence[Run], options: list[str]) -> dict[str, str]:
    """One after the other; returns those that failed, with the reason."""
    waiting = [run for run in runs if run.read_scores() is None]
    if len(waiting) < len(runs):
        tqdm.write(f"{len(runs) - len(waiting)} of {len(runs)} runs are done already")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # run_cli ends its process, which saves
    failed = {}
    bar = JobsBar([run.name for run in waiting])
    try:
        for run in waiting:
            watch = bar.watch(run.name)
            watch(1)
            try:
                if not run.is_trained():
                    train(
                        run, options, lambda line, run=run, watch=watch: _on_line(line, run, watch)
                    )
                evaluate(run, _without_amp(options), tqdm.write)
                watch(100)
                scores = run.read_scores() or {}
                tqdm.write(
                    f"{run.name}: forces {scores['force_mae_meV_per_A']:.2f} meV/A, energy "
                    f"{scores['energy_mae_meV']:.1f} meV, trained for "
                    f"{run.read_notes()['seconds'] / 60:.1f} min"
                )
            except DensError as error:
                failed[run.name] = str(error)
                tqdm.write(f"{run.name} failed")
    finally:
        bar.close()
    return failed


def _without_amp(options: Sequence[str]) -> list[str]:
    """Mixed precision is for training; predictions are made in float32."""
    return [each for each in options if each != "--amp"]


def _on_line(line: str, run: Run, watch: Any) -> None:
    if (found := _EPOCH.search(line)) and run.epochs:
        watch(max(1, min(98, int(98 * float(found[1]) / run.epochs))))


def _submit(runs: Sequence[Run], args: argparse.Namespace) -> bool:
    """Submit what is not trained, then what is not predicted; returns whether anything was."""
    untrained = [run for run in runs if run.read_scores() is None and not run.is_trained()]
    if untrained:
        jobs = submit_array([arguments_of(run, _options(args)) for run in untrained])
        for run, job in zip(untrained, jobs, strict=True):
            print(f"{job}: {run.name}")
        print("when the array is done: the same command again, which submits the predictions")
    submitted = []
    for run in runs:
        if run.read_scores() is None and run not in untrained:
            submitted += evaluate(run, _without_amp(_options(args)), print)
    if submitted:
        print("submitted: " + ", ".join(submitted))
        print("when they are done: the same command with --collect-only")
    return bool(untrained or submitted)


def _score_what_is_there(runs: Sequence[Run]) -> None:
    for run in runs:
        places = run.evaluation
        predicted = (
            any(places.runs.rglob("*_predictions.npz")) or places.predictions_folder.is_dir()
        )
        if run.read_scores() is None and predicted and run.is_trained():
            try:
                evaluate(run, None, print)
            except DensError as error:
                print(f"{run.name}: {error}")


def _conclude(plan: Plan, runs: Sequence[Run], out: Path) -> None:
    missing = [run for run in runs if run.read_scores() is None]
    if len(missing) == len(runs):
        print(f"no run of {out} is done yet")
        return
    rows = collect(plan, runs)
    text = text_table(plan, rows)
    print(f"\n{text}")
    if missing:
        print(f"{len(missing)} of {len(runs)} runs are not done: "
              + ", ".join(f"{run.name} ({_state(run)})" for run in missing[:6])
              + (", ..." if missing[6:] else ""))  # fmt: skip
    for name, content in (
        ("table.txt", text),
        ("table.tex", latex_table(plan, rows)),
        ("table.json", json_table(plan, rows)),
    ):
        write_text(out / name, content)
    figure = draw(plan, rows)
    for name in ("table.png", "table.svg"):
        save(figure, out / name)
    print(f"written: {out}/table.txt, .tex, .json, .png, .svg")
