"""Sections of the page that an evaluation fills: errors, relaxations, scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dens_ocp.data.structures import open_structures
from dens_ocp.errors import DensError
from dens_ocp.results.report import verdict
from dens_ocp.results.report.breakdown import Breakdown
from dens_ocp.results.report.content import (
    Details,
    Missing,
    Part,
    Picture,
    Section,
    Table,
    Text,
    number,
)  # fmt: skip
from dens_ocp.results.report.evaluation_folder import Evaluation, ScoredSplit, score_split
from dens_ocp.results.report.figures.drawing import DENSITY_FROM, save
from dens_ocp.results.report.figures.force_magnitude import force_magnitude
from dens_ocp.results.report.figures.group_errors import (
    FEW,
    SHOWN,
    element_errors,
    group_errors,
    keys,
)  # fmt: skip
from dens_ocp.results.report.figures.parity import Parity, parity
from dens_ocp.results.report.figures.relaxation_traces import relaxation_traces
from dens_ocp.results.report.relaxation_files import Relaxations, read_relaxations, relaxed_labels
from dens_ocp.results.report.verdict import Check, SplitNumbers

TRACES = 6
_ROWS = 60
_NO_EVALUATION = "no evaluation was given; dens-ocp evaluate makes one, --evaluation DIR names it"


@dataclass(frozen=True)
class Evaluated:
    """Everything read from an evaluation folder.

    Attributes:
        scored: errors by split. why_not: by split, why there are none.
        relaxed: relaxations by split.
        fmax: where relaxations end, eV/Angstrom, or None if it is not known.
    """

    scored: dict[str, ScoredSplit]
    why_not: dict[str, str]
    relaxed: dict[str, Relaxations]
    fmax: float | None

    @property
    def breakdowns(self) -> dict[str, Breakdown]:
        """Errors by split, of those with structures to count."""
        return {
            name: each.breakdown for name, each in self.scored.items() if each.breakdown.structures
        }


def evaluated(folder: Evaluation, task: Mapping[str, Any]) -> Evaluated:
    """Read predictions, labels and trajectories of all splits.

    Args:
        folder: of the evaluation.
        task: the config's section, for ``relaxation_fmax`` and ``relaxation_steps``; those of
            ``evaluation.json`` come first.

    Raises:
        DensError: damaged files.
    """
    scored, why_not, relaxed = {}, {}, {}
    for split, sections in folder.splits.items():
        result = score_split(folder, split)
        if isinstance(result, str):
            why_not[split] = result
        else:
            scored[split] = result
        labels = {}
        if sections.get("is2re") and folder.trajectories(split).is_dir():
            try:
                labels = relaxed_labels(open_structures(sections["is2re"]))
            except DensError:
                labels = {}
        found = read_relaxations(folder.trajectories(split), labels, TRACES)
        if found is not None:
            relaxed[split] = found
    fmax = {**task, **folder.description}.get("relaxation_fmax")
    return Evaluated(scored, why_not, relaxed, None if fmax is None else float(fmax))


def evaluation_checks(done: Evaluated) -> list[Check]:
    """All checks of an evaluation."""
    numbers = {
        name: SplitNumbers(each.breakdown.scores(), each.breakdown.not_finite, each.missing)
        for name, each in done.scored.items()
    }
    return verdict.splits(numbers) + verdict.relaxations(done.relaxed, done.fmax)


def key_numbers(done: Evaluated | None) -> Part:
    """The table of the verdict."""
    if done is None:
        return Missing(f"the key numbers: {_NO_EVALUATION}")
    if not done.breakdowns:
        reasons = "; ".join(f"{split}: {why}" for split, why in done.why_not.items())
        return Missing(f"the key numbers: {reasons or 'no split was evaluated'}")
    rows = []
    for split, breakdown in done.breakdowns.items():
        scores = breakdown.scores()
        rows.append(
            (
                split,
                f"{scores.structures:,}",
                number(scores.energy_mae, 0),
                number(scores.mean_energy_mae, 0),
                number(scores.force_mae),
                number(scores.zero_force_mae),
                number(scores.force_cosine, 3),
                number(scores.efwt, 2),
            )
        )
    header = (
        "split", "structures", "energy MAE\n(meV)", "predicting the\nsplit's mean",
        "force MAE\n(meV/\u00c5)", "predicting\nzero", "force\ncosine", "EFwT\n(%)",
    )  # fmt: skip
    caption = (
        "Errors per split (free atoms), beside those of trivial predictors: the mean of the "
        "split's own labelled energies (not the training set's), and no force. EFwT: energy "
        "within 20 meV and all force components within 30 meV/\u00c5."
    )
    return Table(caption, header, rows)


def parity_section(done: Evaluated | None, out: Path) -> Section:
    """Parity plots."""
    section = Section("Parity")
    splits = _splits_or_reasons(section, done)
    if not splits:
        return section
    columns, counts = {}, []
    for split, breakdown in splits.items():
        scores = breakdown.scores()
        columns[split] = Parity(
            breakdown.energies.rows, breakdown.components.rows, scores.energy_mae, scores.force_mae
        )
        for sample, what in ((breakdown.energies, "energies"), (breakdown.components, "forces")):
            if sample.seen > sample.limit:
                counts.append(f"{split}: {sample.limit:,} of {sample.seen:,} {what}")
    drawn = f" Drawn at random: {'; '.join(counts)}." if counts else " All points are drawn."
    section.parts.append(
        Picture(
            save(parity(columns, "labelled"), out / "parity.png"),
            f"Parity plots of energies and force components for {', '.join(splits)}; errors stand "
            "in the table above.",
            "Predicted against labelled values: points should lie on the diagonal. A slope below "
            "it means a model that predicts towards the mean. Forces are drawn linearly up to "
            "0.3 eV/\u00c5 and logarithmically beyond; what is off the picture lies on its rim. "
            f"More than {DENSITY_FROM:,} points are drawn as density.{drawn}",
            width=max(420, 210 * len(columns)),
        )
    )
    return section


def groups_section(done: Evaluated | None, out: Path) -> Section:
    """Errors by element, adsorbate, surface, tag; without adsorbates by element and composition."""
    section = Section("Errors by element, adsorbate and surface")
    splits = _splits_or_reasons(section, done)
    if not splits:
        return section
    slabs = any(each.has_adsorbates for each in splits.values())
    hollow = f"Hollow: fewer than {FEW} atoms or structures."
    count = len(keys(splits, "element"))
    section.parts.append(
        Picture(
            save(element_errors(splits), out / "errors_by_element.png"),
            f"Force and energy MAE by element, {count} elements; the same numbers are in the "
            "table below.",
            "Above: force MAE of the free atoms of each element. Below: energy MAE of the "
            "structures that contain it. Elements that stand out are rare in training or hard. "
            + hollow,
            width=min(1000, max(480, 20 * count + 120)),
        )
    )
    named = {"adsorbate": ("adsorbate", "composition of the atoms with tag 2"),
             "surface": ("surface", "elements of all other atoms"),
             "tag": ("tag", "place of the atom")}  # fmt: skip
    if not slabs:
        section.title = "Errors by element"
        section.parts.append(
            Missing(
                "errors by adsorbate, surface and tag: no atom of these data has tag 2 (adsorbate)"
            )
        )
        named = {"surface": ("elements", "elements of a structure")}
        if len(keys(splits, "surface")) < 2:
            named = {}
    for kind, (title, meaning) in named.items():
        names = keys(splits, kind)
        most = f"the {SHOWN} most frequent of {len(names)}; " if len(names) > SHOWN else ""
        section.parts.append(
            Picture(
                save(group_errors(splits, kind), out / f"errors_by_{title}.png"),
                f"Errors by {title}; the same numbers are in the table below.",
                f"Errors by {title} ({most}{meaning}), a colour and shape per split. {hollow}",
                width=360 if kind == "tag" else 620,
            )
        )
    for kind, (title, _) in ({"element": ("element", "")} | named).items():
        section.parts.append(_group_table(splits, kind, title))
    section.parts.append(_worst_table(splits, slabs))
    return section


def _group_table(splits: Mapping[str, Breakdown], kind: str, title: str) -> Details:
    names = keys(splits, kind)
    # an energy belongs to a structure, and so to no tag
    of_structures = kind != "tag"
    rows = [
        (
            name, split,
            *((f"{group.structures:,}", number(group.energy_mae, 0)) if of_structures else ()),
            f"{group.atoms:,}", number(group.force_mae),
        )
        for name in names[:_ROWS]
        for split, breakdown in splits.items()
        if (group := breakdown.groups[kind].get(name)) is not None
    ]  # fmt: skip
    header = (
        title, "split", *(("structures", "energy MAE (meV)") if of_structures else ()),
        "free atoms", "force MAE (meV/\u00c5)",
    )  # fmt: skip
    of = f" (the {_ROWS} most frequent of {len(names)})" if len(names) > _ROWS else ""
    return Details(f"Table by {title}{of}", [Table(f"Errors by {title}{of}", header, rows)])


def _worst_table(splits: Mapping[str, Breakdown], slabs: bool) -> Details:
    rows = [
        (split, name, *((adsorbate, surface) if slabs else (surface,)), number(error, 0))
        for split, breakdown in splits.items()
        for error, name, adsorbate, surface in breakdown.worst
    ]
    made_of = ("adsorbate", "surface") if slabs else ("elements",)
    header = ("split", "structure", *made_of, "energy error (meV)")
    return Details(
        "Structures with the largest energy errors",
        [Table("The largest energy errors of each split, ten at most", header, rows)],
    )


def magnitude_section(done: Evaluated | None, out: Path) -> Section:
    """Force error against force."""
    section = Section("Force error against force")
    splits = _splits_or_reasons(section, done)
    splits = {name: each for name, each in splits.items() if each.lengths.seen}
    if not splits:
        return section
    section.parts.append(
        Picture(
            save(force_magnitude(splits), out / "force_magnitude.png"),
            "Mean length of the force error against the length of the true force, and the share "
            "of atoms with forces of that length.",
            "Left: mean length of the force error (all three components) by the length of the "
            "true force; above the dotted line the model is worse than predicting zero, which is "
            "usual for the smallest forces only. Right: how many atoms have such forces.",
        )
    )
    return section


def relaxation_section(done: Evaluated | None, out: Path) -> Section:
    """Relaxations."""
    section = Section("Relaxations")
    if done is None or not done.relaxed:
        why = _NO_EVALUATION if done is None else (
            "there are no trajectories in relaxations/<split>/trajectories; dens-ocp evaluate "
            "makes them for splits with an IS2RE data set"
        )  # fmt: skip
        section.parts.append(Missing(why))
        return section
    readable = {name: each for name, each in done.relaxed.items() if each.traces}
    if readable:
        some = ", ".join(f"{len(e.traces)} of {e.systems} ({n})" for n, e in readable.items())
        section.parts.append(
            Picture(
                save(relaxation_traces(readable, done.fmax), out / "relaxations.png"),
                "Energies and largest forces along relaxations; the table below has the numbers.",
                "Energy predicted along relaxations, measured from the labelled energy of the "
                "relaxed structure (the line at zero; without labels, from the last frame). Lines "
                "should fall without jumps and end near zero, and the largest force on a free "
                "atom should come down to the dotted line (fmax). "
                f"Systems drawn: {some}.",
                width=max(420, 210 * len(readable)),
            )
        )
    rows = [_relaxation_row(name, each, done) for name, each in done.relaxed.items()]
    header = (
        "split", "systems", "energy MAE\n(meV)", "steps\n(median)",
        "last largest force\n(eV/\u00c5, median)", "converged\n(%)", "unreadable",
    )  # fmt: skip
    fmax = "not known" if done.fmax is None else f"{done.fmax:g} eV/\u00c5"
    caption = (
        "Relaxations (IS2RE from relaxed structures). Converged: in the last frame no force on a "
        f"free atom is above fmax ({fmax})."
    )
    section.parts.append(Table(caption, header, rows))
    return section


def _relaxation_row(name: str, each: Relaxations, done: Evaluated) -> tuple[str, ...]:
    steps = forces = converged = number(None)
    if len(each.steps):
        steps, forces = f"{np.median(each.steps):.0f}", f"{np.median(each.last_forces):.3f}"
        if done.fmax is not None:
            converged = f"{100 * each.converged(done.fmax).mean():.0f}"
    return (
        name, f"{each.systems:,}", number(each.energy_mae, 0), steps, forces, converged,
        str(each.unreadable),
    )  # fmt: skip


def scores_section(folder: Evaluation | None) -> Section | None:
    """The tables of ``dens-ocp evaluate``, where it has written them."""
    files = [] if folder is None else [folder.scores("txt"), folder.scores("json")]
    texts = {file.name: file.read_text() for file in files if file.is_file()}
    if not texts:
        return None
    section = Section("Scores of the board")
    for name, text in texts.items():
        part = Text(text, preformatted=True)
        section.parts.append(part if len(texts) == 1 or name == "scores.txt" else
                             Details(name, [part]))  # fmt: skip
    return section


def _splits_or_reasons(section: Section, done: Evaluated | None) -> dict[str, Breakdown]:
    """Errors by split; what is missing of them goes into the section."""
    if done is None:
        section.parts.append(Missing(_NO_EVALUATION))
        return {}
    for split, why in done.why_not.items():
        section.parts.append(Missing(f"{split}: {why}"))
    if not done.scored and not done.why_not:
        section.parts.append(Missing("evaluation.json names no splits"))
    return done.breakdowns
