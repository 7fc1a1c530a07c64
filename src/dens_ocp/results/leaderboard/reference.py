"""What a split's LMDB says about its structures: their ids and numbers of atoms; no labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dens_ocp.data.checks import check_lmdb_source
from dens_ocp.data.structures import open_structures
from dens_ocp.errors import DensError


@dataclass(frozen=True)
class Reference:
    """The structures of a data set, in its order.

    Attributes:
        path: of the LMDB or its folder.
        ids: (S,) text, ``sid_fid`` where records have a fid, else ``sid``.
        sids: (S,) text.
        fixed: (A,) bool, of the atoms of all structures one after the other.
        natoms: (S,) int64. nfree: (S,) int64, atoms that are not fixed.
    """

    path: Path
    ids: np.ndarray
    sids: np.ndarray
    fixed: np.ndarray
    natoms: np.ndarray
    nfree: np.ndarray

    def names(self, task: str) -> np.ndarray:
        """(S,) the ids that files of ``task`` use: of frames for ``s2ef``, else of systems."""
        return self.ids if task == "s2ef" else self.sids


def read_reference(path: Path, split: str, progress: bool = True) -> Reference:
    """Read every record of the LMDB ``path`` (a file, or a folder of them), one at a time.

    Args:
        split: for messages.
        progress: show a bar.

    Raises:
        DensError: the path is missing or holds no whole LMDB.
    """
    check_lmdb_source(path, f"--lmdb {split}")
    ids, sids, fixed = [], [], []
    structures = open_structures({"src": str(path)}, f"--lmdb {split}")
    for each in tqdm(structures, desc=f"{split}: ids", total=len(structures), disable=not progress):
        ids.append(each.id)
        sids.append(each.sid)
        fixed.append(each.fixed)
    return Reference(
        Path(path),
        np.array(ids),
        np.array(sids),
        np.concatenate(fixed),
        np.array([len(each) for each in fixed], np.int64),
        np.array([np.count_nonzero(~each) for each in fixed], np.int64),
    )


def read_references(paths: dict[str, Path], progress: bool = True) -> dict[str, Reference]:
    """The data sets of several splits.

    Raises:
        DensError: one of them cannot be read; the same one for two splits.
    """
    seen: dict[Path, str] = {}
    for split, path in paths.items():
        twin = seen.setdefault(Path(path).resolve(), split)
        if twin != split:
            raise DensError(
                f"--lmdb: {path} is given for {twin} and for {split}; each split has its own LMDB"
            )
    return {split: read_reference(path, split, progress) for split, path in paths.items()}
