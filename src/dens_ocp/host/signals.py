"""SIGTERM, SIGUSR1 and SIGUSR2 ask a training run to stop after the step it is in.

The handler only takes a note. The run looks at it between steps (:mod:`dens_ocp.host.steps`),
saves, and then calls the handler that was there before, if any: submitit's requeues the job.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributed.elastic.multiprocessing import api as launcher

from dens_ocp.host.swapped import swapped

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

_received = 0
_before: dict[int, Any] = {}


def listen() -> None:
    """Note the three signals from now on. Does nothing the second time, or in a thread."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        handler = signal.getsignal(number)
        if handler is not _note:
            _before[number] = handler
            signal.signal(number, _note)
    # blocked by :func:`passed_on` while this process started
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _note(number: int, frame: Any) -> None:
    global _received
    _received = _received or number


def received() -> int:
    """The first of the signals that came, or 0."""
    return _received


def stop_listening() -> None:
    """Put the handlers back that were there before :func:`listen`."""
    global _received
    if threading.current_thread() is not threading.main_thread():
        return
    for number, handler in _before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    _before.clear()
    _received = 0


def call_earlier_handler(number: int) -> bool:
    """Call the Python handler that :func:`listen` found for a signal; False if there was none."""
    handler = _before.get(number)
    if not callable(handler):
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

    torch's launcher kills the ranks on SIGTERM and dies of SIGUSR1 and SIGUSR2. Here the signals
    are blocked, which the ranks inherit until they :func:`listen`, so none is lost while they
    start. They come to a thread that waits for them, or, through a thread of some library that
    does not block them, to a handler.
    """
    came: queue.SimpleQueue[int] = queue.SimpleQueue()
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
            ranks = multiprocessing.active_children()
            while ranks and not came.empty():
                number = came.get()
                for rank in ranks:
                    try:
                        os.kill(rank.pid, number)
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
