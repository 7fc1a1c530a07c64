"""Many processes of the command line, without an import of fairchem (six seconds) for each.

One process imports; each life is forked from it, runs the real command line, and can be signalled
and killed like any other process.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.elastic.utils.distributed import get_free_port


@dataclass
class Life:
    server: Lives
    pid: int
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def kill_all(self, number: int) -> None:
        """Signal the process and its data workers, as SLURM and a terminal do it."""
        os.killpg(self.pid, number)

    def wait_for(self, text: str, seconds: float = 300) -> None:
        """Wait until the log has ``text``."""
        end = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < end, self.log[-3000:]
            time.sleep(0.01)

    def end(self, seconds: float = 600) -> int:
        """Wait for the end; the exit code, or minus the signal that killed it.

        Raises:
            TimeoutError: it has not ended by then, and was killed with its workers.
        """
        status = self.server.ask(wait=self.pid, seconds=seconds)
        if status < 0:
            raise TimeoutError(f"killed after {seconds} s: {self.log[-3000:]}")
        return os.waitstatus_to_exitcode(status)


class Lives:
    """Starts lives; see :meth:`start` and :meth:`train`."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, **request) -> int:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def start(
        self, argv: Sequence[str | Path], cwd: Path, out: Path, err: Path | None = None, **limits
    ) -> Life:
        """``dens-ocp`` in ``cwd``.

        Args:
            out, err: files for its output; ``out`` takes both if there is no other.
            limits: ``file_size``: bytes, larger files fail as on a full disk; ``ranks``: so many
                processes, as torchrun starts them.
        """
        files = [str(each) for each in (out, err or out)]
        pid = self.ask(argv=[str(each) for each in argv], cwd=str(cwd), files=files, **limits)
        return Life(self, pid, out)

    def train(self, config: Path, name: str, cwd: Path, *arguments: str | Path, **limits) -> Life:
        """``fairchem main --mode train`` in ``cwd``, with ``--timestamp-id name``."""
        log = cwd / f"log.{len(list(cwd.glob('log.*')))}"
        log.touch()
        argv = [
            "main", "--mode", "train", "--config-yml", config, "--cpu", "--print-every", "3",
            "--run-dir", cwd, "--timestamp-id", name, *arguments,
        ]  # fmt: skip
        return self.start(argv, cwd, log, **limits)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


_shared: dict[tuple[tuple[str, str], ...], Lives] = {}
_MOST_SHARED = 2


def shared(environment: tuple[tuple[str, str], ...]) -> Lives:
    """The one of this process for an environment; each takes 0.7 GiB, so the oldest ones end."""
    if environment not in _shared:
        while len(_shared) >= _MOST_SHARED:
            _shared.pop(next(iter(_shared))).close()
        _shared[environment] = Lives(dict(environment))
    return _shared[environment]


@atexit.register
def _close_shared() -> None:
    for server in _shared.values():
        server.close()


def _status(pid: int, end: float) -> int:
    """Of a process that has ended, or -1 for one that was killed at the time ``end``."""
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -1


def _launch(count: int) -> None:
    """Returns in ``count`` new processes, each a rank; this one waits for them, and ends with the
    code of the first that fails, and the others with it."""
    from dens_ocp.launch.ranks import Rank

    port, ranks = get_free_port(), set()
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            Rank(rank, count, rank, "localhost", port).announce(os.environ)
            return
        ranks.add(pid)
    first = 0
    while ranks:
        ended, status = os.wait()
        ranks.remove(ended)
        if status and not first:
            first = status
            signal.signal(
                signal.SIGALRM, lambda *_: [os.kill(each, signal.SIGKILL) for each in ranks]
            )
            signal.alarm(5)  # so long for its message to be everyone's
    code = os.waitstatus_to_exitcode(first)
    os._exit(code if code >= 0 else 128 - code)


def _serve() -> None:
    from dens_ocp.tools.cli import main

    import fairchem.core.common.utils as fairchem_utils  # isort: skip

    fairchem_utils.setup_imports()
    import fairchem.core._cli  # noqa: F401
    from e3nn import o3

    import dens_ocp.models.equiformer_v2
    import dens_ocp.models.escn
    import dens_ocp.models.fast.switch
    import dens_ocp.trainer  # noqa: F401
    from dens_ocp.dens.force_encoding import spherical_harmonics

    o3.ToS2Grid(3, (8, 8))  # e3nn generates code and compiles it in its first calls
    for _ in range(3):
        spherical_harmonics(torch.ones(2, 3), 3)

    logging.root.handlers.clear()  # of what was imported; fairchem's main sets up its own

    if "triton" not in sys.modules:  # whose types would be reported as leaks at the end
        gc.collect()
        gc.freeze()  # else each life looks through all that was imported when it ends: a second

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = _status(request["wait"], time.monotonic() + request["seconds"])
        else:
            answer = os.fork()
            if answer == 0:
                answers.close()
                os.setsid()
                for number, file in enumerate(request["files"], 1):
                    os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.chdir(request["cwd"])
                if "file_size" in request:
                    import resource

                    size = request["file_size"]
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
                if request.get("ranks", 1) > 1:
                    _launch(request["ranks"])
                sys.argv[1:] = request["argv"]
                sys.exit(main(request["argv"]))
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    _serve()
