"""A finished rank that hangs while gloo's process groups are freed.

After a reduction gloo's thread frees the tensor, for which it waits for Python's lock if no
variable holds the tensor. fairchem's ``cleanup`` frees the groups, and with torch 2.4 a group waits
for its thread while it has that lock: both wait for ever, the sooner the busier the machine is.
Here the groups live until the process ends. It can go when torch 2.4 need not be supported (2.11
and later do not hang).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch.distributed import distributed_c10d

_alive: list[Any] = []


def after(module: ModuleType) -> None:
    """Let fairchem's ``distutils.cleanup`` destroy process groups without freeing them."""
    stock = module.cleanup

    def cleanup() -> None:
        _alive.extend(distributed_c10d._world.pg_map)
        stock()

    module.cleanup = cleanup
