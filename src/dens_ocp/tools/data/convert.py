"""From frames to folders of LMDBs that fairchem reads."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch_geometric.data import Data
from tqdm import tqdm

from dens_ocp.data.dataset_reference import WRITTEN_BY
from dens_ocp.data.made_boxes import DESCRIPTION, LARGEST_CUTOFF
from dens_ocp.data.records.oc20_records import add_s2ef_labels, geometry, write_lmdb, write_metadata
from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import sha256
from dens_ocp.tools.data import energy_reference
from dens_ocp.tools.data.box import Box, fitted_box
from dens_ocp.tools.data.energy_reference import EnergyReference
from dens_ocp.tools.data.frames import Frame, check_frame
from dens_ocp.tools.data.units import Units

_DISTANCES = 32  # training frames whose distances are looked at
_FAR, _LITTLE = 10.0, 0.1  # standard deviations of the training set; eV


@dataclass(frozen=True)
class Training:
    """What the training frames say.

    Attributes:
        reference: what is subtracted from energies.
        normalizer: as in a fairchem config: mean and stdev of energies (eV, relative to the
            reference) and forces (eV/Angstrom).
        nearest: median distance of nearest neighbours, Angstrom.
        largest_force: of free atoms, eV/Angstrom.
    """

    reference: EnergyReference
    normalizer: dict[str, dict[str, float]]
    nearest: float
    largest_force: float


@dataclass(frozen=True)
class Written:
    """A data set on disk.

    Attributes:
        root: folder with ``train``, ``val``, ``test``.
        counts: records by split; splits without any have no folder.
        training: numbers of the training set.
        largest_atomic_number: of all splits.
        box: what structures without periodicity got, or None.
    """

    root: Path
    counts: dict[str, int]
    training: Training
    largest_atomic_number: int
    box: Box | None


def convert(
    frames: Sequence[Frame],
    split: dict[str, np.ndarray],
    out: Path,
    *,
    units: Units,
    sources: Sequence[Path],
    reference: str = "linear",
    box: float | str | None = None,
    cutoff: float = 6.0,
    seed: int = 0,
    progress: bool = True,
) -> Written:
    """Write ``out/train``, ``out/val``, ``out/test``, ``dataset.json`` and ``split.npz``.

    Everything is written beside ``out`` and renamed when it is complete.

    Args:
        frames: all of them; a record's ``sid`` is the frame's number here.
        split: indices by split.
        out: folder; must not exist, or be empty.
        units: of the files, for the description.
        sources: the files.
        reference: ``linear`` or ``none``, see :mod:`energy_reference`.
        box: side of an empty cube (Angstrom) that structures without periodicity get as cell;
            ``auto``: as large as the cutoff needs.
        cutoff: how far the model sees, Angstrom.
        seed: of the split, for the description.

    Raises:
        DensError: ``out`` is not empty, a frame that cannot be trained on, a box that is too small.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DensError(f"--out: {out} exists already; name another folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    taken = np.concatenate(list(split.values())).tolist()
    fitted = fitted_box((frames[index] for index in taken), box, cutoff)
    training = _statistics(frames, split["train"], reference, progress)
    warnings = [] if training.reference.warning is None else [training.reference.warning]
    elements: set[int] = set()
    counts = {name: len(indices) for name, indices in split.items() if len(indices)}
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        new = Path(temporary, "new")
        for name in counts:
            energies: list[float] = []
            records = _records(frames, split[name], training.reference, fitted, elements, energies)
            bar = tqdm(records, desc=f"write {name}", unit="frame", total=len(split[name]),
                       disable=not progress)  # fmt: skip
            write_metadata(new / name, write_lmdb(new / name / "data.0000.lmdb", bar))
            warnings += _far_from_the_reference(name, np.array(energies), training.normalizer)
        missing = elements - set(training.reference.coefficients)
        if missing and reference != "none":
            warnings.append(
                f"{', '.join(sorted(chemical_symbols[number] for number in missing))} only occur "
                "in validation or test frames, whose energies therefore have no reference"
            )
        for warning in warnings:
            tqdm.write(f"warning: {warning}")
        written = Written(out, counts, training, max(elements, default=0), fitted)
        np.savez(new / "split.npz", **split)
        description = _description(written, units, sources, seed)
        (new / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        if out.exists():
            out.rmdir()
        new.rename(out)
    return written


def _statistics(
    frames: Sequence[Frame], indices: np.ndarray, kind: str, progress: bool
) -> Training:
    numbers, energies, squares, components = [], [], 0.0, 0
    largest, distances = 0.0, []
    step = max(1, len(indices) // _DISTANCES)
    bar = tqdm(indices, desc="statistics of train", unit="frame", disable=not progress)
    for frame in (frames[index] for index in bar):
        check_frame(frame)
        if len(energies) % step == 0:
            distances.append(_nearest(frame.atoms))
        numbers.append(frame.atoms.numbers)
        energies.append(frame.energy)
        free = np.delete(frame.forces, _fixed(frame.atoms), axis=0)
        largest = max(largest, float(np.linalg.norm(free, axis=1).max(initial=0.0)))
        squares, components = squares + float((free**2).sum()), components + free.size
    reference = energy_reference.fit(kind, numbers, np.array(energies))
    relative = np.array(energies) - [reference.of(each) for each in numbers]
    rms = float(np.sqrt(squares / components)) if components else 0.0
    for what, value in (("energies", relative.std()), ("forces on free atoms", rms)):
        if not value > 0:
            raise DensError(
                f"the {what} of the {len(indices)} training frames do not vary: nothing can "
                "be learnt; check the file, or take more frames (--train)"
            )
    normalizer = {
        "energy": {"mean": float(relative.mean()), "stdev": float(relative.std())},
        "forces": {"mean": 0.0, "stdev": rms},
    }
    known = [each for each in distances if np.isfinite(each)]
    return Training(reference, normalizer, float(np.median(known)) if known else np.nan, largest)


def _fixed(atoms: Atoms) -> list[int]:
    return [index for constraint in atoms.constraints for index in constraint.index.tolist()]


def _nearest(atoms: Atoms) -> float:
    """Median distance of the nearest neighbours, Angstrom; NaN for one atom."""
    if len(atoms) < 2:
        return np.nan
    distances = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
    np.fill_diagonal(distances, np.inf)
    return float(np.median(distances.min(axis=1)))


def _far_from_the_reference(
    split: str, energies: np.ndarray, normalizer: dict[str, dict[str, float]]
) -> list[str]:
    """A warning if the energies of a split lie much further from the mean than those of train."""
    mean, stdev = normalizer["energy"]["mean"], normalizer["energy"]["stdev"]
    rms = float(np.sqrt(np.mean((energies - mean) ** 2)))
    if split == "train" or rms < max(_FAR * stdev, _LITTLE):
        return []
    return [
        f"energies of {split} lie {rms:.3g} eV (rms) from the reference, those of train "
        f"{stdev:.3g} eV: the reference does not hold for them; take more training frames "
        f"(--train) that have the compositions of {split}"
    ]


def _records(
    frames: Sequence[Frame],
    indices: np.ndarray,
    reference: EnergyReference,
    box: Box | None,
    elements: set[int],
    energies: list[float],
) -> Iterator[Data]:
    """Records of a split; ``elements`` and ``energies`` (relative) are noted on the way."""
    for sid in indices.tolist():
        frame = frames[sid]
        check_frame(frame)
        data = geometry(frame.atoms, sid)
        if not frame.atoms.pbc.any():
            data.pos = torch.tensor(frame.atoms.positions, dtype=torch.float32)
            del data.cell
            if box is not None:
                data.cell = box.side * torch.eye(3)[None]
        energies.append(frame.energy - reference.of(frame.atoms.numbers))
        elements.update(frame.atoms.numbers.tolist())
        yield add_s2ef_labels(data, energies[-1], frame.forces, frame.fid)


def _description(
    written: Written, units: Units, sources: Sequence[Path], seed: int
) -> dict[str, Any]:
    names = ("energy_to_eV", "length_to_Angstrom", "force_to_eV_per_Angstrom")
    reference, box = written.training.reference, written.box
    return {
        "written_by": WRITTEN_BY,
        "sources": [
            {"file": source.name, "sha256": sha256(source) if source.is_file() else None}
            for source in sources
        ],
        "units_of_the_sources": units._asdict(),
        "factors": dict(zip(names, units.factors(), strict=True)),
        "units": {"y": "eV", "force": "eV/Angstrom", "pos": "Angstrom (float32)"},
        "energy": {
            "meaning": "y = total energy - sum of the references of its atoms",
            "reference": reference.kind,
            "reference_eV": reference.by_symbol(),
            "mean_of_one_composition_eV": reference.mean,
        },
        "box_Angstrom": None if box is None else box.side,
        LARGEST_CUTOFF: None if box is None else box.largest_cutoff,
        "split": {"seed": seed, **written.counts},
        "sid": "number of the frame over all files, from 0, without frames that were left out; "
        "split.npz lists them",
        "fid": "number of the frame in its file",
        "normalizer": written.training.normalizer,
    }
