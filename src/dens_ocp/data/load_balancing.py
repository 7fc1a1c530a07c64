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

from dens_ocp.errors import DensError

METADATA = "metadata.npz"


def prepared(dataset: Any, optim: dict[str, Any]) -> dict[str, Any]:
    """A copy of ``optim`` with which fairchem's sampler starts, and a data set that it can balance.

    fairchem asks for sizes (``metadata.npz`` beside the data) wherever ``load_balancing`` is given,
    ``False`` and a single rank too, and ends with an UnsupportedDatasetError
    (``common/data_parallel.py:169``). Here one rank needs none. Several count the atoms of the
    structures together and write the file, or, where that is not allowed, keep the numbers.

    Args:
        dataset: fairchem's, or its ``Subset``; gets the numbers.
        optim: the config's section, checked.

    Raises:
        DensError: a record that cannot be read.
    """
    mode, on_error = optim.get("load_balancing"), optim.get("load_balancing_on_error")
    ranks = gp_utils.get_dp_world_size() if gp_utils.initialized() else distutils.get_world_size()
    if ranks == 1 or mode is False:
        return {**optim, "load_balancing_on_error": "warn_and_no_balance"}
    if mode is None or on_error not in (None, "raise"):
        return optim
    # a file that one rank has just written may not be there yet for a rank on another node
    if not all(_gathered(dataset.metadata_hasattr("natoms"))):
        _count(dataset)
    return optim


def _gathered(value: Any) -> list[Any]:
    values: list[Any] = [None] * distutils.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def _count(dataset: Any) -> None:
    """Each rank reads a share of the records; all of them get all numbers.

    Raises:
        DensError: a record that cannot be read; on all ranks.
    """
    whole, indices, layers = dataset, np.arange(len(dataset)), [dataset]
    while hasattr(whole, "dataset"):
        indices = np.asarray(whole.indices)[indices]
        whole = whole.dataset
        layers.append(whole)
    share = indices[distutils.get_rank() :: distutils.get_world_size()]
    bar = tqdm(
        share,
        desc=f"Counting the atoms of {len(indices):,} structures, for load balancing",
        disable=not distutils.is_master(),
    )
    counted, error = [], ""
    try:
        counted = [int(whole[int(index)].pos.shape[0]) for index in bar]
    except Exception as reason:  # told to all ranks
        error = str(reason) if isinstance(reason, DensError) else repr(reason)
    natoms = np.zeros(len(whole), dtype=np.int32)
    for where, numbers, failed in _gathered((share, counted, error)):
        if failed:
            raise DensError(
                f"optim.load_balancing: the atoms of {', '.join(map(str, whole.paths))} cannot be "
                f"counted: {failed}; repair the record, or set load_balancing: False"
            )
        natoms[where] = numbers
    metadata = {**whole._metadata, "natoms": natoms}
    for layer in layers:
        layer.__dict__["_metadata"] = metadata  # cached properties
    if len(indices) == len(whole) and distutils.is_master():
        _write(whole, natoms)
    distutils.synchronize()


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
            "%s cannot be written (%s), so the next run counts the atoms again",
            path,
            error.strerror,
        )
        return
    logging.info(
        "%s was written; it holds the numbers of atoms of %d structures", path, len(natoms)
    )
