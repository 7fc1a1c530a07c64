"""Several gloo ranks without the start of a command line: forks of this process."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from typing import Any

from torch.distributed.elastic.utils.distributed import get_free_port

from dens_ocp.launch.ranks import Rank


def on_ranks(count: int, action: Callable[..., Any], *arguments: Any, seconds: float = 120) -> list:
    """Run ``action(*arguments)`` on each of ``count`` ranks of a gloo group.

    Returns:
        What it returned on each rank; a failure as the text of its traceback, in an
        ``AssertionError``.
    """
    port, context = get_free_port(), multiprocessing.get_context("fork")
    pipes, processes = [], []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_rank, args=(theirs, rank, count, port, action, arguments), daemon=True
        )
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    answers: list[Any] = [("no answer", None)] * count
    try:
        for rank, pipe in enumerate(pipes):
            if pipe.poll(seconds):
                answers[rank] = pipe.recv()
            if answers[rank][0]:
                break
        for rank, pipe in enumerate(pipes):  # of those that had to wait for a failed one
            if answers[rank][0] == "no answer" and pipe.poll(0.5):
                answers[rank] = pipe.recv()
    except EOFError:
        pass
    finally:
        for process in processes:
            process.kill()
            process.join()
    failed = {rank: error for rank, (error, _) in enumerate(answers) if error}
    assert not failed, "\n".join(f"rank {rank}: {error}" for rank, error in failed.items())
    return [result for _, result in answers]


def _rank(pipe: Any, rank: int, count: int, port: int, action: Any, arguments: Any) -> None:
    from fairchem.core.common import distutils

    Rank(rank, count, rank, "localhost", port).announce(os.environ)
    try:
        distutils.setup(
            {"submit": False, "summit": False, "cpu": True, "world_size": count,
             "distributed_backend": "gloo"}
        )  # fmt: skip
        pipe.send((None, action(*arguments)))
    except BaseException:
        pipe.send((traceback.format_exc(), None))
    os._exit(0)
