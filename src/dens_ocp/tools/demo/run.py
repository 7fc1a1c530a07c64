"""``dens-ocp demo``: data, training, validation, predictions, relaxations, tables, pictures."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from tqdm import tqdm

from dens_ocp.checkpoints.run_folder import check_writable
from dens_ocp.data.structures import Structure, open_structures
from dens_ocp.errors import DensError
from dens_ocp.relaxation.trajectories import energies_of_trajectories
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.side_by_side import cores, side_by_side
from dens_ocp.results.scores.prediction_files import positions_of_npz, read_predictions
from dens_ocp.results.scores.scores import S2EFScores, is2re_scores, is2rs_scores, s2ef_scores
from dens_ocp.tools.demo import config
from dens_ocp.tools.demo.baselines import baselines
from dens_ocp.tools.demo.dataset import QUICK, DataSettings, make
from dens_ocp.tools.demo.evaluation import evaluate, write_config
from dens_ocp.tools.demo.given import GivenData, read_given
from dens_ocp.tools.demo.interrupted import run_id_of
from dens_ocp.tools.demo.labels import Labels
from dens_ocp.tools.demo.pictures import corruption_picture, curves_picture
from dens_ocp.tools.demo.runs import Runs, Trained
from dens_ocp.tools.demo.splits import BOARD_SPLITS
from dens_ocp.tools.demo.tables import relaxation_table, s2ef_table

DENS, PLAIN = "DeNS", "without DeNS"
EPOCHS, QUICK_EPOCHS = 10, 1
QUICK_RELAXATION_STEPS = 5
_OF_THE_RUNS = ("compare", "train_lmdb", "val_lmdb", "epochs", "quick", "seed")
NOBODY = "nobody, train's mean energy"
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
    check_writable(args.workdir, "--workdir", "data, runs and the report go there")
    args.workdir.mkdir(parents=True, exist_ok=True)
    given = {name: getattr(args, name) for name in _OF_THE_RUNS}
    with run_id_of(args.workdir, given) as (run_id, goes_on):
        if goes_on:
            _say(f"going on with the demo {run_id}, which was interrupted")
        demo = _Demo(args, Runs(args.workdir.resolve(), args.seed, write=_say, run_id=run_id))
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
        train = read_given("train", data.s2ef("train"))
        s2ef = {split: data.s2ef(source) for split, source in BOARD_SPLITS.items()}
        is2re = {split: data.is2re(source) for split, source in BOARD_SPLITS.items()}
        frames = {split: _structures(source) for split, source in s2ef.items()}
        systems = {split: _structures(source) for split, source in is2re.items()}
        pictures = [corruption_picture(self._folder, frames["id"], self.args.seed)]
        trained = self._train(data.s2ef("train"), s2ef["id"], data.normalizers, train)
        pictures.append(curves_picture(self._folder, trained))
        config = write_config(
            self._folder / "evaluate.yml",
            s2ef,
            is2re,
            QUICK_RELAXATION_STEPS if self.args.quick else None,
            board="OC20",
        )
        results = self._evaluate(trained, config)
        texts = [
            self._errors(results, frames, train.labels),
            self._relaxations(results, systems, train.labels),
        ]
        self._validate(trained, "id", s2ef["id"])
        self._finish(texts, pictures, trained, results)

    def given(self) -> None:
        """The demo on the user's data."""
        sources = self.args.train_lmdb.resolve(), self.args.val_lmdb.resolve()
        _title(f"data: {sources[0]} and {sources[1]}")
        train = read_given("--train-lmdb", sources[0])
        val = read_given("--val-lmdb", sources[1], unique=True)
        _say(f"  {train.count} records to train on, {val.count} to validate on")
        parts = self._parts(train, val)
        pictures = [corruption_picture(self._folder, val.structures[:100], self.args.seed)]
        trained = self._train(*sources, train.normalizers, train)
        pictures.append(curves_picture(self._folder, trained))
        config = write_config(self._folder / "evaluate.yml", {"val": sources[1]})
        results = self._evaluate(trained, config)
        texts = [self._errors(results, {"val": val.structures}, train.labels, parts)]
        self._validate(trained, "val", sources[1])
        self._finish(texts, pictures, trained, results)

    @property
    def _folder(self) -> Path:
        return self.runs.workdir / "report" / self.runs.run_id

    @staticmethod
    def _parts(train: GivenData, val: GivenData) -> dict[str, np.ndarray]:
        """Masks of the structures with and without elements that were not trained on."""
        known = val.known_to(train)
        if known.all():
            return {}
        names = ", ".join(chemical_symbols[each] for each in sorted(val.elements - train.elements))
        _say(f"  {(~known).sum()} of them have elements that no training record has: {names}")
        return {"val, new elements": ~known, "val, the others": known} if known.any() else {}

    def _epochs(self, atoms: int) -> int:
        if self.args.epochs is not None:
            return self.args.epochs
        if self.args.quick:
            return QUICK_EPOCHS
        return max(1, min(EPOCHS, round(EPOCHS * _ATOMS_PER_EPOCH / atoms)))

    def _train(
        self, train: Path, val: Path, normalizers: dict[str, dict[str, float]], data: GivenData
    ) -> list[Trained]:
        epochs = self._epochs(data.atoms)
        names = [DENS, PLAIN] if self.args.compare else [DENS]
        # a second process makes more of a second core than a second thread, for a small model
        ranks = max(1, cores() // len(names))
        batch_size = config.recipe()["optim"]["batch_size"]
        steps = math.ceil(math.ceil(data.count / ranks) / batch_size)
        _title(f"training: {epochs} epochs of {steps} steps ({' and '.join(names)})")
        jobs = {}
        for name in names:
            settings = config.training(
                train=train,
                val=val,
                normalizers=normalizers,
                epochs=epochs,
                steps_per_epoch=steps,
                dens=name == DENS,
            )
            jobs[name] = partial(self.runs.train, name, settings, epochs * steps, ranks)
        done = side_by_side(jobs, len(names))
        return [done[name] for name in names]

    def _evaluate(self, trained: list[Trained], config: Path) -> dict[str, EvaluationFolder]:
        _title("evaluation: predict, run-relaxations, scores, leaderboard files, report")
        return {
            run.name: evaluate(
                run, config, self._folder / run.name.replace(" ", "-"), self.args.seed, _say
            )
            for run in trained
        }

    def _errors(
        self,
        results: dict[str, EvaluationFolder],
        splits: dict[str, list[Structure]],
        train: Labels,
        parts: dict[str, np.ndarray] | None = None,
    ) -> str:
        """The table of S2EF errors; ``parts`` of the first split (masks by name) are shown as
        splits of their own."""
        _title("errors on free atoms")
        scores: dict[str, dict[str, S2EFScores]] = {}
        for split, structures in splits.items():
            predicted = {
                name: read_predictions(folder.predictions(split))
                for name, folder in results.items()
            } | baselines(train, structures)
            everything = {split: np.ones(len(structures), bool)}
            for shown, mask in (everything | (parts or {})).items():
                picked = [each for each, kept in zip(structures, mask, strict=True) if kept]
                ids = {each.id for each in picked}
                scores[shown] = {
                    name: s2ef_scores(each.only(ids), picked) for name, each in predicted.items()
                }
        text = s2ef_table(scores)
        _say(text)
        return text

    def _relaxations(
        self,
        results: dict[str, EvaluationFolder],
        splits: dict[str, list[Structure]],
        train: Labels,
    ) -> str:
        """The table of IS2RE and IS2RS errors."""
        _title("relaxations (distance: free atoms from the structure relaxed with EMT)")
        energies, distances = {}, {}
        for split, systems in splits.items():
            energy = {
                name: energies_of_trajectories(folder.trajectories(split))
                for name, folder in results.items()
            }
            energy[NOBODY] = {each.sid: train.energy.mean() for each in systems}
            place = {
                name: positions_of_npz(folder.positions(split)) for name, folder in results.items()
            }
            place[NOBODY] = {each.sid: each.pos for each in systems}
            energies[split] = {name: is2re_scores(each, systems) for name, each in energy.items()}
            distances[split] = {name: is2rs_scores(each, systems) for name, each in place.items()}
        text = relaxation_table(energies, distances)
        _say(text)
        return text

    def _validate(self, trained: list[Trained], split: str, source: Path) -> None:
        """fairchem's own ``validate``, to compare our table with."""
        for run in trained:
            theirs = 1000 * self.runs.validate(run, source)["forces_mae"]
            _say(f"fairchem's own validate, {split}, {run.name}: {theirs:.1f} meV/A")

    def _finish(
        self,
        texts: list[str],
        pictures: list[Path],
        trained: list[Trained],
        results: dict[str, EvaluationFolder],
    ) -> None:
        path = self._folder / "table.txt"
        path.write_text("\n\n".join(texts) + "\n")
        reports = [folder.report / "index.html" for folder in results.values()]
        files = [
            file for each in results.values() for file in sorted(each.path.glob("submission/*.npz"))
        ]
        _title("written")
        for file in [path, *pictures, *files, *(run.checkpoint for run in trained), *reports]:
            _say(f"  {file}")


def _structures(source: Path) -> list[Structure]:
    return list(open_structures({"src": str(source)}))
