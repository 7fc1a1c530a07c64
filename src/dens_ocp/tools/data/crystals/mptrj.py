"""MPtrj's JSON (MPtrj_2022.9_full.json), read material by material: the file has 11 GB.

``{mp_id: {frame_id: {"structure": pymatgen's dict, "uncorrected_total_energy",
"corrected_total_energy", "energy_per_atom", "ef_per_atom", "force", "stress", ...}}}``
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from dens_ocp.errors import DensError

ENERGY, FORCES, STRESS = "uncorrected_total_energy", "force", "stress"
"""Names of the labels; the energy is VASP's, to which the forces belong."""
MATERIAL, FRAME = "mp_id", "frame_id"
"""Keys of ``atoms.info``."""

_CHUNK = 1 << 24  # characters
_HEAD = 1 << 20
_LARGEST = 1 << 30  # of one material


def is_mptrj(path: Path) -> bool:
    """Whether a JSON file (``.json``, ``.json.gz``) holds structures of pymatgen's, as MPtrj's, and
    is no database of ASE's."""
    if not path.name.endswith((".json", ".json.gz")) or not path.is_file():
        return False
    try:
        with _open(path) as file:
            head = file.read(_HEAD)
    except (OSError, UnicodeDecodeError, EOFError):
        return False
    return all(f'"{key}"' in head for key in ("structure", "lattice", "sites"))


def frames(path: Path) -> Iterator[Atoms | DensError]:
    """The frames as structures of ASE's: what else stands in a frame lies in ``info``, with
    :data:`MATERIAL` and :data:`FRAME`; forces in ``arrays``. A frame without a structure is an
    error in its place.

    Raises:
        DensError: a file that is cut short, or is no such JSON.
    """
    for material, of_material in materials(path):
        if not isinstance(of_material, dict):
            raise DensError(f"{path}: {material} holds no frames; expected the layout of MPtrj")
        for name, block in of_material.items():
            try:
                atoms = structure(block["structure"])
            except Exception as error:  # of whatever pymatgen comes across
                yield DensError(
                    f"frame {name} of {path} has no structure that pymatgen reads "
                    f"({type(error).__name__}: {error})"
                )
                continue
            labels = {key: value for key, value in block.items() if key != "structure"}
            forces = labels.pop(FORCES, None)
            if forces is not None:
                atoms.arrays[FORCES] = np.asarray(forces)
            atoms.info = {**labels, MATERIAL: material, FRAME: name}
            yield atoms


def structure(described: Any) -> Atoms:
    """pymatgen's dict of a structure as ASE's. Where each site has one element, as all of MPtrj's,
    without pymatgen, which takes ten times as long."""
    symbols = [
        each["element"]
        for site in described["sites"]
        for each in site["species"]
        if each["occu"] == 1 and each["element"] in atomic_numbers
    ]
    if len(symbols) < len(described["sites"]):
        from pymatgen.core import Structure

        return Structure.from_dict(described).to_ase_atoms()
    places = [site["abc"] for site in described["sites"]]
    return Atoms(symbols, scaled_positions=places, cell=described["lattice"]["matrix"], pbc=True)


def materials(path: Path) -> Iterator[tuple[str, Any]]:
    """Keys and values of the outermost object of a JSON file, one by one.

    Raises:
        DensError: no JSON object, or one that is cut short.
    """
    decoder = json.JSONDecoder()
    try:
        with _open(path) as file:
            text = file.read(_CHUNK).lstrip()
            if not text.startswith("{"):
                raise DensError(f"{path} is not a JSON object of materials as in MPtrj")
            at = 1
            while True:
                try:
                    at = _skip(text, at, ",")
                    if text[at] == "}":
                        return
                    key, end = decoder.raw_decode(text, at)
                    end = _skip(text, _skip(text, end, "") + 1, "")
                    value, end = decoder.raw_decode(text, end)
                except (json.JSONDecodeError, IndexError):
                    known = len(text) - at
                    more = file.read(max(_CHUNK, known)) if known < _LARGEST else ""
                    if not more:
                        raise DensError(
                            f"{path} is cut short, or is not JSON, after "
                            f"{text[max(at - 60, 0) : at]!r}; download it again"
                        ) from None
                    text, at = text[at:] + more, 0
                    continue
                at = end
                yield key, value
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DensError(f"{path} cannot be read ({error}); download it again") from None


def _open(path: Path) -> IO[str]:
    return gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8")


def _skip(text: str, at: int, also: str) -> int:
    """The next character that is no white space and not ``also``.

    Raises:
        IndexError: there is none.
    """
    while text[at].isspace() or text[at] == also:
        at += 1
    return at
