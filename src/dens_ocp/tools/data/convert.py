"""From frames to folders of LMDBs that fairchem reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch_geometric.data import Data
from tqdm import tqdm

from dens_ocp.data.dataset_reference import DESCRIPTION, LARGEST_CUTOFF, WRITTEN_BY
from dens_ocp.data.records.oc20_records import add_s2ef_labels, geometry, write_lmdb, write_metadata
from dens_ocp.errors import DensError
from dens_ocp.tools.data import energy_reference
from dens_ocp.tools.data.box import Box, fitted_box
from dens_ocp.tools.data.energy_reference import EnergyReference
from dens_ocp.tools.data.frames import Frame, check_frame
from dens_ocp.tools.data.units import Units

_DISTANCES = 32  # training frames whose distances are looked at
_FAR, _LITTLE = 10.0, 0.1  # standard deviations of the training set; eV


@dataclass(frozen=True)
class Written:
    """A data set on disk.

    Attributes:
        root: folder with ``train``, ``val``, ``test``.
        counts: records by split; splits without any have no folder.
        normalizer: as in a fairchem config: mean and stdev of energies (eV, relative to the
            reference) and forces (eV/Angstrom) of the training set.
        reference: what was subtracted from energies.
        largest_atomic_number: of all splits.
        box: what structures without periodicity got, or None.
        cutoff: of the model that was asked for, Angstrom.
        nearest: median distance of nearest neighbours in training frames, Angstrom.
        largest_force: of free atoms of training frames, eV/Angstrom.
    """

    root: Path
    counts: dict[str, int]
    normalizer: dict[str, dict[str, float]]
    reference: EnergyReference
    largest_atomic_number: int
    box: Box | None
    cutoff: float
    nearest: float
    largest_force: float


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
        reference: of :data:`energy_reference.KINDS`.
        box: side of an empty cube (Angstrom) that structures without periodicity get as cell;
            ``auto``: as large as the cutoff needs.
        cutoff: how far the model sees, Angstrom.
        seed: of the split, for the description.

    Raises:
        DensError: ``out`` is not empty, a frame that cannot be trained on, a box that is too small.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DensError(f"--out: {out} exists already; name another folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    taken = np.concatenate(list(split.values())).tolist()
    elements: set[int] = set()
    fitted = fitted_box(_noting_elements(frames, taken, elements), box, cutoff)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        train = _training_statistics(frames, split["train"], reference, progress)
        written = Written(
            root=out,
            counts={name: len(indices) for name, indices in split.items() if len(indices)},
            normalizer=train.normalizer,
            reference=train.reference,
            largest_atomic_number=max(elements, default=0),
            box=fitted,
            cutoff=cutoff,
            nearest=train.nearest,
            largest_force=train.largest_force,
        )
        missing: set[str] = set()
        warnings = [] if train.reference.warning is None else [train.reference.warning]
        for name in written.counts:
            energies: list[float] = []
            records = _records(frames, split[name], train.reference, fitted, missing, energies)
            bar = tqdm(records, desc=f"write {name}", unit="frame", total=len(split[name]),
                       disable=not progress)  # fmt: skip
            write_metadata(temporary / name, write_lmdb(temporary / name / "data.0000.lmdb", bar))
            warnings += _far_from_the_reference(name, np.array(energies), train.normalizer)
        if missing:
            warnings.append(
                f"{', '.join(sorted(missing))} only occur in validation or test frames, whose "
                "energies therefore have no reference"
            )
        for warning in warnings:
            tqdm.write(f"warning: {warning}")
        np.savez(temporary / "split.npz", **split)
        description = _description(written, units, sources, seed)
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        os.chmod(temporary, 0o755)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return written


def _noting_elements(
    frames: Sequence[Frame], indices: Sequence[int], elements: set[int]
) -> Iterator[Frame]:
    for index in indices:
        frame = frames[index]
        elements.update(frame.atoms.numbers.tolist())
        yield frame


@dataclass(frozen=True)
class _Training:
    """What the training frames say; see :class:`Written`."""

    reference: EnergyReference
    normalizer: dict[str, dict[str, float]]
    nearest: float
    largest_force: float


def _training_statistics(
    frames: Sequence[Frame], indices: np.ndarray, kind: str, progress: bool
) -> _Training:
    numbers, energies, squares, components = [], [], 0.0, 0
    largest, distances = 0.0, []
    step = max(1, len(indices) // _DISTANCES)
    bar = tqdm(indices, desc="statistics of train", unit="frame", disable=not progress)
    for frame in (frames[index] for index in bar):
        check_frame(frame)
        numbers.append(frame.atoms.numbers)
        energies.append(frame.energy)
        free = frame.forces[~fixed_atoms(frame)]
        largest = max(largest, float(np.linalg.norm(free, axis=1).max(initial=0.0)))
        if len(energies) % step == 1 % step:
            distances.append(_nearest(frame.atoms))
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
    nearest = float(np.median(known)) if known else float("nan")
    return _Training(reference, normalizer, nearest, largest)


def _nearest(atoms: Atoms) -> float:
    """Median distance of the nearest neighbours, Angstrom; NaN for one atom."""
    if len(atoms) < 2:
        return float("nan")
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


def fixed_atoms(frame: Frame) -> np.ndarray:
    """(N,) bool: atoms of ``FixAtoms`` constraints."""
    fixed = np.zeros(len(frame.atoms), dtype=bool)
    for constraint in frame.atoms.constraints:
        fixed[constraint.index] = True
    return fixed


def _records(
    frames: Sequence[Frame],
    indices: np.ndarray,
    reference: EnergyReference,
    box: Box | None,
    missing: set[str],
    energies: list[float],
) -> Iterator[Data]:
    for sid in indices.tolist():
        frame = frames[sid]
        check_frame(frame)
        missing.update(reference.unknown(frame.atoms.numbers))
        data = geometry(frame.atoms, sid)
        if not frame.atoms.pbc.any():
            data.pos = torch.tensor(frame.atoms.positions, dtype=torch.float32)
            del data.cell
            if box is not None:
                data.cell = box.side * torch.eye(3)[None]
        energy = frame.energy - reference.of(frame.atoms.numbers)
        energies.append(energy)
        yield add_s2ef_labels(data, energy, frame.forces, frame.fid)


def _description(
    written: Written, units: Units, sources: Sequence[Path], seed: int
) -> dict[str, Any]:
    return {
        "written_by": WRITTEN_BY,
        "sources": [{"file": source.name, "sha256": _sha256(source)} for source in sources],
        "units_of_the_sources": asdict(units),
        "factors": {
            "energy_to_eV": units.energy_factor,
            "length_to_Angstrom": units.length_factor,
            "force_to_eV_per_Angstrom": units.force_factor,
        },
        "units": {"y": "eV", "force": "eV/Angstrom", "pos": "Angstrom (float32)"},
        "energy": {
            "meaning": "y = total energy - sum of the references of its atoms",
            "reference": written.reference.kind,
            "reference_eV": written.reference.by_symbol(),
            "mean_of_one_composition_eV": written.reference.mean,
        },
        "box_Angstrom": None if written.box is None else written.box.side,
        LARGEST_CUTOFF: None if written.box is None else written.box.largest_cutoff,
        "split": {"seed": seed, **written.counts},
        "sid": "number of the frame over all files, from 0, without frames that were left out; "
        "split.npz lists them",
        "fid": "number of the frame in its file",
        "normalizer": written.normalizer,
    }


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
