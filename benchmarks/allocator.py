"""How the C library manages memory, which it reads from its environment when a process starts."""

from __future__ import annotations

import os
import sys

KEEPS, SYSTEM = "keeps", "system"
CHOICES = (KEEPS, SYSTEM)
SETTINGS = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "MALLOC_ARENA_MAX": "1",
}
"""glibc's: nothing is mapped for itself, nothing is given back, one heap for all threads."""


def choose(name: str) -> None:
    """Start this process again with the environment of one of ``CHOICES``, if it differs."""
    wanted = SETTINGS if name == KEEPS else {}
    found = {key: os.environ[key] for key in SETTINGS if key in os.environ}
    if found != wanted:
        rest = {key: value for key, value in os.environ.items() if key not in SETTINGS}
        os.execve(sys.executable, sys.orig_argv, rest | wanted)
