"""A process that runs parts of the check one after the other.

Importing takes ten seconds, so parts share a process. One that fails may leave the GPU's context
broken, and one that hangs cannot be stopped from inside: then the process is ended, and the next
part gets a new one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from typing import Any

from benchmarks.gpu.findings import Finding
from benchmarks.gpu.parts import Part, Setting
from dens_ocp.tools.quiet import quiet


class PartFailed(Exception):
    """A part ended without its end; the message says why."""


class Worker:
    """Starts its process with the first part."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Any = None

    def run(self, part: Part, setting: Setting) -> Iterator[Finding]:
        """The findings of a part, each as soon as it is known.

        Raises:
            PartFailed: it raised, its process died, or it took too long.
        """
        if self._process is None:
            self._start()
        end = min(setting.deadline, time.time() + part.most)
        try:
            self._pipe.send((part, setting))
            while True:
                if not self._pipe.poll(max(0.0, end - time.time())):
                    raise PartFailed(
                        f"broken off after {part.most:.0f} s or at the end of --seconds"
                    )
                kind, content = self._pipe.recv()
                if kind == "end":
                    return
                if kind == "failed":
                    raise PartFailed(content)
                yield content
        except (EOFError, OSError):
            self._process.join(5)
            raise PartFailed(
                f"its process ended with {self._process.exitcode} (-9: out of memory)"
            ) from None
        finally:
            if sys.exc_info()[0] is not None:
                self.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,))
        self._process.start()
        other.close()

    def close(self) -> None:
        """End the process and what it has started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            self._process.kill()  # it may not have made its group yet
        self._process.join()
        self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Any) -> None:
    os.setsid()
    with redirect_stdout(sys.stderr), quiet():
        while True:
            try:
                part, setting = pipe.recv()
            except EOFError:
                return
            try:
                for finding in part.function(setting, **part.options):
                    pipe.send(("finding", finding))
                pipe.send(("end", None))
            except Exception as error:
                traceback.print_exc()
                pipe.send(("failed", f"{type(error).__name__}: {error}"[:400]))
