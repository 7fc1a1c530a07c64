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
    """Convert molecules, crystals and your own files to data sets for training with DeNS."""


command.add_command(suggest.command, "suggest")
command.add_command(crystals.command, "materials")


# ---- options -----------------------------------------------------------------------------------


def _option(name: str, help: str, metavar: str | None = None, **more: Any) -> click.Option:
    if metavar in ("FILE", "CSV", "NPZ", "YML"):
        more["type"] = _PATH
    return click.Option([name], help=help, metavar=metavar, **more)


def _units(energy: str, length: str) -> list[click.Option]:
    return [
        _option("--energy-unit", f"unit of energy in the file: {', '.join(ENERGY)} (default: "
                f"{energy})", "UNIT"),
        _option("--length-unit", f"unit of length in the file: {', '.join(LENGTH)} (default: "
                f"{length})", "UNIT"),
        _option("--force-unit", "unit of force in the file: energy/length, for example "
                "Hartree/Bohr (default: from the two units above); records are written in eV and "
                "Angstrom", "UNIT"),
    ]  # fmt: skip


def _split(train: str) -> list[click.Option]:
    return [
        _option("--train", f"number of training frames (default: {train})", "N", type=int),
        _option("--val", "number of validation frames", "N", type=int, default=50),
        _option("--test", "number of test frames (default: the rest)", "N", type=int),
        _option("--seed", "seed of the random split", type=int, default=0),
    ]


_OUTPUT = [
    _option("--out", "folder to write: train, val, test (LMDB), dataset.json (units, reference, "
            "split), split.npz", type=_PATH, required=True),
    _option("--config-out", "also write a config for training (fairchem main) and evaluation "
            "(dens-ocp evaluate)", "YML"),
    _option("--energy-reference", "what is subtracted from total energies, which would lose digits "
            "in float32. linear: least-squares fit over the elements of the training set (for a "
            "single molecule its mean energy); none: nothing",
            type=click.Choice(["linear", "none"]), default="linear"),
    _option("--box", "side of an empty cubic cell for structures without periodicity, Angstrom, "
            "for example 50. fairchem's EquiformerV2 and eSCN build periodic graphs and need a "
            "cell (default: with --config-out as large as its model needs, else no cell)", "SIDE",
            type=float),
    _option("--cutoff", "cutoff of the model (max_radius or cutoff in its config), Angstrom: "
            "periodic images in a box must be further away", "A",
            type=click.FloatRange(min=0, min_open=True), default=RECIPE_CUTOFF),
    _option("--no-progress", "show no progress bars", is_flag=True),
]  # fmt: skip


@command.command(
    "from-npz",
    short_help="convert an MD17 or rMD17 archive to LMDBs",
    epilog="\b\nexample: dens-ocp data from-npz md17_aspirin.npz --out data/aspirin --box 50\n"
    "For the authors' split of rMD17: --train-indices index_train_01.csv --test-indices "
    "index_test_01.csv",
    params=[
        click.Argument(["file"], type=_PATH),
        *_units("what the file says, else kcal/mol", "what the file says, else Angstrom"),
        *_split("950"),
        _option("--split-file", "file with the arrays train, val, test (or idx_train, ...), for "
                "example split.npz of an earlier conversion", "NPZ"),
        _option("--train-indices", "file with the numbers of the training frames, one per line; "
                "the --val frames are drawn from them too, unless --val-indices is given", "CSV"),
        _option("--val-indices", "file with the numbers of the validation frames, one per line",
                "CSV"),
        _option("--test-indices", "file with the numbers of the test frames, one per line", "CSV"),
        *_OUTPUT,
    ],
)  # fmt: skip
def from_npz(file: Path, split_file: Path | None, **options: Any) -> None:
    """Convert an MD17 or rMD17 archive to LMDBs.

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
            raise DensError(
                "--split-file and --...-indices both name frames; give only one of them"
            )
        named = {"val": np.empty(0, dtype=np.int64), "test": np.empty(0, dtype=np.int64)}
        named |= read_split_file(split_file)
    if options["train"] is None and "train" not in named:
        options["train"] = 950
    _write(options, frames, frames.units, [file], named)


@command.command(
    "from-xyz",
    cls=Command,
    short_help="convert extended XYZ or other files that ASE reads to LMDBs (or: from-ase)",
    epilog="\b\nexamples:\n"
    "  dens-ocp data from-xyz train_300K.xyz --test-file test_300K.xyz --val 50 --out data/acac\n"
    "  dens-ocp data from-xyz md.traj --index ::10 --train 2000 --val 200 --out data/slab\n"
    "  dens-ocp data from-xyz runs/*/OUTCAR --train 5000 --val 500 --out data/mine",
    params=[
        click.Argument(["file"], type=_PATH, nargs=-1, required=True),
        _option("--index", "frames to read from each file, in ASE's form: ::10 is every tenth "
                "frame, 100: all but the first hundred (default: all)", default=":",
                show_default=False),
        _option("--energy-key", "name of the energy in atoms.info, for example REF_energy "
                "(default: the energy that ASE reads, extrapolated to zero smearing)", "NAME"),
        _option("--forces-key", "name of the forces in atoms.arrays, for example REF_forces "
                "(default: the forces that ASE reads)", "NAME"),
        _option("--skip-incomplete", "leave out frames without energy or forces, or with NaN, and "
                "print how many (default: stop with an error)", is_flag=True),
        *_units("eV", "Angstrom"),
        *_split("950; with --test-file all frames that are left"),
        _option("--val-file", "files with the validation frames; no frame of the other files is "
                "then used for validation", "FILE", multiple=True),
        _option("--test-file", "files with the test frames; no frame of the other files is then "
                "used as a test frame", "FILE", multiple=True),
        *_OUTPUT,
    ],
)  # fmt: skip
def from_xyz(
    file: tuple[Path, ...], val_file: tuple[Path, ...], test_file: tuple[Path, ...], **options: Any
) -> None:
    """Convert extended XYZ, or any files that ASE reads, with energies and forces to LMDBs.

    FILE: files that ASE reads: .xyz (extended), .traj, .db, .aselmdb, OUTCAR, ...; all together
    become one data set.
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
        print(f"config for training and evaluation: {config_out}")
        return
    print("\nsections for your config (--config-out writes a complete config):\n")
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
            f"structures without periodicity have an empty box of {side:g} Angstrom, for models "
            f"with a cutoff of up to {described[LARGEST_CUTOFF]:.1f} Angstrom"
        )
    nearest = described["nearest_neighbours_Angstrom"]
    for doubt in doubts(
        nearest=math.nan if nearest is None else nearest,
        rms_force=rms_force,
        largest_force=described["largest_force_eV_per_Angstrom"],
    ):
        print(
            f"warning: {doubt}; the file was read in {read_in}; if this is wrong, give "
            "--energy-unit, --length-unit and --force-unit"
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
