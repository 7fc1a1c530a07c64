"""A measurement in a process of its own: it starts with nothing, and its memory ends with it."""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any


def run(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` in a new process; both have to be pickled, the result is JSON.

    Raises:
        RuntimeError: the process ended without a result; its own message stands on stderr.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return json.loads(receiver.recv())
    except EOFError:
        process.join()
        raise RuntimeError(
            f"{what}: the process that measures it ended with {process.exitcode}; its message "
            "stands above (-9: the machine ran out of memory)"
        ) from None
    finally:
        process.join()


def _child(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with redirect_stdout(sys.stderr):
        found = function(*arguments)
    sender.send(json.dumps(found, default=str))
