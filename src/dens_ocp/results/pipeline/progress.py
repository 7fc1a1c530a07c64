"""One bar for several runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tqdm import tqdm


class JobsBar:
    """A bar of all jobs; each counts as far as its own bar has come. Safe in threads.

    Args:
        names: of the jobs.
        disable: print nothing.
    """

    def __init__(self, names: list[str], disable: bool = False) -> None:
        self._done = dict.fromkeys(names, 0)
        self._lock = threading.Lock()
        self._bar = tqdm(
            total=100 * len(names),
            disable=disable or not names,
            bar_format="{percentage:3.0f}%|{bar:30}| {elapsed}{postfix}",
        )

    def watch(self, name: str) -> Callable[[int], None]:
        """What to call with the percentage of the job ``name``."""

        def update(percent: int) -> None:
            with self._lock:
                more = percent - self._done[name]
                if more <= 0:
                    return
                self._done[name] = percent
                at_work = [f"{job} {done}%" for job, done in self._done.items() if 0 < done < 100]
                self._bar.set_postfix_str(", ".join(at_work), refresh=False)
                self._bar.update(more)

        return update

    def close(self) -> None:
        """Leave the bar where it is."""
        self._bar.close()
