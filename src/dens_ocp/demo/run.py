"""``dens-ocp demo``: data, training, validation, predictions, relaxations, tables, pictures."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from tqdm import tqdm

from dens_ocp.demo import config
from dens_ocp.demo.dataset import QUICK, DataSettings, make
from dens_ocp.demo.evaluation import (
    Results,
    evaluate,
    mean_energy_errors,
    relaxation_errors,
    write_submissions,
)
from dens_ocp.demo.given import read_given
from dens_ocp.demo.pictures import corruption_picture, curves_picture, parity_picture
from dens_ocp.demo.records import read_folder
from dens_ocp.demo.report import relaxation_table, s2ef_table
from dens_ocp.demo.runs import Runs, Trained
from dens_ocp.demo.splits import VALIDATION_SPLITS
from dens_ocp.demo.table import Labels, predictions, targets
from dens_ocp.errors import DensError
from dens_ocp.pipeline.side_by_side import cores, side_by_side

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

    def embedded(self) -> None:
        """The demo on the data set that it makes."""
        _title("data: adsorbates on fcc metals and alloys, labelled by ASE's EMT")
        settings = replace(QUICK if self.args.quick else DataSettings(), seed=self.args.seed)
        data = make(self.runs.workdir / ("data-quick" if self.args.quick else "data"), settings)
        for name, count in data.counts.items():
            _say(f"  {name:<20} {count:5d}")
        train = read_folder(data.s2ef("train"))
        records = {split: read_folder(data.s2ef(split)) for split in VALIDATION_SPLITS}
        pictures = [corruption_picture(self._pictures, records["val_id"], self.args.seed)]

        trained = self._train(
            train=data.s2ef("train"),
            val=data.s2ef("val_id"),
            normalizers=data.normalizers,
            records=len(train),
            atoms=sum(record.natoms for record in train),
        )
        pictures.append(curves_picture(self._pictures, trained))

        _title("validate, predict, run-relaxations on the four validation splits")
        results = evaluate(
            self.runs,
            trained,
            s2ef={split: data.s2ef(split) for split in VALIDATION_SPLITS},
            is2re={split: data.is2re(split) for split in VALIDATION_SPLITS},
            relaxation_steps=QUICK_RELAXATION_STEPS if self.args.quick else None,
        )
        true = {split: targets(each) for split, each in records.items()}
        train_labels = targets(train)[1]
        predicted, errors, drawn = self._errors(trained, results, true, train_labels)

        _title("relaxations (distance: free atoms from the structure relaxed with EMT)")
        energies = {
            name: {
                split: dict(zip(true[split][0], labels.energy, strict=True))
                for split, labels in splits.items()
            }
            for name, splits in predicted.items()
        }
        relaxed = relaxation_table(
            relaxation_errors(data, results, energies),
            mean_energy_errors(data, train_labels.energy.mean()),
        )
        _say(relaxed)
        submissions = write_submissions(self._folder / "submission", results)
        self._finish([errors, relaxed], [*pictures, *drawn, *submissions], trained)

    def given(self) -> None:
        """The demo on the user's data."""
        sources = self.args.train_lmdb.resolve(), self.args.val_lmdb.resolve()
        _title(f"data: {sources[0]} and {sources[1]}")
        train = read_given("--train-lmdb", sources[0])
        val = read_given("--val-lmdb", sources[1])
        _say(f"  {train.count} records to train on, {val.count} to validate on")
        known = val.known_to(train)
        parts = {}
        if not known.all():
            new = frozenset().union(*val.elements) - frozenset().union(*train.elements)
            names = ", ".join(chemical_symbols[number] for number in sorted(new))
            _say(f"  {(~known).sum()} of them have elements that no training record has: {names}")
            parts = {"val, new elements": ~known, "val, the others": known} if known.any() else {}
        pictures = [corruption_picture(self._pictures, val.some, self.args.seed)]
        trained = self._train(
            train=sources[0],
            val=sources[1],
            normalizers=train.normalizers,
            records=train.count,
            atoms=train.atoms,
        )
        pictures.append(curves_picture(self._pictures, trained))
        _title("validate, predict")
        results = evaluate(self.runs, trained, s2ef={"val": sources[1]})
        true = {"val": (val.ids, val.labels)}
        _, errors, drawn = self._errors(trained, results, true, train.labels, parts)
        self._finish([errors], [*pictures, *drawn], trained)

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
        names = [DENS, PLAIN] if self.args.compare else [DENS]
        # a second process makes more of a second core than a second thread, for a small model
        ranks = max(1, cores() // len(names))
        batch_size = config.recipe()["optim"]["batch_size"]
        steps = math.ceil(math.ceil(records / ranks) / batch_size)
        _title(f"training: {epochs} epochs of {steps} steps ({' and '.join(names)})")
        jobs = {}
        for name in names:
            settings = config.training(
                **options, epochs=epochs, steps_per_epoch=steps, dens=name == DENS
            )
            jobs[name] = partial(self.runs.train, name, settings, epochs * steps, ranks)
        done = side_by_side(jobs, len(names), progress=False)
        return [done[name] for name in names]

    def _errors(
        self,
        trained: list[Trained],
        results: Results,
        true: dict[str, tuple[list[str], Labels]],
        train: Labels,
        parts: dict[str, np.ndarray] | None = None,
    ) -> tuple[dict[str, dict[str, Labels]], str, list[Path]]:
        """Predictions by run and split, the printed table, the parity plots; ``parts`` of the
        first split (masks by name) are shown as splits of their own."""
        _title("errors (free atoms, computed from the prediction files)")
        predicted = {
            name: {split: predictions(path, true[split][0]) for split, path in files.items()}
            for name, files in results.predictions.items()
        }
        labels = {split: each for split, (_, each) in true.items()}
        whole = next(iter(labels))
        for part, mask in (parts or {}).items():
            labels[part] = labels[whole].where(mask)
            for splits in predicted.values():
                splits[part] = splits[whole].where(mask)
        text = s2ef_table(predicted, labels, train)
        _say(text)
        for run in trained:
            fairchem = 1000 * results.validation[run.name]["forces_mae"]
            _say(f"fairchem's own validate, {next(iter(true))}, {run.name}: {fairchem:.1f} meV/A")
        drawn = [
            parity_picture(self._pictures, name, labels_of, labels)
            for name, labels_of in predicted.items()
        ]
        return predicted, text, drawn

    def _finish(self, texts: list[str], files: list[Path], trained: list[Trained]) -> None:
        path = self._folder / "table.txt"
        path.write_text("\n\n".join(texts) + "\n")
        _title("written")
        for file in [path, *files, *(run.checkpoint for run in trained)]:
            _say(f"  {file}")
