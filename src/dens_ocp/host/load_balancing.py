"""``optim.load_balancing``: as many atoms in the batches of all ranks, from sizes of structures."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairchem.core.common import distutils, gp_utils
from tqdm import tqdm

METADATA = "metadata.npz"


def prepared(dataset: Any, optim: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A copy of ``optim`` with which fairchem's sampler starts, and a data set that it can balance.

    fairchem asks for sizes (``metadata.npz`` beside the data) wherever ``load_balancing`` is given,
    ``False`` and a single rank too, and ends with an UnsupportedDatasetError
    (``common/data_parallel.py:169``). Here one rank needs none. Several count the atoms of the
    structures together and write the file, or, where that is not allowed, keep the numbers.

    Args:
        dataset: fairchem's, or its ``Subset``; gets the numbers.
        optim: the config's section, checked.
        device: of this rank.
    """
    mode, on_error = optim.get("load_balancing"), optim.get("load_balancing_on_error")
    ranks = gp_utils.get_dp_world_size() if gp_utils.initialized() else distutils.get_world_size()
    if ranks == 1 or mode is False:
        return {**optim, "load_balancing_on_error": "warn_and_no_balance"}
    if mode is None or on_error not in (None, "raise") or dataset.metadata_hasattr("natoms"):
        return optim
    _count(dataset, device)
    return optim


def _count(dataset: Any, device: torch.device) -> None:
    """Each rank reads a share of the records; all of them get all numbers."""
    whole, indices = dataset, np.arange(len(dataset))
    while hasattr(whole, "dataset"):
        indices = np.asarray(whole.indices)[indices]
        whole = whole.dataset
    rank, ranks = distutils.get_rank(), distutils.get_world_size()
    share = indices[rank::ranks]
    bar = tqdm(
        share, desc=f"Atoms of {len(indices):,} structures, for load balancing", disable=rank > 0
    )
    counted = [int(_number_of_atoms(whole, int(index))) for index in bar]
    shares: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(shares, (share, counted))
    natoms = np.zeros(len(whole), dtype=np.int32)
    for where, numbers in shares:
        natoms[where] = numbers
    whole.__dict__["_metadata"] = {**whole._metadata, "natoms": natoms}
    if len(indices) == len(whole) and distutils.is_master():
        _write(whole, natoms)
    distutils.synchronize()


def _number_of_atoms(dataset: Any, index: int) -> int:
    return dataset[index].pos.shape[0]


def _write(dataset: Any, natoms: np.ndarray) -> None:
    config = dataset.config
    paths = [Path(path) for path in dataset.paths]
    if len(paths) != 1 or config.get("metadata_path") or "shard" in config:
        return
    folder = paths[0].parent if paths[0].is_file() else paths[0]
    path, unfinished = folder / METADATA, folder / f".{METADATA}.{os.getpid()}"
    if path.exists() or not folder.is_dir():
        return
    try:
        with unfinished.open("wb") as file:
            np.savez(file, natoms=natoms)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        logging.warning(
            "%s cannot be written (%s): the numbers of atoms are counted again by the next run",
            path,
            error.strerror,
        )
        return
    logging.info("%s written: the numbers of atoms of %d structures", path, len(natoms))
