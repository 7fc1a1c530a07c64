"""SIGTERM, SIGINT, SIGUSR1 and SIGUSR2 ask a training run to stop after the step it is in.

SIGINT is Ctrl-C; the second one ends the run at once.

The handler only takes a note. The run looks at it between steps (:mod:`dens_ocp.launch.steps`),
saves, and then calls the handler that was there before, if any: submitit's requeues the job.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import process
from typing import Any

from torch.distributed.elastic.multiprocessing import api as launcher

from dens_ocp.patched import swapped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
SAME_INTERRUPT = 2.0
"""Seconds within which a second SIGINT is taken for the same one: a terminal sends Ctrl-C to all
processes of a run, and so may who has started them."""

_SI_KERNEL = 0x80  # <signal.h>: not sent by a process

_received = 0
_interrupted_at: float | None = None
_ended_at_once = False
_before: dict[int, Any] = {}


def listen() -> None:
    """Note the signals from now on. Does nothing the second time, or in a thread; a SIGINT that
    is ignored (as of ``nohup`` and shells' background jobs) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if number == signal.SIGINT and handler is signal.SIG_IGN:
            continue
        if handler is not _note:
            _before[number] = handler
            signal.signal(number, _note)
    # blocked by :func:`passed_on` while this process started
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _note(number: int, frame: Any) -> None:
    global _received
    _received = _received or number
    if number == signal.SIGINT and interrupted_again():
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def interrupted_again() -> bool:
    """Call it at each SIGINT: whether it is a second one. The first is answered on stderr."""
    global _interrupted_at, _ended_at_once
    now = time.monotonic()
    if _interrupted_at is None:
        _interrupted_at = now
        if os.environ.get("RANK", "0") == "0":
            os.write(2, b"\nstopping after this step, with a checkpoint; Ctrl-C again: at once\n")
        return False
    _ended_at_once = now - _interrupted_at > SAME_INTERRUPT
    return _ended_at_once


def was_interrupted_again() -> bool:
    """A second SIGINT has ended the run."""
    return _ended_at_once


def received() -> int:
    """The first of the signals that came, or 0."""
    return _received


def stop_listening() -> None:
    """Put the handlers back that were there before :func:`listen`."""
    global _received, _interrupted_at
    if threading.current_thread() is not threading.main_thread():
        return
    for number, handler in _before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    _before.clear()
    _received, _interrupted_at = 0, None


def call_earlier_handler(number: int) -> bool:
    """Call the Python handler that :func:`listen` found for a signal; False if there was none."""
    handler = _before.get(number)
    if not callable(handler) or handler is signal.default_int_handler:
        return False
    handler(number, None)
    return True


@contextmanager
def held() -> Iterator[None]:
    """Processes that are started inside have the signals blocked; they arrive here afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_in_worker(worker_id: int) -> None:
    """For ``DataLoader(worker_init_fn=...)``: a worker ends when its parent says so.

    SLURM, ``kill -- -PGID`` and a terminal signal all processes of a step. A worker that dies of
    it takes the training step with it that the run is about to finish.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def wait() -> None:
        parent = os.getppid()
        while True:
            info = signal.sigwaitinfo(SIGNALS)
            if info.si_signo == signal.SIGTERM and info.si_pid == parent:
                os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def passed_on() -> Iterator[None]:
    """For the process that starts the ranks on one machine: it hands the signals to them.

    torch's launcher kills the ranks on SIGTERM and SIGINT and dies of SIGUSR1 and SIGUSR2. Here
    the signals are blocked, which the ranks inherit until they :func:`listen`, so none is lost
    while they start. They come to a thread that waits for them, or, through a thread of some
    library that does not block them, to a handler. A terminal's Ctrl-C comes to the ranks without
    our help; at the second one they are killed.
    """
    came: queue.SimpleQueue[int] = queue.SimpleQueue()
    from_terminal: list[int] = []
    launchers = launcher._terminate_process_handler

    def handler(number: int, frame: Any) -> None:
        if number in SIGNALS:
            came.put(number)
        else:
            launchers(number, frame)

    over = threading.Event()

    def pass_on() -> None:
        while not over.is_set():
            info = signal.sigtimedwait(SIGNALS, 0.1)
            if info is not None:
                came.put(info.si_signo)
                if info.si_signo == signal.SIGINT and info.si_code == _SI_KERNEL:
                    from_terminal.append(info.si_signo)
            # (active_children() would take the exit codes that the launcher waits for)
            ranks = [rank.pid for rank in tuple(process._children) if rank.pid]
            while ranks and not came.empty():
                number = came.get()
                if number == signal.SIGINT and interrupted_again():
                    number = signal.SIGKILL
                elif number in from_terminal:
                    from_terminal.remove(number)
                    continue
                for rank in ranks:
                    try:
                        os.kill(rank, number)
                    except ProcessLookupError:
                        pass

    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    handlers = {number: signal.signal(number, handler) for number in SIGNALS}
    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        # the launcher installs its own handler, of this name
        with swapped(launcher, "_terminate_process_handler", handler):
            yield
    finally:
        over.set()
        thread.join()
        for number, earlier in handlers.items():
            signal.signal(number, earlier)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
