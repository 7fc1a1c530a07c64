"""Processes that read data: how many, and how they are started."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from torch.utils.data import DataLoader

from dens_ocp.errors import DensError, nearest

OPTION = "worker_start_method"


def with_start_method(loader: DataLoader, optim: dict[str, Any]) -> DataLoader:
    """Start the workers of ``loader`` as ``optim.worker_start_method`` says; absent: as Python.

    Raises:
        DensError: a method that this machine does not know.
    """
    method = optim.get(OPTION)
    if method is None:
        return loader
    known = multiprocessing.get_all_start_methods()
    if method not in known:
        raise DensError(
            f"optim.{OPTION}: {method!r} is not one of {', '.join(known)}"
            f"{nearest(str(method), known)}"
        )
    if loader.num_workers > 0:
        loader.multiprocessing_context = method
    return loader


def keeping_num_workers(
    build_config: Callable[..., dict[str, Any]],
    run_rank: Callable[..., None],
    set_runner: Callable[[Callable[[dict[str, Any]], None]], None],
) -> Callable[..., dict[str, Any]]:
    """fairchem's ``build_config``; ranks of a local run get the ``optim.num_workers`` it returned.

    ``_cli.main`` sets it to 0 for several ranks, because an LMDB environment cannot be pickled;
    ours can (:mod:`dens_ocp.datasets.lmdb_environment`).

    Args:
        build_config: fairchem's.
        run_rank: called in each rank with ``(config, num_workers)``.
        set_runner: makes ``_cli.main`` run its argument in each rank.
    """

    @wraps(build_config)
    def build(*args: Any, **options: Any) -> dict[str, Any]:
        config = build_config(*args, **options)
        workers = (config.get("optim") or {}).get("num_workers")
        set_runner(partial(run_rank, num_workers=workers))
        return config

    return build


def restore_num_workers(config: dict[str, Any], num_workers: int | None) -> None:
    """Give ``config`` back the number that the user wrote (None: none)."""
    optim = config.get("optim") or {}
    if num_workers is None or optim.get("num_workers") == num_workers:
        return
    optim["num_workers"] = num_workers
    logging.info("optim.num_workers stays %s: each rank has its own data workers", num_workers)
