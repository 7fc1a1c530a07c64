"""A finished rank that hangs, or dies, while gloo's process groups are freed.

After a reduction gloo's thread frees the tensor, for which it waits for Python's lock if no
variable holds the tensor. fairchem's ``cleanup`` frees the groups, and with torch 2.4 a group waits
for its thread while it has that lock: both wait for ever, the sooner the busier the machine is. A
thread that wants the lock while the interpreter ends aborts the process. Here the groups live until
the process ends, and before it does gloo's threads get the time to let go of tensors. It can go
when torch 2.4 need not be supported (2.11 and later do not hang).
"""

from __future__ import annotations

import atexit
import time
from types import ModuleType
from typing import Any

from torch.distributed import distributed_c10d

_SECONDS = 0.3

_alive: list[Any] = []


def after(module: ModuleType) -> None:
    """Let fairchem's ``distutils.cleanup`` destroy process groups without freeing them."""
    stock = module.cleanup

    def cleanup() -> None:
        _keep()
        stock()

    module.cleanup = cleanup
    atexit.register(_let_threads_end)


def _keep() -> None:
    _alive.extend(distributed_c10d._world.pg_map)


def _let_threads_end() -> None:
    _keep()  # of a rank that ends by an error: nobody has cleaned up
    if _alive:
        time.sleep(_SECONDS)  # without Python's lock
