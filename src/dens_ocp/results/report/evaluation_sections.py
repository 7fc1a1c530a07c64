"""What the page shows of an evaluation: errors, relaxations, scores; the words are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dens_ocp.data.structures import open_structures
from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.report import verdict
from dens_ocp.results.report.breakdown import Breakdown, score_split
from dens_ocp.results.report.figures.drawing import save
from dens_ocp.results.report.figures.evaluation_figures import (
    Parity,
    element_errors,
    force_magnitude,
    group_errors,
    keys,
    parity,
    relaxation_traces,
)
from dens_ocp.results.report.page import LISTED
from dens_ocp.results.report.relaxation_files import Relaxations, read_relaxations
from dens_ocp.results.report.training_sections import as_yaml
from dens_ocp.results.report.verdict import Check, SplitNumbers

TRACES = 6
"""So many relaxations of a split are drawn."""

_KINDS = {
    "adsorbate": ("adsorbate", "composition of the atoms with tag 2"),
    "surface": ("surface", "elements of all other atoms"),
    "tag": ("tag", "place of the atom"),
}
"""Title and meaning of the kinds of groups beside elements."""
_WITHOUT_ADSORBATES = {"surface": ("elements", "elements of a structure")}


@dataclass(frozen=True)
class Evaluated:
    """Everything read from an evaluation folder.

    Attributes:
        folder: of the evaluation.
        scored: errors by split. why_not: by split, why there are none.
        relaxed: relaxations by split.
        fmax: where relaxations end, eV/Angstrom, or None if it is not known.
    """

    folder: EvaluationFolder
    scored: dict[str, Breakdown]
    why_not: dict[str, str]
    relaxed: dict[str, Relaxations]
    fmax: float | None


def evaluated(folder: EvaluationFolder, task: Mapping[str, Any]) -> Evaluated:
    """Read predictions, labels and trajectories of all splits.

    Args:
        folder: of the evaluation.
        task: the config's section, for ``relaxation_fmax``; that of ``evaluation.json`` comes
            first.

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
                structures = open_structures(sections["is2re"])
            except DensError:  # relaxations can be shown without labels
                structures = ()
            labels = {s.sid: s.energy_relaxed for s in structures if s.energy_relaxed is not None}
        found = read_relaxations(folder.trajectories(split), labels, TRACES)
        if found is not None:
            relaxed[split] = found
    fmax = {**task, **folder.description}.get("relaxation_fmax")
    return Evaluated(folder, scored, why_not, relaxed, None if fmax is None else float(fmax))


def evaluation_checks(done: Evaluated) -> list[Check]:
    """All checks of an evaluation."""
    numbers = {
        name: SplitNumbers(each.scores(), each.not_finite, each.missing)
        for name, each in done.scored.items()
    }
    return verdict.splits(numbers) + verdict.relaxations(done.relaxed, done.fmax)


def evaluation_content(done: Evaluated, out: Path) -> dict[str, Any]:
    """What ``report.html.j2`` shows of an evaluation; draws its pictures into ``out``."""
    splits = {name: each for name, each in done.scored.items() if each.structures}
    content: dict[str, Any] = {
        "splits": list(done.folder.splits),
        "json": as_yaml(done.folder.description),
        "why_not": done.why_not,
        "all_reasons": "; ".join(f"{split}: {why}" for split, why in done.why_not.items()),
        "scored": list(splits),
        "parity": None,
        "magnitude": None,
        **_relaxations(done, out),
    }
    if not splits:
        return content
    forces = {name: each for name, each in splits.items() if each.lengths.seen}
    if forces:
        content["magnitude"] = save(force_magnitude(forces), out / "force_magnitude.png")
    return {**content, **_errors(splits, out), **_groups(splits, out)}


def _number(value: float | None, digits: int = 1) -> str:
    return "\u2013" if value is None else f"{value:,.{digits}f}"


def _errors(splits: Mapping[str, Breakdown], out: Path) -> dict[str, Any]:
    """The table of the verdict, and parity plots."""
    rows, columns, sampled = [], {}, []
    for split, breakdown in splits.items():
        scores = breakdown.scores()
        rows.append(
            (
                split,
                f"{scores.structures:,}",
                _number(scores.energy_mae, 0),
                _number(scores.mean_energy_mae, 0),
                _number(scores.force_mae),
                _number(scores.zero_force_mae),
                _number(scores.force_cosine, 3),
                _number(scores.efwt, 2),
            )
        )
        columns[split] = Parity(
            breakdown.energies.rows, breakdown.components.rows, scores.energy_mae, scores.force_mae
        )
        for sample, what in ((breakdown.energies, "energies"), (breakdown.components, "forces")):
            if sample.seen > sample.limit:
                sampled.append(f"{split}: {sample.limit:,} of {sample.seen:,} {what}")
    picture = save(parity(columns, "labelled"), out / "parity.png")
    return {"key_rows": rows, "parity": picture, "sampled": sampled}


def _groups(splits: Mapping[str, Breakdown], out: Path) -> dict[str, Any]:
    """Errors by element, adsorbate, surface, tag; without adsorbates by element and composition."""
    slabs = any(each.has_adsorbates for each in splits.values())
    kinds = _KINDS if slabs else _WITHOUT_ADSORBATES
    if not slabs and len(keys(splits, "surface")) < 2:
        kinds = {}
    elements = _group(splits, "element", "element")
    elements["path"] = save(element_errors(splits), out / "errors_by_element.png")
    groups = []
    for kind, (title, meaning) in kinds.items():
        picture = save(group_errors(splits, kind), out / f"errors_by_{title}.png")
        groups.append(_group(splits, kind, title) | {"path": picture, "meaning": meaning})
    largest = [
        (split, name, *((adsorbate, surface) if slabs else (surface,)), _number(error, 0))
        for split, breakdown in splits.items()
        for error, name, adsorbate, surface in breakdown.worst
    ]
    return {"slabs": slabs, "elements": elements, "groups": groups, "largest": largest}


def _group(splits: Mapping[str, Breakdown], kind: str, title: str) -> dict[str, Any]:
    """Table of the errors by one kind; an energy belongs to a structure, and so to no tag."""
    names = keys(splits, kind)
    header, rows = [title, "split"], []
    if kind != "tag":
        header += ["structures", "energy MAE (meV)"]
    header += ["free atoms", "force MAE (meV/\u00c5)"]
    for name in names[:LISTED]:
        for split, breakdown in splits.items():
            group = breakdown.groups[kind].get(name)
            if group is None:
                continue
            energy = (f"{group.structures:,}", _number(group.energy_mae, 0))
            rows.append(
                (
                    name,
                    split,
                    *(energy if kind != "tag" else ()),
                    f"{group.atoms:,}",
                    _number(group.force_mae),
                )
            )
    return {"title": title, "count": len(names), "header": header, "rows": rows}


def _relaxations(done: Evaluated, out: Path) -> dict[str, Any]:
    readable = {name: each for name, each in done.relaxed.items() if each.traces}
    rows = []
    for name, each in done.relaxed.items():
        steps = forces = converged = _number(None)
        if len(each.steps):
            steps, forces = f"{np.median(each.steps):.0f}", f"{np.median(each.last_forces):.3f}"
            if done.fmax is not None:
                converged = f"{100 * each.converged(done.fmax).mean():.0f}"
        energy = _number(each.energy_mae, 0)
        unreadable = str(each.unreadable)
        rows.append((name, f"{each.systems:,}", energy, steps, forces, converged, unreadable))
    picture = None
    if readable:
        picture = save(relaxation_traces(readable, done.fmax), out / "relaxations.png")
    return {
        "relaxation_rows": rows,
        "traces": picture,
        "traced": [f"{len(each.traces)} of {each.systems} ({n})" for n, each in readable.items()],
        "fmax": "not known" if done.fmax is None else f"{done.fmax:g} eV/\u00c5",
    }


def score_files(folder: EvaluationFolder) -> dict[str, str]:
    """The tables of ``dens-ocp evaluate`` by the name of the file, where it has written them."""
    files = [folder.scores("txt"), folder.scores("json")]
    return {file.name: file.read_text() for file in files if file.is_file()}
