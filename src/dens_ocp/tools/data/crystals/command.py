"""``dens-ocp data materials``: options, and what is said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from dens_ocp.errors import DensError
from dens_ocp.settings.command_line import Command
from dens_ocp.tools.data.units import ENERGY, LENGTH, read_units
from dens_ocp.whole_files import write_text

USUAL = {"max_force": 50.0, "max_stress": 80.0, "isolated": 6.0}
"""What the field leaves out: eV/Angstrom, GPa, Angstrom."""

_PATH = click.Path(path_type=Path)
_SHARE = click.FloatRange(0, 1, max_open=True)
_ABOVE_ZERO = click.FloatRange(min=0, min_open=True)
_STRESS_UNITS = ("auto", "eV/Angstrom^3", "GPa", "kbar", "Hartree/Bohr^3")


@click.command(
    cls=Command,
    short_help="convert crystals with stress (extended XYZ, ASE databases, MPtrj) to ASE-LMDBs",
    epilog="\b\nexamples:\n"
    "  dens-ocp data materials MPtrj_2022.9_full.json --filters --val 0.05 --out data/mptrj\n"
    "  dens-ocp data materials train.xyz --val-file val.xyz --out data/mine --config-out mine.yml\n"
    "  dens-ocp data materials runs/*/OUTCAR --val 0.1 --test 0.1 --out data/mine",
)
@click.argument("file", type=_PATH, nargs=-1, required=True)
@click.option(
    "--out",
    type=_PATH,
    required=True,
    help="folder to write: train, val, test "
    "(ASE-LMDBs for fairchem's ase_db, with metadata.npz), dataset.json",
)
@click.option(
    "--config-out",
    type=_PATH,
    metavar="YML",
    help="also write a config for training (fairchem main)",
)
@click.option(
    "--energy-key",
    metavar="NAME",
    help="name of the energy in atoms.info or the "
    "database; if it ends with per_atom, it is multiplied by the number of atoms (default: the "
    "energy that ASE reads; for MPtrj uncorrected_total_energy)",
)
@click.option(
    "--forces-key",
    metavar="NAME",
    help="name of the forces (default: the forces that ASE reads; for MPtrj force)",
)
@click.option(
    "--stress-key",
    metavar="NAME",
    help="name of the stress: 3 x 3, 9 numbers, or 6 in Voigt order xx yy zz yz xz xy (default: "
    "the stress that ASE reads; for MPtrj stress)",
)
@click.option(
    "--stress/--no-stress",
    default=True,
    show_default=True,
    help="read the stress, which every frame must then have, or read none",
)
@click.option(
    "--stress-unit",
    type=click.Choice(_STRESS_UNITS, case_sensitive=False),
    default="auto",
    show_default=False,
    metavar="UNIT",
    help=f"unit of stress in the file: {', '.join(_STRESS_UNITS[1:])} (default: kbar for MPtrj, "
    "else energy/length^3)",
)
@click.option(
    "--stress-sign",
    type=click.Choice(["auto", "ase", "vasp"]),
    default="auto",
    show_default=False,
    help="sign of the stress in the file. ase: positive if the "
    "cell tends to shrink; vasp: the opposite (default: vasp for MPtrj, else ase, "
    "because ASE changes the sign when it reads VASP files)",
)
@click.option(
    "--energy-unit",
    metavar="UNIT",
    default="eV",
    show_default=True,
    help=f"unit of energy in the file: {', '.join(ENERGY)}",
)
@click.option(
    "--length-unit",
    metavar="UNIT",
    default="Angstrom",
    show_default=True,
    help=f"unit of length in the file: {', '.join(LENGTH)}",
)
@click.option(
    "--force-unit", metavar="UNIT", help="unit of force in the file (default: energy/length)"
)
@click.option(
    "--material-key",
    metavar="NAME",
    help="name in atoms.info or the database that identifies the material of a frame; frames of "
    "one material stay in one split (default: mp_id or a similar name, else the reduced formula)",
)
@click.option(
    "--val",
    type=_SHARE,
    default=0.1,
    show_default=True,
    help="fraction of the materials for validation",
)
@click.option(
    "--test",
    type=_SHARE,
    default=0.0,
    show_default=True,
    help="fraction of the materials for testing",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="seed of the random split of materials"
)
@click.option(
    "--val-file",
    type=_PATH,
    multiple=True,
    metavar="FILE",
    help="files with the validation frames; no "
    "frame of the other files is then used for validation",
)
@click.option(
    "--test-file",
    type=_PATH,
    multiple=True,
    metavar="FILE",
    help="files with the test frames; no frame of the other files is then used as a test frame",
)
@click.option(
    "--filters",
    is_flag=True,
    help=f"usual filters: --max-force {USUAL['max_force']:g} --max-stress {USUAL['max_stress']:g} "
    f"--isolated {USUAL['isolated']:g}",
)
@click.option(
    "--max-force",
    type=_ABOVE_ZERO,
    metavar="EV/A",
    help="leave out structures with a larger force on an atom, eV/Angstrom",
)
@click.option(
    "--max-stress",
    type=_ABOVE_ZERO,
    metavar="GPA",
    help="leave out structures with a larger component of the stress, GPa",
)
@click.option(
    "--isolated",
    type=_ABOVE_ZERO,
    metavar="A",
    help="leave out structures with an atom that has no neighbour within this distance, Angstrom",
)
@click.option(
    "--skip-incomplete",
    is_flag=True,
    help="leave out frames without energy, forces, "
    "stress or cell, or with NaN, and print how many (default: stop with an error)",
)
@click.option(
    "--cutoff",
    type=_ABOVE_ZERO,
    default=6.0,
    show_default=True,
    metavar="A",
    help="cutoff of the model in --config-out, Angstrom",
)
@click.option("--no-progress", is_flag=True, help="show no progress bars")
def command(file: tuple[Path, ...], **options: Any) -> None:
    """Convert crystals with energy, forces and stress to ASE-LMDBs, split by material.

    FILE: MPtrj's JSON (.json, .json.gz), ASE databases (.db, .json, .aselmdb), extended XYZ, or
    other files that ASE reads (.traj, OUTCAR, vasprun.xml); all together become one data set.
    """
    from dens_ocp.tools.data.crystals import config
    from dens_ocp.tools.data.crystals.conversion import convert
    from dens_ocp.tools.data.crystals.crystal import Filters
    from dens_ocp.tools.data.crystals.sources import Labels

    out, config_out = options["out"], options["config_out"]
    if config_out is not None and config_out.exists():
        raise DensError(f"--config-out: {config_out} exists already; name another file")
    limits = {
        name: options[name] if options[name] is not None or not options["filters"] else usual
        for name, usual in USUAL.items()
    }
    if options["stress"] is False:
        limits["max_stress"] = _without_stress(options)
    described = convert(
        {"": file, "val": options["val_file"], "test": options["test_file"]},
        out,
        Labels(
            read_units(options["energy_unit"], options["length_unit"], options["force_unit"]),
            energy=options["energy_key"],
            forces=options["forces_key"],
            stress=options["stress_key"],
            with_stress=options["stress"],
            stress_unit=options["stress_unit"],
            stress_sign=options["stress_sign"],
            material=options["material_key"],
        ),
        filters=Filters(**limits),
        shares={"val": options["val"], "test": options["test"]},
        seed=options["seed"],
        skip_incomplete=options["skip_incomplete"],
        progress=not options["no_progress"],
    )
    _say(out, described)
    if config_out is None:
        import yaml

        print("\nsections for your config (--config-out writes a complete config):\n")
        print(yaml.safe_dump(config.sections(out, described), sort_keys=False))
        print(f"the model needs {config.needs(described)}")
        return
    write_text(config_out, config.text(out, described, options["cutoff"]))
    print(f"config for training: {config_out}")


def _without_stress(options: dict[str, Any]) -> None:
    for name in ("stress_key", "max_stress"):
        if options[name] is not None:
            word = f"--{name.replace('_', '-')}"
            raise DensError(f"{word} {options[name]} and --no-stress: give only one of them")


def _say(out: Path, described: dict[str, Any]) -> None:
    for source in described["sources"]:
        labels = ", ".join(f"{name}: {words}" for name, words in source["labels"].items())
        print(f"{source['file']}: {labels}")
    for reason, count in described["left_out"].items():
        if reason != "incomplete":
            print(f"{count} frames are left out because of {reason}")
    counts = [
        f"{split} {described['split'][split]} frames of {number} materials"
        for split, number in described["materials"].items()
    ]
    print(f"{out}: {', '.join(counts)} (eV, eV/Angstrom, eV/Angstrom^3 with ASE's sign)")
    stress = described["rms_stress_eV_per_Angstrom3"]
    rms = f"rms force {described['rms_force_eV_per_Angstrom']:.4f} eV/Angstrom"
    if stress is not None and math.isfinite(stress):
        from ase.units import GPa

        rms += f", rms stress {stress:.5f} eV/Angstrom^3 ({stress / GPa:.3f} GPa)"
    print(rms)
    for warning in described["warnings"]:
        print(
            f"warning: {warning}; the files were read in the units above; if they are wrong, "
            "give --energy-unit, --length-unit, --force-unit, --stress-unit"
            if "materials of" not in warning
            else f"warning: {warning}"
        )
