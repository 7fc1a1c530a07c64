"""What is done with the trained models: predictions, relaxations, submission files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dens_ocp.demo import table
from dens_ocp.demo.dataset import DemoData
from dens_ocp.demo.records import read_folder
from dens_ocp.demo.runs import Runs, Trained
from dens_ocp.demo.splits import VALIDATION_SPLITS
from dens_ocp.demo.submission import complete_trajectories, write_is2re, write_s2ef
from dens_ocp.pipeline.side_by_side import cores, side_by_side


@dataclass(frozen=True)
class Results:
    """Where the results lie, by name of the run and split.

    Attributes:
        validation: fairchem's metrics (eV, eV/Angstrom) on the first split, by run.
        predictions: prediction npz.
        positions: npz of relaxed positions. trajectories: folders of trajectories.
    """

    validation: dict[str, dict[str, float]]
    predictions: dict[str, dict[str, Path]]
    positions: dict[str, dict[str, Path]]
    trajectories: dict[str, dict[str, Path]]


def evaluate(
    runs: Runs,
    trained: Sequence[Trained],
    s2ef: dict[str, Path],
    is2re: dict[str, Path] | None = None,
    relaxation_steps: int | None = None,
) -> Results:
    """Validate on the first split of ``s2ef``, predict on all, relax the systems of ``is2re``."""
    jobs: dict[tuple[str, ...], Callable[[], Any]] = {}
    first = next(iter(s2ef.values()))
    for run in trained:  # the longest first
        for split, source in (is2re or {}).items():
            jobs["run-relaxations", run.name, split] = partial(
                runs.relax, run, source, relaxation_steps
            )
        for split, source in s2ef.items():
            jobs["predict", run.name, split] = partial(runs.predict, run, source)
        jobs["validate", run.name] = partial(runs.validate, run, first)
    done = side_by_side(jobs, cores())

    def by_split(mode: str, splits, pick: Callable = lambda result: result):
        return {
            run.name: {split: pick(done[mode, run.name, split]) for split in splits}
            for run in trained
        }

    return Results(
        validation={run.name: done["validate", run.name] for run in trained},
        predictions=by_split("predict", s2ef),
        positions=by_split("run-relaxations", is2re or {}, lambda result: result[0]),
        trajectories=by_split("run-relaxations", is2re or {}, lambda result: result[1]),
    )


def relaxation_errors(
    data: DemoData, results: Results, predicted: dict[str, dict[str, dict[str, float]]]
) -> dict[str, dict[str, table.RelaxationErrors]]:
    """Errors of relaxations by run and split; completes the trajectories on the way.

    Args:
        data: with the IS2RE records.
        results: of :func:`evaluate`.
        predicted: energies (eV) by run, split and ``sid_fid``; fid 0 is the initial structure.
    """
    errors: dict[str, dict[str, table.RelaxationErrors]] = {}
    for name, folders in results.trajectories.items():
        errors[name] = {}
        for split, folder in folders.items():
            systems = read_folder(data.is2re(split))
            initial = {
                key.removesuffix("_0"): energy
                for key, energy in predicted[name][split].items()
                if key.endswith("_0")
            }
            complete_trajectories(folder, systems, initial)
            errors[name][split] = table.relaxation_errors(
                systems,
                table.relaxed_energies(folder),
                table.relaxed_positions(results.positions[name][split]),
            )
    return errors


def mean_energy_errors(data: DemoData, mean: float) -> dict[str, float]:
    """MAE (meV) of ``mean`` (eV) as the relaxed energy, by split."""
    errors = {}
    for split in VALIDATION_SPLITS:
        off = [abs(float(system.y_relaxed) - mean) for system in read_folder(data.is2re(split))]
        errors[split] = 1000 * sum(off) / len(off)
    return errors


def write_submissions(folder: Path, results: Results) -> list[Path]:
    """``<run>-s2ef.npz`` and ``<run>-is2re.npz`` of every run; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in results.predictions:
        stem = name.replace(" ", "-")
        written.append(write_s2ef(folder / f"{stem}-s2ef.npz", results.predictions[name]))
        written.append(write_is2re(folder / f"{stem}-is2re.npz", results.trajectories[name]))
    return written
