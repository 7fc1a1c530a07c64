"""Processes that read data: how many, and how they are started."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch.utils.data import DataLoader

from dens_ocp.errors import DensError, nearest

OPTION = "worker_start_method"

_HIDDEN = "num_workers_of_each_rank"


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


def keeping_num_workers(build_config: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """fairchem's ``build_config``, whose result hides ``optim.num_workers`` from ``_cli.main``.

    That sets it to 0 for several ranks of one machine, because an LMDB environment cannot be
    pickled; ours can (:mod:`dens_ocp.data.lmdb_environment`). :func:`restore_num_workers` is
    called in each rank.
    """

    @wraps(build_config)
    def build(args: Any, *more: Any) -> dict[str, Any]:
        config = build_config(args, *more)
        if not args.submit and args.num_gpus > 1:
            config[_HIDDEN] = (config.get("optim") or {}).pop("num_workers", None)
        return config

    return build


def restore_num_workers(config: dict[str, Any]) -> None:
    """Give the config of a rank the hidden number back."""
    num_workers = config.pop(_HIDDEN, None)
    if num_workers is not None:
        config["optim"]["num_workers"] = num_workers
