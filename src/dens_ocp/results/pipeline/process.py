"""Runs the real command line in processes of its own, several at a time, with one bar for all."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dens_ocp.errors import DensError
from dens_ocp.launch import new_interpreter

_running: set[subprocess.Popen] = set()


def run_cli(
    arguments: list[str],
    *,
    log: Path,
    on_line: Callable[[str], None] | None = None,
    cwd: Path | None = None,
    threads: int | None = 1,
    inherited: Sequence[int] = (),
    command: str = "main",
    environment: Mapping[str, str] | None = None,
) -> None:
    """``dens-ocp main ...`` in a process of this interpreter; all its output goes to ``log``.

    Args:
        arguments: after ``dens-ocp main``.
        log: file to write.
        on_line: called with each line (progress bars' updates too) as it comes.
        cwd: folder to run in.
        threads: CPU threads of the process; None: as many as torch takes.
        inherited: file descriptors that the process keeps open as long as it lives.
        command: in place of ``main``. environment: further variables.

    Raises:
        DensError: the process failed; the message has the reason it gave and names ``log``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {
        **os.environ,
        **(environment or {}),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        **({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
    }
    words = new_interpreter.of_command_line(command, *arguments)
    tail: list[str] = []
    with open(log, "w", encoding="utf-8") as file:
        file.write(" ".join(["dens-ocp", command, *arguments]) + "\n")
        process = subprocess.Popen(
            words,
            cwd=cwd,
            env=variables,
            pass_fds=tuple(inherited),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,  # a carriage return ends a line too: updates of a progress bar
            encoding="utf-8",
            errors="replace",
        )
        _running.add(process)
        try:
            for line in filter(None, map(str.rstrip, process.stdout)):
                file.write(line + "\n")
                file.flush()
                tail = [*tail[-19:], line]
                if on_line is not None:
                    on_line(line)
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            _running.discard(process)
    if status != 0:
        said = [line for line in tail if line.startswith("error: ")]
        reason = said[-1].removeprefix("error: ") if said else "\n".join(tail[-5:])
        raise DensError(f"dens-ocp {command} {' '.join(arguments)} failed (see {log}):\n{reason}")


def cores() -> int:
    """CPU cores that the demo uses: two, or one where there is no second."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(2, available or 1)


def side_by_side(jobs: dict[Hashable, Callable[[], Any]], workers: int) -> dict[Hashable, Any]:
    """Results of ``jobs`` by their keys, ``workers`` at a time; after a failure none is started."""
    results = {}
    with ThreadPoolExecutor(workers) as pool:
        pending = {pool.submit(job): key for key, job in jobs.items()}
        try:
            for future in as_completed(pending):
                results[pending[future]] = future.result()
        except BaseException as error:
            for future in pending:
                future.cancel()
            if not isinstance(error, Exception):  # Ctrl-C: nobody waits for the others to finish
                for process in tuple(_running):
                    process.terminate()
            raise
    return results


@contextmanager
def jobs_bar(names: Sequence[str], disable: bool = False) -> Iterator[Callable[[str, int], None]]:
    """One bar of several jobs; each counts as far as its own bar has come.

    Args:
        names: of the jobs.
        disable: print nothing.

    Yields:
        What to call with the name of a job and its percentage; safe in threads.
    """
    done, lock = dict.fromkeys(names, 0), threading.Lock()
    with tqdm(
        total=100 * len(done),
        disable=disable or not done,
        bar_format="{percentage:3.0f}%|{bar:30}| {elapsed}{postfix}",
    ) as bar:

        def watch(name: str, percent: int) -> None:
            with lock:
                more = percent - done[name]
                if more <= 0:
                    return
                done[name] = percent
                at_work = [f"{job} {each}%" for job, each in done.items() if 0 < each < 100]
                bar.set_postfix_str(", ".join(at_work), refresh=False)
                bar.update(more)

        yield watch
