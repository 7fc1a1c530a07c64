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
from torch_geometric.data import Data
from tqdm import tqdm

from dens_ocp.conversion import energy_reference
from dens_ocp.conversion.energy_reference import EnergyReference
from dens_ocp.conversion.frames import Frame, check_frame
from dens_ocp.conversion.units import Units
from dens_ocp.datasets.oc20_records import (
    add_s2ef_labels,
    geometry,
    write_lmdb,
    write_metadata,
)
from dens_ocp.errors import DensError
from dens_ocp.host.dataset_reference import DESCRIPTION, WRITTEN_BY


@dataclass(frozen=True)
class Written:
    """A data set on disk.

    Attributes:
        root: folder with ``train``, ``val``, ``test``.
        counts: records by split; splits without any have no folder.
        normalizer: as in a fairchem config: mean and stdev of energies (eV, relative to the
            reference) and forces (eV/Angstrom) of the training set.
        reference: what was subtracted from energies.
    """

    root: Path
    counts: dict[str, int]
    normalizer: dict[str, dict[str, float]]
    reference: EnergyReference


def convert(
    frames: Sequence[Frame],
    split: dict[str, np.ndarray],
    out: Path,
    *,
    units: Units,
    sources: Sequence[Path],
    reference: str = "linear",
    box: float | None = None,
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
        box: side of an empty cube (Angstrom) that structures without periodicity get as cell.
        seed: of the split, for the description.

    Raises:
        DensError: ``out`` is not empty, a frame that cannot be trained on, a box that is too small.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DensError(f"--out: {out} exists already; name another folder, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        used, normalizer = _training_statistics(frames, split["train"], reference, progress)
        written = Written(out, {s: len(i) for s, i in split.items() if len(i)}, normalizer, used)
        missing: set[str] = set()
        for name in written.counts:
            records = _records(frames, split[name], used, box, missing)
            bar = tqdm(records, desc=f"write {name}", unit="frame", total=len(split[name]),
                       disable=not progress)  # fmt: skip
            write_metadata(temporary / name, write_lmdb(temporary / name / "data.0000.lmdb", bar))
        if missing:
            tqdm.write(
                f"warning: {', '.join(sorted(missing))} only occur in validation or test frames, "
                "whose energies therefore have no reference"
            )
        np.savez(temporary / "split.npz", **split)
        description = _description(written, units, sources, box, seed)
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        os.chmod(temporary, 0o755)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return written


def _training_statistics(
    frames: Sequence[Frame], indices: np.ndarray, kind: str, progress: bool
) -> tuple[EnergyReference, dict[str, dict[str, float]]]:
    numbers, energies, squares, components = [], [], 0.0, 0
    bar = tqdm(indices, desc="statistics of train", unit="frame", disable=not progress)
    for frame in (frames[index] for index in bar):
        check_frame(frame)
        numbers.append(frame.atoms.numbers)
        energies.append(frame.energy)
        free = frame.forces[~fixed_atoms(frame)]
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
    return reference, {
        "energy": {"mean": float(relative.mean()), "stdev": float(relative.std())},
        "forces": {"mean": 0.0, "stdev": rms},
    }


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
    box: float | None,
    missing: set[str],
) -> Iterator[Data]:
    for sid in indices.tolist():
        frame = frames[sid]
        check_frame(frame)
        if box is None and frame.atoms.pbc.any() != frames[0].atoms.pbc.any():
            raise DensError(
                f"{frame.where} and {frames[0].where}: one is periodic, the other is not, and a "
                "batch cannot hold both; give --box, or convert them apart"
            )
        missing.update(reference.unknown(frame.atoms.numbers))
        data = geometry(frame.atoms, sid)
        if not frame.atoms.pbc.any():
            data.pos = torch.tensor(frame.atoms.positions, dtype=torch.float32)
            del data.cell
            if box is not None:
                data.cell = _box(frame, box)
        energy = frame.energy - reference.of(frame.atoms.numbers)
        yield add_s2ef_labels(data, energy, frame.forces, frame.fid)


def _box(frame: Frame, side: float) -> torch.Tensor:
    extent = float(np.ptp(frame.atoms.positions, axis=0).max())
    if side < 2 * extent:
        raise DensError(
            f"--box: {side:g} Angstrom are too few for {frame.where}, which is {extent:.1f} "
            f"Angstrom long; its images must be further away than the model looks (extent plus "
            f"max_radius): --box {5 * np.ceil((extent + 12) / 5):g} is enough for 12 Angstrom"
        )
    return side * torch.eye(3)[None]


def _description(
    written: Written, units: Units, sources: Sequence[Path], box: float | None, seed: int
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
        "box_Angstrom": box,
        "split": {"seed": seed, **written.counts},
        "sid": "number of the frame over all files, from 0; split.npz lists them",
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
