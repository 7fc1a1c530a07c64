"""A reader of our output that left, as ``dens-ocp ... | head`` does."""

from __future__ import annotations

import functools
import os
import select
import sys
from collections.abc import Callable

EXIT_STATUS = 141
"""What a shell reports for a program that SIGPIPE ended: 128 + 13."""


def ends_with_its_reader(
    command: Callable[[list[str] | None], int],
) -> Callable[[list[str] | None], int]:
    """The same command, ending with :data:`EXIT_STATUS` and without a stack trace as soon as
    nobody reads its standard output. Broken pipes to anyone else are errors as before."""

    @functools.wraps(command)
    def until_the_reader_leaves(argv: list[str] | None = None) -> int:
        try:
            try:
                return command(argv)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            if not _nobody_reads_stdout():
                raise
            # what is still buffered must not fail again when the interpreter ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_STATUS

    return until_the_reader_leaves


def _nobody_reads_stdout() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
