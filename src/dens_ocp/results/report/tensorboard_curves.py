"""Reads the scalars that fairchem's tensorboard logger wrote."""

from __future__ import annotations

from pathlib import Path

from dens_ocp.errors import DensError
from dens_ocp.results.report.scalars import Series, collected


def has_events(folder: Path) -> bool:
    """Whether tensorboard files lie in ``folder``."""
    return any(Path(folder).glob("events.out.tfevents.*"))


def read_scalars(folder: Path) -> Series:
    """All scalars of the tensorboard event files in ``folder``.

    Raises:
        DensError: no event files there.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not has_events(folder):
        raise DensError(f"{folder} holds no tensorboard files; was the run logged there?")
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return collected(
        (tag, scalar.step, scalar.value)
        for tag in events.Tags()["scalars"]
        for scalar in events.Scalars(tag)
    )
