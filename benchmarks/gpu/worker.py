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


class TimeIsOver(Exception):
    """A part was broken off at the end of the check's time."""


class Worker:
    """Starts its process with the first part."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Any = None

    def run(self, part: Part, setting: Setting) -> Iterator[Finding]:
        """The findings of a part, each as soon as it is known.

        Raises:
            PartFailed: it raised, its process died, or it took longer than a part may.
            TimeIsOver: the check did.
        """
        try:
            if self._process is None:
                self._start()
                self._answer(setting, setting.left())
            self._pipe.send((part, setting))
            self._answer(setting, setting.left())  # it has imported what the part needs
            end = time.time() + part.limit(setting.quick)
            while True:
                kind, content = self._answer(setting, end - time.time())
                if kind == "end":
                    return
                if kind == "failed":
                    raise PartFailed(content)
                yield content
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,))
        self._process.start()
        other.close()

    def _answer(self, setting: Setting, seconds: float) -> tuple[str, Any]:
        """The next thing that the process says, within ``seconds`` and the check's time.

        Raises:
            PartFailed, TimeIsOver: as :meth:`run`.
        """
        try:
            if self._pipe.poll(max(0.0, min(seconds, setting.left()))):
                return self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            raise PartFailed(f"its process ended with {code} (-9: out of memory)") from None
        if setting.left() <= 0:
            raise TimeIsOver
        raise PartFailed("it took too long and was broken off")

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
