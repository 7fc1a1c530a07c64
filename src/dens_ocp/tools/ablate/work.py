"""``dens-ocp ablate``: the order of things."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tqdm import tqdm

from dens_ocp.errors import DensError
from dens_ocp.launch import processor
from dens_ocp.launch.slurm import submit_array
from dens_ocp.results.pipeline.process import jobs_bar
from dens_ocp.results.report.figures.drawing import save
from dens_ocp.results.scores.score_tables import AVERAGE
from dens_ocp.settings.command_line import changed
from dens_ocp.tools.ablate.comparison import collect, draw, json_table, latex_table, text_table
from dens_ocp.tools.ablate.curve import curve_table, draw_curve
from dens_ocp.tools.ablate.plan import Plan, read_plan
from dens_ocp.tools.ablate.runs import Run, arguments_of, evaluate, runs_of, train, write_config
from dens_ocp.tools.evaluate import refuse_ranks, selected
from dens_ocp.whole_files import write_text


def ablate(
    path: Path, out: Path, only: Sequence[str], options: dict[str, Any], collect_only: bool
) -> int:
    """Run, collect, print.

    Args:
        path: of the plan. out: folder. only: names of runs; empty: all.
        options: of ``fairchem main``, for each run.
        collect_only: run nothing, score what is predicted.

    Returns:
        0, or 2 if a run failed.

    Raises:
        DensError: a mistake in the plan or in a config.
    """
    refuse_ranks("ablate")
    plan = read_plan(path)
    runs = runs_of(plan, path.parent, out)
    chosen = selected(runs, only)
    failed: dict[str, str] = {}
    if collect_only:
        _score_what_is_there(chosen)
    else:
        args = SimpleNamespace(**options)
        processor.choose(args)
        words = changed(vars(args), *options)
        for run in chosen:
            write_config(run)
        if args.submit and _submit(chosen, words):
            return 0
        if not args.submit:
            failed = _run_here(chosen, words)
    _conclude(plan, runs, out)
    for name, reason in failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    return 2 if failed else 0


def _run_here(runs: Sequence[Run], words: list[str]) -> dict[str, str]:
    """One after the other; returns those that failed, with the reason."""
    waiting = [run for run in runs if run.read_scores() is None]
    if len(waiting) < len(runs):
        tqdm.write(f"{len(runs) - len(waiting)} of {len(runs)} runs are done already")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # run_cli ends its process, which saves
    failed = {}
    with jobs_bar([run.name for run in waiting]) as watch:
        for run in waiting:
            try:
                _finish(run, words, partial(watch, run.name))
            except DensError as error:
                failed[run.name] = str(error)
                tqdm.write(f"{run.name} failed")
    return failed


def _finish(run: Run, words: list[str], watch: Callable[[int], None]) -> None:
    watch(1)
    if not run.is_trained():
        train(run, words, lambda epoch: watch(max(1, min(98, int(98 * epoch / run.epochs)))))
    evaluate(run, words, tqdm.write)
    watch(100)
    scores, minutes = (run.read_scores() or {})[AVERAGE], run.read_notes()["seconds"] / 60
    tqdm.write(
        f"{run.name}: forces {scores['force_mae_meV_per_A']:.2f} meV/A, energy "
        f"{scores['energy_mae_meV']:.1f} meV, trained for {minutes:.1f} min"
    )


def _submit(runs: Sequence[Run], words: list[str]) -> bool:
    """Submit what is not trained, then what is not predicted; returns whether anything was."""
    unscored = [run for run in runs if run.read_scores() is None]
    untrained = [run for run in unscored if not run.is_trained()]
    if untrained:
        jobs = submit_array([arguments_of(run, words) for run in untrained])
        for run, job in zip(untrained, jobs, strict=True):
            print(f"{job}: {run.name}")
        print("when the array has ended, run the same command again to submit the predictions")
    submitted = []
    for run in unscored:
        if run not in untrained:
            submitted += evaluate(run, words, print)
    if submitted:
        print("submitted: " + ", ".join(submitted))
        print("when they have ended, run the same command with --collect-only")
    return bool(untrained or submitted)


def _score_what_is_there(runs: Sequence[Run]) -> None:
    for run in runs:
        predicted = any(run.evaluation.predictions(split).is_file() for split in run.score)
        predicted = predicted or any(run.evaluation.path.rglob("*_predictions.npz"))
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
        states = ", ".join(f"{run.name} ({run.state()})" for run in missing[:6])
        more = ", ..." if missing[6:] else ""
        print(f"{len(missing)} of {len(runs)} runs are not done: {states}{more}")
    write_text(out / "table.txt", text)
    write_text(out / "table.tex", latex_table(plan, rows))
    write_text(out / "table.json", json_table(plan, rows))
    figures = {"table": draw(plan, rows)}
    if plan.curve:
        text = curve_table(plan, rows)
        print(f"\n{text}")
        write_text(out / "curve.txt", text)
        figures["curve"] = draw_curve(plan, rows)
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            save(figure, out / f"{name}.{kind}")
    print(f"written: {out}/table.txt, .tex, .json, .png, .svg" + ", curve.*" * bool(plan.curve))
