"""``dens-ocp data``: sub-commands and their options."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from dens_ocp.data.dataset_reference import LARGEST_CUTOFF
from dens_ocp.errors import DensError
from dens_ocp.settings.command_line import Command
from dens_ocp.tools import suggest
from dens_ocp.tools.data.crystals import command as crystals
from dens_ocp.tools.data.units import ENERGY, LENGTH, Units, read_units
from dens_ocp.whole_files import write_text

if TYPE_CHECKING:
    import numpy as np

    from dens_ocp.tools.data.frames import Frame

_PATH = click.Path(path_type=Path)
_RECIPE = Path(__file__).with_name("config.yml").read_text()

RECIPE_CUTOFF = float(yaml.safe_load(_RECIPE)["model"]["max_radius"])
"""Angstrom."""


class _Group(click.Group):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, "from-xyz" if cmd_name == "from-ase" else cmd_name)


@click.group(cls=_Group)
def command() -> None:
    """Data sets of molecules, of crystals and of your own, for training with DeNS."""


command.add_command(suggest.command, "suggest")
command.add_command(crystals.command, "materials")


# ---- options -----------------------------------------------------------------------------------


def _option(name: str, help: str, metavar: str | None = None, **more: Any) -> click.Option:
    if metavar in ("FILE", "CSV", "NPZ", "YML"):
        more["type"] = _PATH
    return click.Option([name], help=help, metavar=metavar, **more)


def _units(energy: str, length: str) -> list[click.Option]:
    return [
        _option("--energy-unit", f"of the file: {', '.join(ENERGY)} (default: {energy})", "UNIT"),
        _option("--length-unit", f"of the file: {', '.join(LENGTH)} (default: {length})", "UNIT"),
        _option("--force-unit", "of the file: energy/length, Hartree/Bohr for example (default: of "
                "the two above); records are in eV and Angstrom", "UNIT"),
    ]  # fmt: skip


def _split(train: str) -> list[click.Option]:
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
            "images in a box have to be further away", "A",
            type=click.FloatRange(min=0, min_open=True), default=RECIPE_CUTOFF),
    _option("--no-progress", "no progress bars", is_flag=True),
]  # fmt: skip


@command.command(
    "from-npz",
    short_help="MD17 or rMD17 archive -> LMDBs",
    epilog="\b\nexample: dens-ocp data from-npz md17_aspirin.npz --out data/aspirin --box 50\n"
    "The authors' split of rMD17: --train-indices index_train_01.csv --test-indices "
    "index_test_01.csv",
    params=[
        click.Argument(["file"], type=_PATH),
        *_units("what the file says, else kcal/mol", "what the file says, else Angstrom"),
        *_split("950"),
        _option("--split-file", "arrays train, val, test (or idx_train, ...): split.npz of an "
                "earlier conversion for example", "NPZ"),
        _option("--train-indices", "frames of train, one number a line, from which --val frames "
                "are taken too, unless --val-indices is given", "CSV"),
        _option("--val-indices", "frames of val, one number a line", "CSV"),
        _option("--test-indices", "frames of test, one number a line", "CSV"),
        *_OUTPUT,
    ],
)  # fmt: skip
def from_npz(file: Path, split_file: Path | None, **options: Any) -> None:
    """MD17 or rMD17 archive -> LMDBs.

    FILE: .npz with R, z, E, F (MD17) or coords, nuclear_charges, energies, forces (rMD17).
    """
    import numpy as np

    from dens_ocp.tools.data.npz_source import NpzFrames
    from dens_ocp.tools.data.split import SPLITS, read_indices, read_split_file

    frames = NpzFrames(file, *(options[f"{what}_unit"] for what in ("energy", "length", "force")))
    paths = {split: options[f"{split}_indices"] for split in SPLITS}
    named = {split: read_indices(path) for split, path in paths.items() if path is not None}
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
    params=[
        click.Argument(["file"], type=_PATH, nargs=-1, required=True),
        _option("--index", "frames of each file, as ASE: ::10 is each tenth, 100: all but the "
                "first hundred (default: all)", default=":", show_default=False),
        _option("--energy-key", "energy in atoms.info, REF_energy for example (default: the "
                "energy ASE knows, at zero smearing)", "NAME"),
        _option("--forces-key", "forces in atoms.arrays, REF_forces for example (default: the "
                "forces ASE knows)", "NAME"),
        _option("--skip-incomplete", "leave out frames without energy or forces, or with NaN, and "
                "say how many (default: refuse them)", is_flag=True),
        *_units("eV", "Angstrom"),
        *_split("950, or with --test-file all that are left"),
        _option("--val-file", "files whose frames are val; none of the others is then", "FILE",
                multiple=True),
        _option("--test-file", "files whose frames are test; none of the others is then", "FILE",
                multiple=True),
        *_OUTPUT,
    ],
)  # fmt: skip
def from_xyz(
    file: tuple[Path, ...], val_file: tuple[Path, ...], test_file: tuple[Path, ...], **options: Any
) -> None:
    """Extended XYZ, or any file of ASE with energies and forces -> LMDBs.

    FILE: files that ASE reads: .xyz (extended), .traj, .db, .aselmdb, OUTCAR, ...; all are one
    data set.
    """
    import numpy as np

    from dens_ocp.tools.data.ase_source import read_frames

    units = read_units(
        options["energy_unit"] or "eV", options["length_unit"] or "Angstrom", options["force_unit"]
    )
    frames: list[Frame] = []
    named = {}
    for name, paths in (("", file), ("val", val_file), ("test", test_file)):
        first = len(frames)
        frames += read_frames(
            paths,
            units,
            index=":" if name else options["index"],
            energy_key=options["energy_key"],
            forces_key=options["forces_key"],
            skip_incomplete=options["skip_incomplete"],
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

    out, config_out, cutoff = options["out"], options["config_out"], options["cutoff"]
    if config_out is not None and config_out.exists():
        raise DensError(f"--config-out: {config_out} exists already; name another file")
    box = "auto" if options["box"] is None and config_out is not None else options["box"]
    described = convert(
        frames,
        draw(len(frames), options, named, options["seed"]),
        out,
        units=units,
        sources=sources,
        reference=options["energy_reference"],
        box=box,
        cutoff=cutoff,
        seed=options["seed"],
        progress=not options["no_progress"],
    )
    _say(out, described, units, len(frames))
    if config_out is not None:
        write_text(config_out, config_text(out, described, cutoff))
        print(f"config to train and evaluate with: {config_out}")
        return
    print("\nfor your config (--config-out writes a whole one):\n")
    print(sections_text(out, described))
    needs = f"max_num_elements of {described['largest_atomic_number'] + 1} or more"
    if described[LARGEST_CUTOFF] is not None:
        needs += f", a cutoff of at most {described[LARGEST_CUTOFF]:.1f} Angstrom"
    print(f"the model needs {needs}")


def _say(out: Path, described: dict[str, Any], units: Units, frames: int) -> None:
    from dens_ocp.data.records.plausible_units import doubts

    energy_factor, length_factor, force_factor = units.factors()
    read_in = f"{units.energy}, {units.length} and {units.force}"
    print(
        f"{frames} frames in {read_in} -> eV (x {energy_factor:.8g}), Angstrom (x "
        f"{length_factor:.8g}), eV/Angstrom (x {force_factor:.8g})"
    )
    counts = [f"{split} {count}" for split, count in described["split"].items() if split != "seed"]
    print(f"{out}: {', '.join(counts)}")
    reference = described["energy"]
    if reference["reference"] == "none":
        print("energies are total energies")
    elif (mean := reference["mean_of_one_composition_eV"]) is not None:
        print(f"energies are relative to {mean:.4f} eV, the training set's mean")
    else:
        shown = ", ".join(f"{k} {v:.4f}" for k, v in reference["reference_eV"].items())
        print(f"energies are relative to the sum over atoms of (eV): {shown}")
    energy, rms_force = (
        described["normalizer"]["energy"],
        described["normalizer"]["forces"]["stdev"],
    )
    print(
        f"training set: energy {energy['mean']:.4f} +- {energy['stdev']:.4f} eV, rms force "
        f"{rms_force:.4f} eV/Angstrom"
    )
    if (side := described["box_Angstrom"]) is not None:
        print(
            f"structures without periodicity have an empty box of {side:g} Angstrom, "
            f"for models that see up to {described[LARGEST_CUTOFF]:.1f} Angstrom far"
        )
    nearest = described["nearest_neighbours_Angstrom"]
    for doubt in doubts(
        nearest=math.nan if nearest is None else nearest,
        rms_force=rms_force,
        largest_force=described["largest_force_eV_per_Angstrom"],
    ):
        print(
            f"warning: {doubt}; the file was read in {read_in}: --energy-unit, --length-unit and "
            "--force-unit say otherwise"
        )


def sections_text(root: Path, described: dict[str, Any]) -> str:
    """The sections ``dataset`` and ``evaluation`` of a config, as YAML.

    Args:
        root: folder of the data set. described: what its ``dataset.json`` says.
    """
    from dens_ocp.settings.defaults import KEY_MAPPING

    folders = {split: str(root / split) for split in described["split"]}
    dataset: dict[str, Any] = {
        "train": {
            "format": "dens_lmdb",
            "src": folders["train"],
            "key_mapping": dict(KEY_MAPPING),
            "transforms": {"normalizer": described["normalizer"]},
        }
    }
    if "val" in folders:
        dataset["val"] = {"src": folders["val"]}
    sections = {"dataset": dataset}
    scored = next((split for split in ("test", "val") if split in folders), None)
    if scored is not None:
        sections["evaluation"] = {"s2ef": {scored: folders[scored]}}
    return yaml.safe_dump(sections, sort_keys=False)


def config_text(root: Path, described: dict[str, Any], cutoff: float) -> str:
    """YAML of a run: the recipe in ``config.yml`` with the model's cutoff (Angstrom) and number of
    elements (OC20's 90, or more), paths, normalizer and evaluation."""
    recipe = _RECIPE
    elements = max(90, described["largest_atomic_number"] + 1)
    for name, value in (("max_radius", cutoff), ("max_num_elements", elements)):
        recipe, number = re.subn(rf"(?m)^(  {name}: )[\d.]+", rf"\g<1>{value}", recipe)
        assert number == 1, name
    return f"{recipe}\n{sections_text(root, described)}"
