"""``dens-ocp demo``: data, training, validation, predictions, relaxations, tables, pictures."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dens_ocp.demo import config, table
from dens_ocp.demo.dataset import QUICK, DataSettings, DemoData, make
from dens_ocp.demo.given import read_given
from dens_ocp.demo.pictures import corruption_picture, curves_picture, parity_picture
from dens_ocp.demo.records import read_folder
from dens_ocp.demo.report import relaxation_table, s2ef_table
from dens_ocp.demo.runs import Runs, Trained
from dens_ocp.demo.splits import VALIDATION_SPLITS
from dens_ocp.demo.submission import complete_trajectories, write_is2re, write_s2ef
from dens_ocp.errors import DensError

DENS, PLAIN = "DeNS", "without DeNS"
EPOCHS, QUICK_EPOCHS = 10, 1
QUICK_RELAXATION_STEPS = 5
_ATOMS_PER_EPOCH = 36_000  # of the embedded data: longer epochs of given data make fewer of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dens-ocp demo``."""
    parser.add_argument("--workdir", type=Path, default=Path("demo-run"), help="where to write")
    parser.add_argument("--compare", action="store_true", help="train the same without DeNS too")
    parser.add_argument(
        "--train-lmdb", type=Path, help="train on this S2EF LMDB (file or folder) instead"
    )
    parser.add_argument("--val-lmdb", type=Path, help="validate on this one; with --train-lmdb")
    parser.add_argument(
        "--epochs",
        type=int,
        help=f"epochs of training (default: {EPOCHS}; fewer where they are longer)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="little data, hardly any training: does it all run?"
    )
    parser.add_argument("--seed", type=int, default=0, help="of data and runs")


def run(args: argparse.Namespace) -> int:
    """Run the demo.

    Raises:
        DensError: options that do not fit together, or a run that failed.
    """
    _check(args)
    started = time.monotonic()
    args.workdir.mkdir(parents=True, exist_ok=True)
    demo = _Demo(args, Runs(args.workdir.resolve(), args.seed, write=_say))
    if args.train_lmdb is None:
        demo.embedded()
    else:
        demo.given()
    _say(f"\nfinished after {time.monotonic() - started:.0f} s")
    return 0


def _check(args: argparse.Namespace) -> None:
    given = [args.train_lmdb, args.val_lmdb]
    if (given[0] is None) != (given[1] is None):
        name, other = ("--train-lmdb", "--val-lmdb")[:: 1 if given[1] is None else -1]
        raise DensError(f"{name} is given without {other}; give both, or none for embedded data")
    for name, path in zip(("--train-lmdb", "--val-lmdb"), given, strict=True):
        if path is not None and not path.exists():
            raise DensError(f"{name}: {path} does not exist")
    if args.epochs is not None and args.epochs < 1:
        raise DensError(f"--epochs: {args.epochs} is not a number of epochs; give 1 or more")
    if args.seed < 0:
        raise DensError(f"--seed: {args.seed} is negative; give 0 or more")
    if args.workdir.exists() and not args.workdir.is_dir():
        raise DensError(f"--workdir: {args.workdir} is a file; name a folder")


def _say(line: str) -> None:
    tqdm.write(line)


def _title(text: str) -> None:
    _say(f"\n== {text}")


@dataclass
class _Demo:
    args: argparse.Namespace
    runs: Runs

    @property
    def cores(self) -> int:
        return min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)

    # ---- embedded data ---------------------------------------------------------------------

    def embedded(self) -> None:
        base = QUICK if self.args.quick else DataSettings()
        settings = DataSettings(**{**vars(base), "seed": self.args.seed})
        _title("data: adsorbates on fcc metals and alloys, labelled by ASE's EMT")
        data = make(self.runs.workdir / ("data-quick" if self.args.quick else "data"), settings)
        for name, count in data.counts.items():
            _say(f"  {name:<20} {count:5d}")
        records = {split: read_folder(data.s2ef(split)) for split in VALIDATION_SPLITS}
        train = read_folder(data.s2ef("train"))
        pictures = [corruption_picture(self._pictures, records["val_id"], self.args.seed)]

        trained = self._train(
            train=data.s2ef("train"),
            val=data.s2ef("val_id"),
            train_format="dens_lmdb",
            normalizers=data.normalizers,
            records=len(train),
            atoms=sum(record.natoms for record in train),
        )
        pictures.append(curves_picture(self._pictures, trained))
        results = self._evaluate(trained, data)

        _title("errors (free atoms, computed from the prediction files)")
        targets = {split: table.targets(records[split]) for split in VALIDATION_SPLITS}
        true = {split: labels for split, (_, labels) in targets.items()}
        predicted = {
            run.name: {
                split: table.predictions(results["predict", run.name, split], targets[split][0])
                for split in VALIDATION_SPLITS
            }
            for run in trained
        }
        train_labels = table.targets(train)[1]
        text = s2ef_table(predicted, true, train_labels)
        _say(text)
        for run in trained:
            fairchem = 1000 * results["validate", run.name, "val_id"]["forces_mae"]
            _say(f"fairchem's validate, {run.name}, val_id: force MAE {fairchem:.1f} meV/A")
        pictures += [
            parity_picture(self._pictures, run.name, predicted[run.name], true) for run in trained
        ]
        relaxed = self._relaxations(trained, data, results, predicted, targets, train_labels)
        submissions = self._submissions(trained, results)
        self._finish([text, relaxed], [*pictures, *submissions], trained)

    def _evaluate(self, trained: list[Trained], data: DemoData) -> dict[tuple[str, str, str], Any]:
        """Results by mode, run and split."""
        _title("validate, predict, run-relaxations on the four validation splits")
        steps = QUICK_RELAXATION_STEPS if self.args.quick else None
        jobs: dict[tuple[str, str, str], Callable[[], Any]] = {}
        for run in trained:
            for split in VALIDATION_SPLITS:
                jobs["run-relaxations", run.name, split] = lambda run=run, split=split: (
                    self.runs.relax(run, data.is2re(split), 1, steps)
                )
            jobs["validate", run.name, "val_id"] = lambda run=run: (
                self.runs.validate(run, data.s2ef("val_id"), 1)
            )
            for split in VALIDATION_SPLITS:
                jobs["predict", run.name, split] = lambda run=run, split=split: (
                    self.runs.predict(run, data.s2ef(split), 1)
                )
        return _side_by_side(jobs, self.cores)

    def _relaxations(
        self, trained: list[Trained], data: DemoData, results, predicted, targets, train
    ) -> str:
        errors, mean = {run.name: {} for run in trained}, {}
        for split in VALIDATION_SPLITS:
            systems = read_folder(data.is2re(split))
            relaxed = [float(system.y_relaxed) for system in systems]
            off = [abs(energy - train.energy.mean()) for energy in relaxed]
            mean[split] = 1000 * sum(off) / len(off)
            ids = targets[split][0]
            for run in trained:
                positions, trajectories = results["run-relaxations", run.name, split]
                # frame 0 of a trajectory is the initial structure
                initial = {
                    name.removesuffix("_0"): energy
                    for name, energy in zip(ids, predicted[run.name][split].energy, strict=True)
                    if name.endswith("_0")
                }
                complete_trajectories(trajectories, systems, initial)
                errors[run.name][split] = table.relaxation_errors(
                    systems,
                    table.relaxed_energies(trajectories),
                    table.relaxed_positions(positions),
                )
        text = relaxation_table(errors, mean)
        _title("relaxations (distance: free atoms from the structure relaxed with EMT)")
        _say(text)
        return text

    def _submissions(self, trained: list[Trained], results) -> list[Path]:
        written = []
        for run in trained:
            folder = self._folder / "submission"
            folder.mkdir(parents=True, exist_ok=True)
            name = run.name.replace(" ", "-")
            s2ef = {split: results["predict", run.name, split] for split in VALIDATION_SPLITS}
            is2re = {
                split: results["run-relaxations", run.name, split][1]
                for split in VALIDATION_SPLITS
            }
            written.append(write_s2ef(folder / f"{name}-s2ef.npz", s2ef))
            written.append(write_is2re(folder / f"{name}-is2re.npz", is2re))
        return written

    # ---- given data ------------------------------------------------------------------------

    def given(self) -> None:
        _title(f"data: {self.args.train_lmdb} and {self.args.val_lmdb}")
        train = read_given("--train-lmdb", self.args.train_lmdb)
        val = read_given("--val-lmdb", self.args.val_lmdb)
        _say(f"  {train.count} records to train on, {val.count} to validate on")
        pictures = [corruption_picture(self._pictures, val.some, self.args.seed)]
        trained = self._train(
            train=self.args.train_lmdb.resolve(),
            val=self.args.val_lmdb.resolve(),
            train_format="dens_lmdb",
            normalizers=train.normalizers,
            records=train.count,
            atoms=train.atoms,
        )
        pictures.append(curves_picture(self._pictures, trained))
        _title("validate, predict")
        source = self.args.val_lmdb.resolve()
        jobs: dict[tuple[str, str, str], Callable[[], Any]] = {}
        for run in trained:
            jobs["validate", run.name, "val"] = lambda run=run: self.runs.validate(run, source, 1)
            jobs["predict", run.name, "val"] = lambda run=run: self.runs.predict(run, source, 1)
        results = _side_by_side(jobs, self.cores)
        predicted = {
            run.name: {"val": table.predictions(results["predict", run.name, "val"], val.ids)}
            for run in trained
        }
        _title("errors (free atoms, computed from the prediction files)")
        text = s2ef_table(predicted, {"val": val.labels}, train.labels)
        _say(text)
        pictures += [
            parity_picture(self._pictures, run.name, predicted[run.name], {"val": val.labels})
            for run in trained
        ]
        self._finish([text], pictures, trained)

    # ---- both ------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path:
        return self.runs.workdir / "report" / self.runs.run_id

    @property
    def _pictures(self) -> Path:
        return self._folder / "pictures"

    def _epochs(self, atoms: int) -> int:
        if self.args.epochs is not None:
            return self.args.epochs
        if self.args.quick:
            return QUICK_EPOCHS
        return max(1, min(EPOCHS, round(EPOCHS * _ATOMS_PER_EPOCH / atoms)))

    def _train(self, *, records: int, atoms: int, **options: Any) -> list[Trained]:
        epochs = self._epochs(atoms)
        steps = math.ceil(records / config.recipe()["optim"]["batch_size"])
        names = [DENS, PLAIN] if self.args.compare else [DENS]
        threads = max(1, self.cores // len(names))
        _title(f"training: {epochs} epochs of {steps} steps ({' and '.join(names)})")
        jobs = {}
        for name in names:
            settings = config.training(
                **options, epochs=epochs, steps_per_epoch=steps, dens=name == DENS
            )
            jobs[name] = lambda name=name, settings=settings: self.runs.train(
                name, settings, epochs * steps, threads
            )
        done = _side_by_side(jobs, len(names), progress=False)
        return [done[name] for name in names]

    def _finish(self, texts: list[str], files: list[Path], trained: list[Trained]) -> None:
        path = self._folder / "table.txt"
        path.write_text("\n\n".join(texts) + "\n")
        _title("written")
        for file in [path, *files, *(run.checkpoint for run in trained)]:
            _say(f"  {file}")


def _side_by_side(
    jobs: dict[Any, Callable[[], Any]], workers: int, progress: bool = True
) -> dict[Any, Any]:
    """Results of ``jobs``, ``workers`` of them at a time; the first failure ends the rest."""
    results = {}
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(jobs), unit="run", disable=not progress) as bar,
    ):
        pending = {pool.submit(job): key for key, job in jobs.items()}
        try:
            for future in as_completed(pending):
                results[pending[future]] = future.result()
                bar.set_postfix_str(_text(pending[future]))
                bar.update()
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    return results


def _text(key: Any) -> str:
    return " ".join(key) if isinstance(key, Iterable) and not isinstance(key, str) else str(key)
