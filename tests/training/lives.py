"""Many processes that train, without an import of fairchem (six seconds) for each.

One process imports; each life is forked from it, runs the real command line on one rank, and can be
signalled and killed like any other process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


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

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Wait until the log has ``text``."""
        end = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < end, self.log[-3000:]
            time.sleep(0.01)

    def end(self) -> int:
        """Wait for the end; the exit code, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(self.server.ask(wait=self.pid))


class Lives:
    """Starts lives; see :meth:`train`."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, **request) -> int:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def train(self, config: Path, name: str, cwd: Path, *arguments: str | Path, **limits) -> Life:
        """``fairchem main --mode train`` in ``cwd``, with ``--timestamp-id name``.

        Args:
            limits: ``file_size``: bytes, larger files fail as on a full disk.
        """
        log = cwd / f"log.{len(list(cwd.glob('log.*')))}"
        log.touch()
        argv = [
            "--mode", "train", "--config-yml", config, "--cpu", "--print-every", "3",
            "--run-dir", cwd, "--timestamp-id", name, *arguments,
        ]  # fmt: skip
        pid = self.ask(argv=[str(each) for each in argv], cwd=str(cwd), log=str(log), **limits)
        return Life(self, pid, log)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def _serve() -> None:
    import fairchem.core.common.utils as fairchem_utils

    from dens_ocp.tools.cli import fairchem_main

    fairchem_utils.setup_imports()
    import fairchem.core._cli  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitpid(request["wait"], 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                answers.close()
                os.setsid()
                log = os.open(request["log"], os.O_WRONLY | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.chdir(request["cwd"])
                if "file_size" in request:
                    import resource

                    size = request["file_size"]
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
                sys.exit(fairchem_main(request["argv"]))
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    _serve()
