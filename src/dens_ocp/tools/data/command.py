"""``dens-ocp data``: sub-commands and their options."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dens_ocp.errors import DensError
from dens_ocp.settings.command_line import Command
from dens_ocp.tools.data import run_config_file
from dens_ocp.tools.data.units import ENERGY, LENGTH, Units, read_units

if TYPE_CHECKING:
    import numpy as np

    from dens_ocp.tools.data.convert import Written
    from dens_ocp.tools.data.frames import Frame

_PATH = click.Path(path_type=Path)
_CUTOFF = run_config_file.recipe_cutoff()

_ALIASES = {"from-ase": "from-xyz"}


class _Group(click.Group):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, _ALIASES.get(cmd_name, cmd_name))


@click.group(cls=_Group)
def command() -> None:
    """Data sets of molecules and of your own, for training with DeNS."""


command.add_command(importlib.import_module("dens_ocp.tools.suggest").command, "suggest")


# ---- options -----------------------------------------------------------------------------------


def _option(name: str, help: str, metavar: str | None = None, **more: Any) -> Callable[..., Any]:
    more.setdefault("type", _PATH if metavar in ("FILE", "CSV", "NPZ", "YML") else None)
    return click.option(name, help=help, metavar=metavar, **more)


_BEFORE = {
    "energy_unit": f"of energies in the file: {', '.join(ENERGY)}",
    "length_unit": f"of positions and cells in the file: {', '.join(LENGTH)}",
    "force_unit": "of forces in the file: energy/length, Hartree/Bohr for example (default: of "
    "the two above)",
}


def _units(energy: str, length: str) -> list[Callable[..., Any]]:
    """Records are in eV and Angstrom."""
    defaults = {"energy_unit": f" (default: {energy})", "length_unit": f" (default: {length})"}
    return [
        _option("--" + name.replace("_", "-"), text + defaults.get(name, ""), "UNIT")
        for name, text in _BEFORE.items()
    ]


def _split(train: str) -> list[Callable[..., Any]]:
    return [
        _option("--train", f"training frames (default: {train})", "N", type=int),
        _option("--val", "validation frames", "N", type=int, default=50),
        _option("--test", "test frames (default: the rest)", "N", type=int),
        _option("--seed", "of the random draw", type=int, default=0),
    ]


_OUTPUT = [
    _option("--out", "folder to make: train, val, test (LMDB), dataset.json (units, reference, "
            "split), split.npz", type=_PATH, required=True),
    _option("--config-out", "write a config to train (fairchem main) and to evaluate (dens-ocp "
            "evaluate) with", "YML"),
    _option("--energy-reference", "subtracted from total energies, which float32 would round: "
            "least squares over the elements of the training set (for one molecule: its mean "
            "energy), or none", type=click.Choice(["linear", "none"]), default="linear"),
    _option("--box", "give structures without periodicity an empty cube as cell, Angstrom, 50 for "
            "example: fairchem's EquiformerV2 and eSCN build periodic graphs (default: with "
            "--config-out as large as its model needs, else none)", "SIDE", type=float),
    _option("--cutoff", "how far the model sees, max_radius or cutoff of its config, Angstrom: "
            "images in a box have to be further away (default: that of the config that "
            f"--config-out writes, {_CUTOFF:g})", "A", type=float),
    _option("--no-progress", "no progress bars", is_flag=True),
]  # fmt: skip


def _with(*options: Callable[..., Any]) -> Callable[..., Any]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


@command.command(
    "from-npz",
    short_help="MD17 or rMD17 archive -> LMDBs",
    epilog="\b\nexample: dens-ocp data from-npz md17_aspirin.npz --out data/aspirin --box 50\n"
    "The authors' split of rMD17: --train-indices index_train_01.csv --test-indices "
    "index_test_01.csv",
)
@click.argument("file", type=_PATH)
@_with(
    *_units("what the file says, else kcal/mol", "what the file says, else Angstrom"),
    *_split("950"),
    _option("--split-file", "arrays train, val, test (or idx_train, ...): split.npz of an earlier "
            "conversion for example", "NPZ"),
    _option("--train-indices", "frames of train, one number a line, from which --val frames are "
            "taken too, unless --val-indices is given", "CSV"),
    _option("--val-indices", "frames of val, one number a line", "CSV"),
    _option("--test-indices", "frames of test, one number a line", "CSV"),
    *_OUTPUT,
)  # fmt: skip
def from_npz(
    file: Path,
    energy_unit: str | None,
    length_unit: str | None,
    force_unit: str | None,
    split_file: Path | None,
    train_indices: Path | None,
    val_indices: Path | None,
    test_indices: Path | None,
    **options: Any,
) -> None:
    """MD17 or rMD17 archive -> LMDBs.

    FILE: .npz with R, z, E, F (MD17) or coords, nuclear_charges, energies, forces (rMD17).
    """
    import numpy as np

    from dens_ocp.tools.data.npz_source import NpzFrames
    from dens_ocp.tools.data.split import read_indices, read_split_file

    frames = NpzFrames(file, energy_unit, length_unit, force_unit)
    paths = {"train": train_indices, "val": val_indices, "test": test_indices}
    named = {name: read_indices(path) for name, path in paths.items() if path is not None}
    if split_file is not None:
        if named:
            raise DensError("--split-file and --...-indices both name frames; give one of them")
        named = {"val": np.empty(0, dtype=np.int64), "test": np.empty(0, dtype=np.int64)}
        named |= read_split_file(split_file)
    if options["train"] is None and "train" not in named:
        options["train"] = 950
    _write(options, frames, frames.units, [file], named)


@command.command(
    "from-xyz",
    cls=Command,
    short_help="extended XYZ, or any file of ASE with energies and forces -> LMDBs (from-ase too)",
    epilog="\b\nexamples:\n"
    "  dens-ocp data from-xyz train_300K.xyz --test-file test_300K.xyz --val 50 --out data/acac\n"
    "  dens-ocp data from-xyz md.traj --index ::10 --train 2000 --val 200 --out data/slab\n"
    "  dens-ocp data from-xyz runs/*/OUTCAR --train 5000 --val 500 --out data/mine",
)
@click.argument("file", type=_PATH, nargs=-1, required=True)
@_with(
    _option("--index", "frames of each file, as ASE: ::10 is each tenth, 100: all but the first "
            "hundred (default: all)", default=":", show_default=False),
    _option("--energy-key", "energy in atoms.info, REF_energy for example (default: the energy "
            "ASE knows, at zero smearing)", "NAME"),
    _option("--skip-incomplete", "leave out frames without energy or forces, or with NaN, and say "
            "how many (default: refuse them)", is_flag=True),
    _option("--forces-key", "forces in atoms.arrays, REF_forces for example (default: the forces "
            "ASE knows)", "NAME"),
    *_units("eV", "Angstrom"),
    *_split("950, or with --test-file all that are left"),
    _option("--val-file", "files whose frames are val; none of the others is then", "FILE",
            multiple=True),
    _option("--test-file", "files whose frames are test; none of the others is then", "FILE",
            multiple=True),
    *_OUTPUT,
)  # fmt: skip
def from_xyz(
    file: tuple[Path, ...],
    val_file: tuple[Path, ...],
    test_file: tuple[Path, ...],
    index: str,
    energy_key: str | None,
    forces_key: str | None,
    skip_incomplete: bool,
    energy_unit: str | None,
    length_unit: str | None,
    force_unit: str | None,
    **options: Any,
) -> None:
    """Extended XYZ, or any file of ASE with energies and forces -> LMDBs.

    FILE: files that ASE reads: .xyz (extended), .traj, .db, .aselmdb, OUTCAR, ...; all are one
    data set.
    """
    import numpy as np

    from dens_ocp.tools.data.ase_source import read_frames

    units = read_units(energy_unit or "eV", length_unit or "Angstrom", force_unit)
    frames: list[Frame] = []
    named = {}
    for name, paths in (("", file), ("val", val_file), ("test", test_file)):
        first = len(frames)
        frames += read_frames(
            paths,
            units,
            index=":" if name else index,
            energy_key=energy_key,
            forces_key=forces_key,
            skip_incomplete=skip_incomplete,
            progress=not options["no_progress"],
        )
        if name and paths:
            named[name] = np.arange(first, len(frames))
    if options["train"] is None and "test" not in named:
        options["train"] = 950
    _write(options, frames, units, [*file, *val_file, *test_file], named)


# ---- work --------------------------------------------------------------------------------------


def _write(
    options: Mapping[str, Any],
    frames: Sequence[Frame],
    units: Units,
    sources: list[Path],
    named: dict[str, np.ndarray],
) -> None:
    from dens_ocp.tools.data.convert import convert
    from dens_ocp.tools.data.split import draw
    from dens_ocp.whole_files import write_text

    config_out, box = options["config_out"], options["box"]
    cutoff = _CUTOFF if options["cutoff"] is None else options["cutoff"]
    if config_out is not None and config_out.exists():
        raise DensError(f"--config-out: {config_out} exists already; name another file")
    if not cutoff > 0:
        raise DensError(f"--cutoff: {cutoff:g} is no distance; give Angstrom, 6 for example")
    written = convert(
        frames,
        draw(len(frames), options, named, options["seed"]),
        options["out"],
        units=units,
        sources=sources,
        reference=options["energy_reference"],
        box="auto" if box is None and config_out is not None else box,
        cutoff=cutoff,
        seed=options["seed"],
        progress=not options["no_progress"],
    )
    _say(written, units, len(frames))
    if config_out is not None:
        write_text(config_out, run_config_file.config_text(written, cutoff))
        print(f"config to train and evaluate with: {config_out}")
        return
    print("\nfor your config (--config-out writes a whole one):\n")
    print(run_config_file.sections_text(written))
    needs = f"max_num_elements of {written.largest_atomic_number + 1} or more"
    if written.box is not None:
        needs += f", a cutoff of at most {written.box.largest_cutoff:.1f} Angstrom"
    print(f"the model needs {needs}")


def _say(written: Written, units: Units, frames: int) -> None:
    from dens_ocp.data.records.plausible_units import doubts

    energy_factor, length_factor, force_factor = units.factors()
    print(
        f"{frames} frames in {units.energy}, {units.length}, {units.force} -> eV (x "
        f"{energy_factor:.8g}), Angstrom (x {length_factor:.8g}), eV/Angstrom (x "
        f"{force_factor:.8g})"
    )
    counts = ", ".join(f"{split} {count}" for split, count in written.counts.items())
    print(f"{written.root}: {counts}")
    training = written.training
    reference = training.reference
    if reference.kind == "none":
        print("energies are total energies")
    elif reference.mean is not None:
        print(f"energies are relative to {reference.mean:.4f} eV, the training set's mean")
    else:
        shown = ", ".join(f"{k} {v:.4f}" for k, v in reference.by_symbol().items())
        print(f"energies are relative to the sum over atoms of (eV): {shown}")
    energy, rms_force = training.normalizer["energy"], training.normalizer["forces"]["stdev"]
    print(
        f"training set: energy {energy['mean']:.4f} +- {energy['stdev']:.4f} eV, rms force "
        f"{rms_force:.4f} eV/Angstrom"
    )
    if written.box is not None:
        print(
            f"structures without periodicity have an empty box of {written.box.side:g} Angstrom, "
            f"for models that see up to {written.box.largest_cutoff:.1f} Angstrom far"
        )
    for doubt in doubts(
        nearest=training.nearest, rms_force=rms_force, largest_force=training.largest_force
    ):
        print(
            f"warning: {doubt}; the file was read in {units.energy}, {units.length} and "
            f"{units.force}: --energy-unit, --length-unit and --force-unit say otherwise"
        )
