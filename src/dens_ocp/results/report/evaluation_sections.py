"""What the page shows of an evaluation: errors, relaxations, scores; the words are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dens_ocp.data.structures import open_structures
from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.report import verdict
from dens_ocp.results.report.breakdown import score_split
from dens_ocp.results.report.figures.drawing import save_both
from dens_ocp.results.report.figures.evaluation_figures import (
    Parity,
    force_magnitude,
    group_errors,
    keys,
    parity,
    relaxation_traces,
)
from dens_ocp.results.report.relaxation_files import read_relaxations
from dens_ocp.results.report.structure_views import relaxation_view
from dens_ocp.results.report.verdict import Check

TRACES = 6
"""So many relaxations of a split are drawn."""

_ELEMENT = {"element": ("element", "")}
_OF_SLABS = {
    "adsorbate": ("adsorbate", "composition of the atoms with tag 2"),
    "surface": ("surface", "elements of all other atoms"),
    "tag": ("tag", "place of the atom"),
}
_OF_OTHERS = {"surface": ("elements", "elements of a structure")}
"""Title and meaning of the kinds of groups."""


def read(folder: EvaluationFolder, task: Mapping[str, Any]) -> dict[str, Any]:
    """Read predictions, labels and trajectories of all splits.

    Args:
        folder: of the evaluation.
        task: the config's section, for ``relaxation_fmax``; that of ``evaluation.json`` comes
            first.

    Returns:
        ``folder``; by split ``scored`` (``Breakdown``), ``why_not`` (why there are none) and
        ``relaxed`` (``Relaxations``); ``fmax``, where relaxations end, eV/Angstrom, or None.

    Raises:
        DensError: damaged files.
    """
    scored, why_not, relaxed = {}, {}, {}
    for split, sections in folder.splits.items():
        result = score_split(folder, split)
        (why_not if isinstance(result, str) else scored)[split] = result
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
    return {
        "folder": folder,
        "scored": scored,
        "why_not": why_not,
        "relaxed": relaxed,
        "fmax": None if fmax is None else float(fmax),
    }


def evaluation_checks(read: Mapping[str, Any]) -> list[Check]:
    """All checks of an evaluation, of what :func:`read` says."""
    scores = {name: each.scores() for name, each in read["scored"].items()}
    return verdict.splits(scores) + verdict.relaxations(read["relaxed"], read["fmax"])


def evaluation_content(read: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """What ``report.html.j2`` shows of an evaluation; draws its pictures into ``out``."""
    splits = {name: each for name, each in read["scored"].items() if each.structures}
    traced = {name: each for name, each in read["relaxed"].items() if each.traces}
    content: dict[str, Any] = {
        **read,
        "splits": splits,
        "scores": {name: each.scores() for name, each in splits.items()},
        "slabs": any(each.has_adsorbates for each in splits.values()),
        "traced": traced,
        "magnitude": None,
        "view": relaxation_view(traced),
    }
    if traced:
        content["traces"] = save_both(
            lambda narrow: relaxation_traces(traced, read["fmax"], narrow), out / "relaxations.png"
        )
    if not splits:
        return content
    forces = {name: each for name, each in splits.items() if each.lengths.seen}
    if forces:
        content["magnitude"] = save_both(
            lambda narrow: force_magnitude(forces, narrow), out / "force_magnitude.png"
        )
    columns, sampled = {}, []
    for split, each in splits.items():
        scores = content["scores"][split]
        columns[split] = Parity(
            each.energies.rows, each.components.rows, scores.energy_mae, scores.force_mae
        )
        for sample, what in ((each.energies, "energies"), (each.components, "forces")):
            if sample.seen > sample.limit:
                sampled.append(f"{split}: {sample.limit:,} of {sample.seen:,} {what}")
    content["parity"] = save_both(
        lambda narrow: parity(columns, "labelled", narrow), out / "parity.png"
    )
    content["sampled"] = sampled
    kinds = _ELEMENT
    if content["slabs"]:
        kinds = _ELEMENT | _OF_SLABS
    elif len(keys(splits, "surface")) > 1:
        kinds = _ELEMENT | _OF_OTHERS
    content["groups"] = [
        {
            "kind": kind,
            "title": title,
            "meaning": meaning,
            "names": keys(splits, kind),
            "picture": save_both(
                lambda narrow, kind=kind: group_errors(splits, kind, narrow),
                out / f"errors_by_{title}.png",
            ),
        }
        for kind, (title, meaning) in kinds.items()
    ]
    return content
