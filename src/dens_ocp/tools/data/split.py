"""Which frames are for training, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dens_ocp.errors import DensError

SPLITS = ("train", "val", "test")


def draw(
    frames: int,
    numbers: Mapping[str, int | None],
    named: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Indices of each split, sorted, none twice.

    A permutation of the frames that no file names, drawn with ``numpy.random.default_rng(seed)``,
    gives the first ``train`` to the training set, the next ``val`` to validation, the others to the
    test set. If a file names the training frames but not those of validation, both come from it.

    Args:
        frames: how many there are.
        numbers: of frames, by split; None: what is left.
        named: frames of a split that a file names, by split.
        seed: of the draw.

    Raises:
        DensError: too few frames; indices out of range or in two splits.
    """
    named = dict(named or {})
    _check_indices(named, frames)
    pool = np.arange(frames)
    if "train" in named and "val" not in named:
        pool = named.pop("train")
        named.setdefault("test", np.setdiff1d(np.arange(frames), pool)[: numbers["test"]])
    pool = np.setdiff1d(pool, np.concatenate([*named.values(), np.empty(0, dtype=np.int64)]))
    pool = np.random.default_rng(seed).permutation(pool)
    parts = {}
    for split in SPLITS:
        if split in named:
            parts[split] = np.sort(named[split])
            continue
        number = numbers[split]
        if number is None:
            kept = numbers["val"] if split == "train" and "val" not in named else 0
            number = len(pool) - (kept or 0)
        if number < 0 or number > len(pool) or (split == "train" and number == 0):
            raise DensError(
                f"--{split}: {number} frames are requested, but only {len(pool)} of {frames} are "
                "left; give smaller numbers (--train, --val, --test)"
            )
        parts[split], pool = np.sort(pool[:number]), pool[number:]
    return parts


def read_indices(path: Path) -> np.ndarray:
    """Indices from a text file with one a line (rMD17's ``index_train_01.csv``), or ``.npy``.

    Raises:
        DensError: something else.
    """
    try:
        array = path.suffix == ".npy"
        found = np.load(path) if array else np.loadtxt(path, dtype=np.int64, ndmin=1)
        return np.asarray(found).reshape(-1).astype(np.int64, casting="same_kind")
    except (OSError, ValueError, TypeError) as error:
        raise DensError(
            f"{path} cannot be read as a list of frames with one number per line: {error}"
        ) from None


def read_split_file(path: Path) -> dict[str, np.ndarray]:
    """Indices of all splits from one ``.npz``: ``train``, ``val``, ``test`` (written by
    ``dens-ocp data``) or ``idx_train``, ... (PyTorch Geometric's and the like).

    Raises:
        DensError: no such file, no training frames in it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (OSError, ValueError) as error:
        raise DensError(f"--split-file: {path} cannot be read: {error}") from None
    found = {
        split: arrays[name].reshape(-1).astype(np.int64)
        for split in SPLITS
        for name in (split, f"idx_{split}")
        if name in arrays
    }
    if "train" not in found:
        raise DensError(
            f"--split-file: {path} has no array train or idx_train (it has {', '.join(arrays)})"
        )
    return found


def _check_indices(named: dict[str, np.ndarray], frames: int) -> None:
    for split, indices in named.items():
        if len(indices) and (indices.min() < 0 or indices.max() >= frames):
            raise DensError(
                f"indices of {split}: {indices.min()} to {indices.max()}, but the frames are "
                f"numbered 0 to {frames - 1}"
            )
    everything = np.concatenate([*named.values(), np.empty(0, dtype=np.int64)])
    values, counts = np.unique(everything, return_counts=True)
    if (counts > 1).any():
        raise DensError(
            f"frame {values[counts > 1][0]} is named twice; each frame may be in only one of "
            "train, val and test"
        )
