"""``dens-ocp demo``: its options; one that was interrupted goes on with its runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dens_ocp.errors import DensError
from dens_ocp.whole_files import write_text

NOTE = "unfinished.json"

_FOLDER = click.Path(file_okay=False, path_type=Path)
_LMDB = click.Path(exists=True, path_type=Path)


@click.command(
    help="Make a small OC20-like data set, train a model on it, evaluate the model, "
    "and write tables, pictures and a report."
)
@click.option(
    "--workdir",
    type=_FOLDER,
    default=Path("demo-run"),
    show_default=True,
    help="folder of the demo",
)
@click.option(
    "--compare",
    is_flag=True,
    help="also train the same model without DeNS, at the same time, and compare the two",
)
@click.option(
    "--train-lmdb",
    type=_LMDB,
    help="train on this S2EF LMDB (file or folder) instead of the demo's data",
)
@click.option("--val-lmdb", type=_LMDB, help="validate on this S2EF LMDB; only with --train-lmdb")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="epochs of training (default: 10, or fewer for a large training set)",
)
@click.option(
    "--quick",
    is_flag=True,
    help="use little data and hardly any training, only to see whether everything runs",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="seed of the data and the runs",
)
def command(workdir: Path, train_lmdb: Path | None, val_lmdb: Path | None, **options: Any) -> None:
    if (train_lmdb is None) != (val_lmdb is None):
        name, other = ("--train-lmdb", "--val-lmdb")[:: 1 if val_lmdb is None else -1]
        raise DensError(
            f"{name} is given without {other}; give both, or none to use the demo's own data"
        )

    from tqdm import tqdm

    from dens_ocp.checkpoints.run_folder import check_writable
    from dens_ocp.tools.demo.steps import Demo

    started = time.monotonic()
    check_writable(workdir, "--workdir", "data, runs and the report are written there")
    workdir.mkdir(parents=True, exist_ok=True)
    arguments = {"train_lmdb": train_lmdb, "val_lmdb": val_lmdb, **options}
    with run_id_of(workdir, arguments) as (run_id, goes_on):
        if goes_on:
            tqdm.write(f"resuming the interrupted demo {run_id}")
        demo = Demo(workdir.resolve(), run_id, **options)
        if train_lmdb is None or val_lmdb is None:
            demo.embedded()
        else:
            demo.given(train_lmdb.resolve(), val_lmdb.resolve())
    tqdm.write(f"\nfinished after {time.monotonic() - started:.0f} s")


@contextmanager
def run_id_of(workdir: Path, arguments: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """The name of the runs of a demo, and whether they are those of an interrupted one.

    While the context lasts, and after Ctrl-C or a kill, a note in ``workdir`` says with which
    arguments they were started. After the end, or an error, there is none.

    Args:
        workdir: of the demo.
        arguments: what the runs depend on.
    """
    path = workdir / NOTE
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        before = {}
    arguments = json.loads(json.dumps(arguments, default=str))
    goes_on = before.get("arguments") == arguments and not _is_at_work(before.get("process"))
    # the time to the microsecond: fairchem's own names are as coarse as 128 s
    run_id = before["run_id"] if goes_on else datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    note = {"run_id": run_id, "arguments": arguments, "process": os.getpid()}
    write_text(path, json.dumps(note) + "\n")
    try:
        yield run_id, goes_on
    except Exception:
        path.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)


def _is_at_work(process: int | None) -> bool:
    try:
        os.kill(process or 0, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return process not in (None, os.getpid())
