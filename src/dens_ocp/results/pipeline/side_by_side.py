"""Several runs at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from dens_ocp.results.pipeline.process import stop_running


def cores() -> int:
    """CPU cores that the demo uses: two, or one where there is no second."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(2, available or 1)


def side_by_side(jobs: dict[Hashable, Callable[[], Any]], workers: int) -> dict[Hashable, Any]:
    """Results of ``jobs`` by their keys, ``workers`` at a time; after a failure none is started."""
    results = {}
    with ThreadPoolExecutor(workers) as pool:
        pending = {pool.submit(job): key for key, job in jobs.items()}
        try:
            for future in as_completed(pending):
                results[pending[future]] = future.result()
        except BaseException as error:
            for future in pending:
                future.cancel()
            if not isinstance(error, Exception):  # Ctrl-C: nobody waits for the others to finish
                stop_running()
            raise
    return results
