"""``dens-ocp demo``: its options."""

from __future__ import annotations

import time
from pathlib import Path

import click

from dens_ocp.errors import DensError

_FOLDER = click.Path(file_okay=False, path_type=Path)
_LMDB = click.Path(exists=True, path_type=Path)


@click.command(help="Make a small OC20-like data set, train on it, evaluate, draw.")
@click.option(
    "--workdir", type=_FOLDER, default=Path("demo-run"), show_default=True, help="where to write"
)
@click.option("--compare", is_flag=True, help="train the same without DeNS too")
@click.option("--train-lmdb", type=_LMDB, help="train on this S2EF LMDB (file or folder) instead")
@click.option("--val-lmdb", type=_LMDB, help="validate on this one; with --train-lmdb")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="epochs of training (default: 10; fewer where they are longer)",
)
@click.option("--quick", is_flag=True, help="little data, hardly any training: does it all run?")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="of data and runs"
)
def command(
    workdir: Path,
    compare: bool,
    train_lmdb: Path | None,
    val_lmdb: Path | None,
    epochs: int | None,
    quick: bool,
    seed: int,
) -> None:
    if (train_lmdb is None) != (val_lmdb is None):
        name, other = ("--train-lmdb", "--val-lmdb")[:: 1 if val_lmdb is None else -1]
        raise DensError(f"{name} is given without {other}; give both, or none for embedded data")

    from tqdm import tqdm

    from dens_ocp.checkpoints.run_folder import check_writable
    from dens_ocp.tools.demo.interrupted import run_id_of
    from dens_ocp.tools.demo.steps import Demo

    started = time.monotonic()
    check_writable(workdir, "--workdir", "data, runs and the report go there")
    workdir.mkdir(parents=True, exist_ok=True)
    arguments = {
        "compare": compare, "train_lmdb": train_lmdb, "val_lmdb": val_lmdb, "epochs": epochs,
        "quick": quick, "seed": seed,
    }  # fmt: skip
    with run_id_of(workdir, arguments) as (run_id, goes_on):
        if goes_on:
            tqdm.write(f"going on with the demo {run_id}, which was interrupted")
        demo = Demo(workdir.resolve(), run_id, compare, epochs, quick, seed)
        if train_lmdb is None or val_lmdb is None:
            demo.embedded()
        else:
            demo.given(train_lmdb.resolve(), val_lmdb.resolve())
    tqdm.write(f"\nfinished after {time.monotonic() - started:.0f} s")
