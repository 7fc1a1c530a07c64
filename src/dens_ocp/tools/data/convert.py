"""From frames to folders of LMDBs that fairchem reads."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from torch_geometric.data import Data
from tqdm import tqdm

from dens_ocp.data.dataset_reference import DESCRIPTION, LARGEST_CUTOFF, WRITTEN_BY
from dens_ocp.data.records.oc20_records import add_s2ef_labels, geometry, write_lmdb, write_metadata
from dens_ocp.data.records.plausible_units import nearest_neighbour
from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import sha256
from dens_ocp.tools.data import energy_reference
from dens_ocp.tools.data.energy_reference import EnergyReference
from dens_ocp.tools.data.frames import Frame, check_frame, fitted_box, free_atoms
from dens_ocp.tools.data.units import Units

_DISTANCES = 32  # frames of a split whose distances are looked at
_FAR, _LITTLE = 10.0, 0.1  # standard deviations of the training set; eV


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
) -> dict[str, Any]:
    """Write ``out/train``, ``out/val``, ``out/test``, ``dataset.json`` and ``split.npz``.

    Everything is written beside ``out`` and renamed when it is complete.

    Args:
        frames: all of them; a record's ``sid`` is the frame's number here.
        split: indices by split; those without any get no folder.
        out: folder; must not exist, or be empty.
        units: of the files, for the description.
        sources: the files.
        reference: ``linear`` or ``none``, see :mod:`energy_reference`.
        box: side of an empty cube (Angstrom) that structures without periodicity get as cell;
            ``auto``: as large as the cutoff needs.
        cutoff: how far the model sees, Angstrom.
        seed: of the split, for the description.

    Returns:
        What ``dataset.json`` says.

    Raises:
        DensError: ``out`` is not empty, a frame that cannot be trained on, a box that is too small.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DensError(f"--out: {out} exists already; name another folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    taken = np.concatenate(list(split.values())).tolist()
    fitted = fitted_box((frames[index] for index in taken), box, cutoff)
    found, normalizer = _reference(frames, split["train"], reference, progress)
    warnings = [] if found.warning is None else [found.warning]
    noted = {name: _Noted() for name, indices in split.items() if len(indices)}
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        new = Path(temporary, "new")
        for name, notes in noted.items():
            side = None if fitted is None else fitted.side
            records = _records(frames, split[name], found, side, notes)
            bar = tqdm(records, desc=f"write {name}", unit="frame", total=len(split[name]),
                       disable=not progress)  # fmt: skip
            write_metadata(new / name, write_lmdb(new / name / "data.0000.lmdb", bar))
            if name != "train":
                warnings += _far_from_the_reference(name, np.array(notes.energies), normalizer)
        elements = set().union(*(notes.elements for notes in noted.values()))
        missing = sorted(elements - set(found.coefficients))
        if missing and reference != "none":
            warnings.append(
                f"{', '.join(chemical_symbols[number] for number in missing)} occur only in "
                "validation or test frames, so the energies of these frames have no reference"
            )
        for warning in warnings:
            tqdm.write(f"warning: {warning}")
        energy_factor, length_factor, force_factor = units.factors()
        described = {
            "written_by": WRITTEN_BY,
            "sources": [
                {"file": source.name, "sha256": sha256(source) if source.is_file() else None}
                for source in sources
            ],
            "units_of_the_sources": units._asdict(),
            "factors": {
                "energy_to_eV": energy_factor,
                "length_to_Angstrom": length_factor,
                "force_to_eV_per_Angstrom": force_factor,
            },
            "units": {"y": "eV", "force": "eV/Angstrom", "pos": "Angstrom (float32)"},
            "energy": {
                "meaning": "y = total energy - sum of the references of its atoms",
                "reference": found.kind,
                "reference_eV": found.by_symbol(),
                "mean_of_one_composition_eV": found.mean,
            },
            "box_Angstrom": None if fitted is None else fitted.side,
            LARGEST_CUTOFF: None if fitted is None else fitted.largest_cutoff,
            "split": {"seed": seed, **{name: len(split[name]) for name in noted}},
            "sid": "number of the frame over all files, from 0, without frames that were left out; "
            "split.npz lists them",
            "fid": "number of the frame in its file",
            "normalizer": normalizer,
            "largest_atomic_number": max(elements),
            "nearest_neighbours_Angstrom": noted["train"].nearest(),
            "largest_force_eV_per_Angstrom": noted["train"].largest_force,
        }
        np.savez(new / "split.npz", **split)
        (new / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n")
        if out.exists():
            out.rmdir()
        new.rename(out)
    return described


class _Noted:
    """What the records of a split said while they were written."""

    def __init__(self) -> None:
        self.energies: list[float] = []  # eV, relative to the reference
        self.elements: set[int] = set()
        self.distances: list[float] = []  # Angstrom, of nearest neighbours
        self.largest_force = 0.0  # eV/Angstrom, of free atoms

    def nearest(self) -> float | None:
        """Median, Angstrom; None: single atoms only."""
        known = [distance for distance in self.distances if np.isfinite(distance)]
        return float(np.median(known)) if known else None


def _records(
    frames: Sequence[Frame],
    indices: np.ndarray,
    reference: EnergyReference,
    side: float | None,
    noted: _Noted,
) -> Iterator[Data]:
    step = max(1, len(indices) // _DISTANCES)
    for number, sid in enumerate(indices.tolist()):
        frame = frames[sid]
        check_frame(frame)
        data = geometry(frame.atoms, sid)
        if not frame.atoms.pbc.any():
            data.pos = torch.tensor(frame.atoms.positions, dtype=torch.float32)
            del data.cell
        if number % step == 0:
            noted.distances.append(nearest_neighbour(data))
        if not frame.atoms.pbc.any() and side is not None:
            data.cell = side * torch.eye(3)[None]
        energy = frame.energy - reference.of(frame.atoms.numbers)
        noted.energies.append(energy)
        noted.elements.update(frame.atoms.numbers.tolist())
        largest = np.linalg.norm(frame.forces[free_atoms(frame)], axis=1).max(initial=0.0)
        noted.largest_force = max(noted.largest_force, float(largest))
        yield add_s2ef_labels(data, energy, frame.forces, frame.fid)


def _reference(
    frames: Sequence[Frame], indices: np.ndarray, kind: str, progress: bool
) -> tuple[EnergyReference, dict[str, dict[str, float]]]:
    """The energy reference, and the normalizer of a fairchem config: mean and stdev of energies
    (eV, relative to the reference) and forces (eV/Angstrom) of the training set."""
    numbers, energies, squares, components = [], [], 0.0, 0
    bar = tqdm(indices, desc="statistics of train", unit="frame", disable=not progress)
    for frame in (frames[index] for index in bar):
        check_frame(frame)
        numbers.append(frame.atoms.numbers)
        energies.append(frame.energy)
        free = frame.forces[free_atoms(frame)]
        squares, components = squares + float((free**2).sum()), components + free.size
    reference = energy_reference.fit(kind, numbers, np.array(energies))
    relative = np.array(energies) - [reference.of(each) for each in numbers]
    rms = float(np.sqrt(squares / components)) if components else 0.0
    for what, value in (("energies", relative.std()), ("forces on free atoms", rms)):
        if not value > 0:
            raise DensError(
                f"the {what} of the {len(indices)} training frames do not vary, so the model "
                "cannot learn anything; check the file, or take more frames (--train)"
            )
    return reference, {
        "energy": {"mean": float(relative.mean()), "stdev": float(relative.std())},
        "forces": {"mean": 0.0, "stdev": rms},
    }


def _far_from_the_reference(
    split: str, energies: np.ndarray, normalizer: dict[str, dict[str, float]]
) -> list[str]:
    """A warning if the energies of a split lie much further from the mean than those of train."""
    mean, stdev = normalizer["energy"]["mean"], normalizer["energy"]["stdev"]
    rms = float(np.sqrt(np.mean((energies - mean) ** 2)))
    if rms < max(_FAR * stdev, _LITTLE):
        return []
    return [
        f"the energies of {split} differ from the reference by {rms:.3g} eV (rms), those of "
        f"train by {stdev:.3g} eV: the reference is wrong for {split}; take more training frames "
        f"(--train) with the compositions of {split}"
    ]
