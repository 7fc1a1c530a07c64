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
        try:
            if self._process is None:
                self._start(setting.deadline)
            self._pipe.send((part, setting))
            self._answer(setting.deadline, "its modules were not imported in time")
            end = min(setting.deadline, time.time() + part.most)
            while True:
                kind, content = self._answer(end, f"broken off after {part.most:g} s or at the end")
                if kind == "end":
                    return
                if kind == "failed":
                    raise PartFailed(content)
                yield content
        except BaseException:
            self.close()
            raise

    def _start(self, deadline: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,))
        self._process.start()
        other.close()
        self._answer(deadline, "its process did not start in time")

    def _answer(self, end: float, too_late: str) -> tuple[str, Any]:
        """The next thing that the process says.

        Raises:
            PartFailed: it says nothing until ``end``, or has died.
        """
        try:
            if self._pipe.poll(max(0.0, end - time.time())):
                return self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            raise PartFailed(f"its process ended with {code} (-9: out of memory)") from None
        raise PartFailed(too_late)

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
    pipe.send(("ready", None))
    with redirect_stdout(sys.stderr), quiet():
        while True:
            try:
                part, setting = pipe.recv()
            except EOFError:
                return
            pipe.send(("begun", None))
            try:
                for finding in part.function(setting, **part.options):
                    pipe.send(("finding", finding))
                pipe.send(("end", None))
            except Exception as error:
                traceback.print_exc()
                pipe.send(("failed", f"{type(error).__name__}: {error}"[:400]))
