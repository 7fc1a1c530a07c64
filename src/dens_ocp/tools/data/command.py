"""``dens-ocp data``: sub-commands and their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dens_ocp.data.records.plausible_units import doubts
from dens_ocp.errors import DensError
from dens_ocp.tools import suggest
from dens_ocp.tools.data import run_config_file
from dens_ocp.tools.data.ase_source import read_frames
from dens_ocp.tools.data.convert import Written, convert
from dens_ocp.tools.data.energy_reference import KINDS
from dens_ocp.tools.data.frames import Frame
from dens_ocp.tools.data.npz_source import NpzFrames
from dens_ocp.tools.data.split import Given, draw, read_indices, read_split_file
from dens_ocp.tools.data.units import ENERGY, LENGTH, Units, read_units
from dens_ocp.whole_files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-commands of ``dens-ocp data``."""
    parser.description = "Data sets of molecules and of your own, for training with DeNS."
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="command")
    for name, summary, add, run_it, aliases in (
        ("from-npz", "MD17 or rMD17 archive -> LMDBs", _add_npz, _from_npz, ()),
        (
            "from-xyz",
            "extended XYZ, or any file of ASE with energies and forces -> LMDBs",
            _add_xyz,
            _from_xyz,
            ("from-ase",),
        ),
        (
            "suggest",
            "options of DeNS that fit a training set, beside the paper's",
            suggest.add_arguments,
            suggest.run,
            (),
        ),
    ):
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            aliases=list(aliases),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add(command)
        command.set_defaults(run_data=run_it)


def run(args: argparse.Namespace) -> int:
    """Run the sub-command.

    Raises:
        DensError: a mistake in options or files.
    """
    work: Callable[[argparse.Namespace], int] = args.run_data
    return work(args)


# ---- options -----------------------------------------------------------------------------------


def _add_npz(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "example: dens-ocp data from-npz md17_aspirin.npz --out data/aspirin --box 50\n"
        "The authors' split of rMD17: --train-indices index_train_01.csv --test-indices "
        "index_test_01.csv"
    )
    parser.add_argument("file", type=Path, help=".npz with R, z, E, F (MD17) or coords, "
                        "nuclear_charges, energies, forces (rMD17)")  # fmt: skip
    _add_units(parser, "what the file says, else kcal/mol", "what the file says, else Angstrom")
    split = _add_split(parser, "950")
    split.add_argument("--split-file", type=Path, metavar="NPZ",
                       help="arrays train, val, test (or idx_train, ...): split.npz of an earlier "
                       "conversion for example")  # fmt: skip
    for name in ("train", "val", "test"):
        split.add_argument(f"--{name}-indices", type=Path, metavar="CSV",
                           help=f"frames of {name}, one number a line"
                           + (", from which --val frames are taken too, unless --val-indices is "
                              "given" if name == "train" else ""))  # fmt: skip
    _add_output(parser)


def _add_xyz(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "examples:\n"
        "  dens-ocp data from-xyz train_300K.xyz --test-file test_300K.xyz --val 50 --out data/acac"
        "\n  dens-ocp data from-xyz md.traj --index ::10 --train 2000 --val 200 --out data/slab\n"
        "  dens-ocp data from-xyz runs/*/OUTCAR --train 5000 --val 500 --out data/mine"
    )
    parser.add_argument("file", type=Path, nargs="+", help="files that ASE reads: .xyz (extended), "
                        ".traj, .db, .aselmdb, OUTCAR, ...; all are one data set")  # fmt: skip
    parser.add_argument("--index", default=":", help="frames of each file, as ASE: ::10 is each "
                        "tenth, 100: all but the first hundred (default: all)")  # fmt: skip
    parser.add_argument("--energy-key", metavar="NAME", help="energy in atoms.info, REF_energy for "
                        "example (default: the energy ASE knows, at zero smearing)")  # fmt: skip
    parser.add_argument(
        "--skip-incomplete",
        action="store_true",
        help="leave out frames without "
        "energy or forces, or with NaN, and say how many (default: refuse them)",
    )
    parser.add_argument("--forces-key", metavar="NAME", help="forces in atoms.arrays, REF_forces "
                        "for example (default: the forces ASE knows)")  # fmt: skip
    _add_units(parser, "eV", "Angstrom")
    split = _add_split(parser, "950, or with --test-file all that are left")
    for name in ("val", "test"):
        split.add_argument(
            f"--{name}-file",
            type=Path,
            nargs="+",
            default=[],
            metavar="FILE",
            help=f"files whose frames are {name}; none of the others is then",
        )
    _add_output(parser)


def _add_units(parser: argparse.ArgumentParser, energy: str, length: str) -> None:
    group = parser.add_argument_group("units of the file (records are in eV and Angstrom)")
    group.add_argument("--energy-unit", metavar="UNIT",
                       help=f"{', '.join(ENERGY)} (default: {energy})")  # fmt: skip
    group.add_argument("--length-unit", metavar="UNIT",
                       help=f"{', '.join(LENGTH)} (default: {length})")  # fmt: skip
    group.add_argument(
        "--force-unit",
        metavar="UNIT",
        help="energy/length, Hartree/Bohr for example (default: of the two above)",
    )


def _add_split(parser: argparse.ArgumentParser, train: str) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("split")
    group.add_argument("--train", type=int, metavar="N", help=f"training frames (default: {train})")
    group.add_argument("--val", type=int, default=50, metavar="N",
                       help="validation frames (default: 50)")  # fmt: skip
    group.add_argument("--test", type=int, metavar="N", help="test frames (default: the rest)")
    group.add_argument("--seed", type=int, default=0, help="of the random draw (default: 0)")
    return group


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, required=True, help="folder to make: train, val, test "
                       "(LMDB), dataset.json (units, reference, split), split.npz")  # fmt: skip
    group.add_argument("--config-out", type=Path, metavar="YML", help="write a config to train "
                       "(fairchem main) and to evaluate (dens-ocp evaluate) with")  # fmt: skip
    group.add_argument("--energy-reference", choices=KINDS, default="linear", help="subtracted "
                       "from total energies, which float32 would round: least squares over the "
                       "elements of the training set (for one molecule: its mean energy), or none "
                       "(default: linear)")  # fmt: skip
    group.add_argument("--box", type=float, metavar="SIDE", help="give structures without "
                       "periodicity an empty cube as cell, Angstrom, 50 for example: fairchem's "
                       "EquiformerV2 and eSCN build periodic graphs (default: with --config-out "
                       "as large as its model needs, else none)")  # fmt: skip
    group.add_argument("--cutoff", type=float, metavar="A", help="how far the model sees, "
                       "max_radius or cutoff of its config, Angstrom: images in a box have to be "
                       "further away (default: that of the config that --config-out writes, "
                       f"{run_config_file.recipe_cutoff():g})")  # fmt: skip
    group.add_argument("--no-progress", action="store_true", help="no progress bars")


# ---- work --------------------------------------------------------------------------------------


def _from_npz(args: argparse.Namespace) -> int:
    frames = NpzFrames(args.file, args.energy_unit, args.length_unit, args.force_unit)
    named = {
        name: read_indices(path)
        for name in ("train", "val", "test")
        if (path := getattr(args, f"{name}_indices")) is not None
    }
    if args.split_file is not None:
        if named:
            raise DensError("--split-file and --...-indices both name frames; give one of them")
        named = {"val": np.empty(0, dtype=np.int64), "test": np.empty(0, dtype=np.int64)}
        named |= read_split_file(args.split_file)
    train = 950 if args.train is None and "train" not in named else args.train
    return _write(args, frames, frames.units, [args.file], train, named)


def _from_xyz(args: argparse.Namespace) -> int:
    units = read_units(args.energy_unit or "eV", args.length_unit or "Angstrom", args.force_unit)
    frames: list[Frame] = []
    named = {}
    for name in ("", "val", "test"):
        paths = getattr(args, f"{name}_file") if name else args.file
        if not paths:
            continue
        first = len(frames)
        frames += read_frames(
            paths,
            units,
            index=":" if name else args.index,
            energy_key=args.energy_key,
            forces_key=args.forces_key,
            skip_incomplete=args.skip_incomplete,
            progress=not args.no_progress,
        )
        if name:
            named[name] = np.arange(first, len(frames))
    train = 950 if args.train is None and "test" not in named else args.train
    sources = [*args.file, *args.val_file, *args.test_file]
    return _write(args, frames, units, sources, train, named)


def _write(
    args: argparse.Namespace,
    frames: Sequence[Frame],
    units: Units,
    sources: list[Path],
    train: int | None,
    named: dict[str, np.ndarray],
) -> int:
    if args.config_out is not None and args.config_out.exists():
        raise DensError(f"--config-out: {args.config_out} exists already; name another file")
    if args.cutoff is not None and not args.cutoff > 0:
        raise DensError(f"--cutoff: {args.cutoff:g} is no distance; give Angstrom, 6 for example")
    given = Given(train, args.val, args.test, args.seed, named)
    written = convert(
        frames,
        draw(len(frames), given),
        args.out,
        units=units,
        sources=sources,
        reference=args.energy_reference,
        box="auto" if args.box is None and args.config_out is not None else args.box,
        cutoff=run_config_file.recipe_cutoff() if args.cutoff is None else args.cutoff,
        seed=args.seed,
        progress=not args.no_progress,
    )
    _say(written, units, len(frames))
    if args.config_out is not None:
        write_text(args.config_out, run_config_file.config_text(written))
        print(f"config to train and evaluate with: {args.config_out}")
    else:
        print("\nfor your config (--config-out writes a whole one):\n")
        print(run_config_file.sections_text(written))
        needs = f"max_num_elements of {written.largest_atomic_number + 1} or more"
        if written.box is not None:
            needs += f", a cutoff of at most {written.box.largest_cutoff:.1f} Angstrom"
        print(f"the model needs {needs}")
    return 0


def _say(written: Written, units: Units, frames: int) -> None:
    print(
        f"{frames} frames in {units.energy}, {units.length}, {units.force} -> eV (x "
        f"{units.energy_factor:.8g}), Angstrom (x {units.length_factor:.8g}), eV/Angstrom (x "
        f"{units.force_factor:.8g})"
    )
    counts = ", ".join(f"{split} {count}" for split, count in written.counts.items())
    print(f"{written.root}: {counts}")
    if written.reference.kind == "none":
        print("energies are total energies")
    elif written.reference.mean is not None:
        print(f"energies are relative to {written.reference.mean:.4f} eV, the training set's mean")
    else:
        shown = ", ".join(f"{k} {v:.4f}" for k, v in written.reference.by_symbol().items())
        print(f"energies are relative to the sum over atoms of (eV): {shown}")
    energy, forces = written.normalizer["energy"], written.normalizer["forces"]
    print(
        f"training set: energy {energy['mean']:.4f} +- {energy['stdev']:.4f} eV, rms force "
        f"{forces['stdev']:.4f} eV/Angstrom"
    )
    if written.box is not None:
        print(
            f"structures without periodicity have an empty box of {written.box.side:g} Angstrom, "
            f"for models that see up to {written.box.largest_cutoff:.1f} Angstrom far"
        )
    for doubt in doubts(
        nearest=written.nearest,
        rms_force=forces["stdev"],
        largest_force=written.largest_force,
    ):
        print(
            f"warning: {doubt}; the file was read in {units.energy}, {units.length} and "
            f"{units.force}: --energy-unit, --length-unit and --force-unit say otherwise"
        )
