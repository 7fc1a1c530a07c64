"""What ``dens-ocp demo`` does: data, training, validation, predictions, relaxations, tables,
pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from ase.data import chemical_symbols
from tqdm import tqdm

from dens_ocp.data.structures import Structure, open_structures
from dens_ocp.relaxation.trajectories import relaxed_systems
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.process import cores, side_by_side
from dens_ocp.results.report.figures.corruption_gallery import corruption_gallery, most_varied
from dens_ocp.results.report.figures.drawing import save
from dens_ocp.results.report.figures.learning_curves import learning_curves
from dens_ocp.results.report.scalars import read_series
from dens_ocp.results.scores.prediction_files import (
    Predictions,
    positions_of_npz,
    read_predictions,
)
from dens_ocp.results.scores.score_tables import text_table
from dens_ocp.results.scores.scores import (
    IS2REScores,
    IS2RSScores,
    S2EFScores,
    is2re_scores,
    is2rs_scores,
    s2ef_scores,
)
from dens_ocp.tools.demo import given, runs
from dens_ocp.tools.demo.dataset import QUICK, DataSettings, make
from dens_ocp.tools.demo.runs import Trained
from dens_ocp.tools.demo.trajectories import BOARD_SPLITS
from dens_ocp.tools.demo.verdict import verdict
from dens_ocp.whole_files import write_text

DENS, PLAIN = "DeNS", "without DeNS"
EPOCHS, QUICK_EPOCHS = 10, 1
QUICK_RELAXATION_STEPS = 5
NOBODY = "no relaxation, mean energy of train"
_ATOMS_PER_EPOCH = 36_000  # of the embedded data: longer epochs of given data make fewer of them


_S2EF = {
    ("energy MAE", "meV"): "{0.energy_mae_meV:.0f}",
    ("force MAE", "meV/A"): "{0.force_mae_meV_per_A:.1f}",
    ("force cos", ""): "{0.force_cosine:.3f}",
    ("EFwT", "%"): "{0.efwt_percent:.1f}",
}
_RELAXED = {
    ("energy MAE", "meV"): "{0.energy_mae_meV:.0f}",
    ("EwT", "%"): "{0.ewt_percent:.0f}",
    ("distance", "A"): "{1.mean_distance_A:.3f}",
    ("average DwT", "%"): "{1.average_dwt_percent:.0f}",
}
"""Format by heading and unit."""

_say = tqdm.write


def _title(text: str) -> None:
    _say(f"\n== {text}")


def epochs_for(atoms: int, quick: bool = False) -> int:
    """Epochs of a training set with ``atoms`` atoms in all: fewer where they are longer."""
    return QUICK_EPOCHS if quick else max(1, min(EPOCHS, round(EPOCHS * _ATOMS_PER_EPOCH / atoms)))


@dataclass
class Demo:
    """One demo: its folder, the name of its runs, its options."""

    workdir: Path
    run_id: str
    compare: bool
    epochs: int | None
    quick: bool
    seed: int

    @property
    def folder(self) -> Path:
        return self.workdir / "report" / self.run_id

    def embedded(self) -> None:
        """The demo on the data set that it makes."""
        _title("data: adsorbates on fcc metals and alloys, labelled with ASE's EMT")
        settings = replace(QUICK if self.quick else DataSettings(), seed=self.seed)
        data = make(self.workdir / ("data-quick" if self.quick else "data"), settings)
        for name, count in data.counts.items():
            _say(f"  {name:<20} {count:5d}")
        sources = {
            task: {split: data.root / task / name for split, name in BOARD_SPLITS.items()}
            for task in ("s2ef", "is2re")
        }
        frames, systems = (
            {split: list(open_structures({"src": str(path)})) for split, path in paths.items()}
            for paths in sources.values()
        )
        steps = QUICK_RELAXATION_STEPS if self.quick else None
        evaluation = runs.evaluation_config(sources["s2ef"], sources["is2re"], steps, "OC20")
        self._run(data.s2ef("train"), sources["s2ef"]["id"], evaluation, frames, systems)

    def given(self, train: Path, val: Path) -> None:
        """The demo on the user's data."""
        _title(f"data: {train} and {val}")
        structures = given.read_given("--val-lmdb", val, unique=True)
        self._run(train, val, runs.evaluation_config({"val": val}), {"val": structures}, {})

    def _run(
        self,
        train: Path,
        val: Path,
        evaluation: dict,
        frames: dict[str, list[Structure]],
        systems: dict[str, list[Structure]],
    ) -> None:
        """Train on the one, validate on the other, evaluate.

        Args:
            evaluation: config of ``dens-ocp evaluate``.
            frames, systems: S2EF and IS2RE structures of each split; ``val`` is the first one of
                ``frames``. Without systems the data are the user's.
        """
        learned = given.read_given("train" if systems else "--train-lmdb", train)
        split = next(iter(frames))
        parts = {}
        if not systems:
            _say(f"  {len(learned)} training records, {len(frames[split])} validation records")
            parts = _parts(learned, frames[split])
        drawn = most_varied(frames[split] if systems else frames[split][:100])
        gallery = corruption_gallery(drawn, seed=self.seed)
        written = [save(gallery, self.folder / "corruption.png")]
        trained = self._train(train, val, learned)
        noise_of_zero = trained[0].config["optim"]["dens"]["sigma"] * math.sqrt(2 / math.pi)
        curves = {run.name: read_series(run.folder) for run in trained}
        figure = learning_curves(curves, noise_of_zero=noise_of_zero)
        written.append(save(figure, self.folder / "training.png"))
        config = self.folder / "evaluate.yml"
        write_text(config, yaml.safe_dump(evaluation, sort_keys=False))
        _title("evaluation: predict, run-relaxations, scores, leaderboard files, report")
        results = {}
        for run in trained:
            out = self.folder / run.name.replace(" ", "-")
            results[run.name] = runs.evaluate(run, config, out, self.seed, _say)
        _title("errors on free atoms")
        predicted = {
            split: {
                name: read_predictions(folder.predictions(split))
                for name, folder in results.items()
            }
            for split in frames
        }
        texts = [_errors(predicted, frames, learned, parts)]
        _say(texts[0])
        if systems:
            _title("relaxations (distance: of free atoms from the structure relaxed with EMT)")
            texts.append(_relaxations(results, systems, given.labels(learned)[0].mean()))
            _say(texts[1])
        if self.compare:
            _title("does DeNS lower the errors here?")
            plain, dens = (
                {split: by_name[name] for split, by_name in predicted.items()}
                for name in (PLAIN, DENS)
            )
            texts.append(verdict(plain, dens, frames))
            _say(texts[-1])
        for run in trained:  # to compare our table with
            best = run.best_validation()
            _say(
                f"fairchem's own validation, {split}, {run.name}: "
                f"{1000 * best['forces_mae']:.1f} meV/A (in training, at step {best['step']})"
            )
        table = self.folder / "table.txt"
        table.write_text("\n\n".join(texts) + "\n")
        for each in results.values():
            written += sorted(each.path.glob("submission/*.npz"))
        written += [run.checkpoint for run in trained]
        _title("written")
        for file in [table, *written, *(each.report / "index.html" for each in results.values())]:
            _say(f"  {file}")

    def _train(self, train: Path, val: Path, learned: Sequence[Structure]) -> list[Trained]:
        atoms = sum(len(each.pos) for each in learned)
        epochs = self.epochs or epochs_for(atoms, self.quick)
        names = [DENS, PLAIN] if self.compare else [DENS]
        # a second process makes more of a second core than a second thread, for a small model
        ranks = max(1, cores() // len(names))
        batch_size = runs.recipe()["optim"]["batch_size"]
        steps = math.ceil(math.ceil(len(learned) / ranks) / batch_size)
        _title(f"training: {epochs} epochs of {steps} steps ({' and '.join(names)})")
        normalizers = given.normalizers(learned)
        jobs = {}
        for name in names:
            config = runs.training_config(train, val, normalizers, epochs, steps, name == DENS)
            jobs[name] = partial(runs.train, self.workdir, self.run_id, name, config,
                                 epochs * steps, ranks, self.seed, _say)  # fmt: skip
        done = side_by_side(jobs, len(names))
        return [done[name] for name in names]


def _parts(train: Sequence[Structure], val: Sequence[Structure]) -> dict[str, np.ndarray]:
    """Masks of the structures with and without elements that were not trained on."""
    known = given.known_to(train, val)
    if known.all():
        return {}
    new = sorted(given.elements(val) - given.elements(train))
    names = ", ".join(chemical_symbols[each] for each in new)
    _say(f"  {(~known).sum()} of them have elements that are not in the training set: {names}")
    return {"val, new elements": ~known, "val, the others": known} if known.any() else {}


def _errors(
    predictions: dict[str, dict[str, Predictions]],
    splits: dict[str, list[Structure]],
    train: Sequence[Structure],
    parts: dict[str, np.ndarray],
) -> str:
    """The table of S2EF errors; ``parts`` of the first split (masks by name) are shown as splits
    of their own."""
    scores: dict[str, dict[str, S2EFScores]] = {}
    for split, structures in splits.items():
        predicted = predictions[split] | given.baselines(train, structures)
        for shown, mask in {split: np.ones(len(structures), bool), **parts}.items():
            picked = [each for each, kept in zip(structures, mask, strict=True) if kept]
            ids = {each.id for each in picked}
            scores[shown] = {
                name: s2ef_scores(each.only(ids), picked) for name, each in predicted.items()
            }
    return s2ef_table(scores)


def _relaxations(
    results: dict[str, EvaluationFolder], splits: dict[str, list[Structure]], mean_energy: float
) -> str:
    """The table of IS2RE and IS2RS errors."""
    energies, distances = {}, {}
    for split, systems in splits.items():
        energy = {
            name: relaxed_systems(folder.trajectories(split)).energies
            for name, folder in results.items()
        } | {NOBODY: {each.sid: mean_energy for each in systems}}
        place = {
            name: positions_of_npz(folder.positions(split)) for name, folder in results.items()
        } | {NOBODY: {each.sid: each.pos for each in systems}}
        energies[split] = {name: is2re_scores(each, systems) for name, each in energy.items()}
        distances[split] = {name: is2rs_scores(each, systems) for name, each in place.items()}
    return relaxation_table(energies, distances)


def s2ef_table(scores: Mapping[str, Mapping[str, S2EFScores]]) -> str:
    """Errors by split and predictor."""
    return _table("predictor", _S2EF, scores)


def relaxation_table(
    energies: Mapping[str, Mapping[str, IS2REScores]],
    distances: Mapping[str, Mapping[str, IS2RSScores]],
) -> str:
    """Errors of relaxed energies, and distances from the relaxed structures, by split and
    predictor; the same predictors in both."""
    return _table("relaxed by", _RELAXED, energies, distances)


def _table(who: str, columns: dict[tuple[str, str], str], *scores: Mapping[str, Mapping]) -> str:
    """The split only where it changes."""
    rows = [("", "", *(unit for _, unit in columns))]
    for split, by_name in scores[0].items():
        for number, name in enumerate(by_name):
            found = [each[split][name] for each in scores]
            cells = (form.format(*found) for form in columns.values())
            rows.append(("" if number else split, name, *cells))
    return text_table(["split", who, *(heading for heading, _ in columns)], rows, left=2)
