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
    short_help="crystals with stress: extended XYZ, ASE databases, MPtrj's JSON -> ASE-LMDBs",
    epilog="\b\nexamples:\n"
    "  dens-ocp data materials MPtrj_2022.9_full.json --filters --val 0.05 --out data/mptrj\n"
    "  dens-ocp data materials train.xyz --val-file val.xyz --out data/mine --config-out mine.yml\n"
    "  dens-ocp data materials runs/*/OUTCAR --val 0.1 --test 0.1 --out data/mine",
)
@click.argument("file", type=_PATH, nargs=-1, required=True)
@click.option("--out", type=_PATH, required=True, help="folder to make: train, val, test "
              "(ASE-LMDBs for fairchem's ase_db, with metadata.npz), dataset.json")  # fmt: skip
@click.option("--config-out", type=_PATH, metavar="YML", help="write a config to train with "
              "(fairchem main)")  # fmt: skip
@click.option("--energy-key", metavar="NAME", help="which energy, by its name in atoms.info or the "
              "database; a name that ends with per_atom is multiplied by the number of atoms "
              "(default: the energy ASE knows; of MPtrj uncorrected_total_energy)")  # fmt: skip
@click.option("--forces-key", metavar="NAME", help="which forces (default: those ASE knows; of "
              "MPtrj force)")  # fmt: skip
@click.option(
    "--stress-key",
    metavar="NAME",
    help="which stress: 3 x 3, 9 numbers, or 6 in Voigt's order xx yy zz yz xz xy (default: the "
    "one ASE knows; of MPtrj stress)",
)
@click.option("--stress/--no-stress", default=True, show_default=True, help="every frame has a "
              "stress, or none is read")  # fmt: skip
@click.option(
    "--stress-unit",
    type=click.Choice(_STRESS_UNITS, case_sensitive=False),
    default="auto",
    show_default=False,
    metavar="UNIT",
    help=f"of the file: {', '.join(_STRESS_UNITS[1:])} (default: kbar of MPtrj, else "
    "energy/length^3)",
)
@click.option("--stress-sign", type=click.Choice(["auto", "ase", "vasp"]), default="auto",
              show_default=False, help="of the file: ase, positive where the cell wants to shrink, "
              "or vasp, the opposite (default: vasp of MPtrj, else ase; ASE turns the sign when it "
              "reads VASP's files)")  # fmt: skip
@click.option("--energy-unit", metavar="UNIT", default="eV", show_default=True,
              help=f"of the file: {', '.join(ENERGY)}")  # fmt: skip
@click.option("--length-unit", metavar="UNIT", default="Angstrom", show_default=True,
              help=f"of the file: {', '.join(LENGTH)}")  # fmt: skip
@click.option("--force-unit", metavar="UNIT", help="of the file (default: energy/length)")
@click.option("--material-key", metavar="NAME", help="name in atoms.info or the database by which "
              "frames are dealt to train, val and test (default: mp_id and the like, else the "
              "reduced formula)")  # fmt: skip
@click.option("--val", type=_SHARE, default=0.1, show_default=True, help="share of the materials "
              "for validation")  # fmt: skip
@click.option("--test", type=_SHARE, default=0.0, show_default=True, help="share of the materials "
              "for the test")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="of the draw of materials")
@click.option("--val-file", type=_PATH, multiple=True, metavar="FILE", help="files that are val; "
              "none of the others is then")  # fmt: skip
@click.option("--test-file", type=_PATH, multiple=True, metavar="FILE", help="files that are test; "
              "none of the others is then")  # fmt: skip
@click.option("--filters", is_flag=True, help="leave out what the field leaves out: --max-force "
              f"{USUAL['max_force']:g} --max-stress {USUAL['max_stress']:g} --isolated "
              f"{USUAL['isolated']:g}")  # fmt: skip
@click.option("--max-force", type=_ABOVE_ZERO, metavar="EV/A", help="leave out structures with a "
              "larger force on an atom, eV/Angstrom")  # fmt: skip
@click.option("--max-stress", type=_ABOVE_ZERO, metavar="GPA", help="leave out structures with a "
              "larger component of the stress, GPa")  # fmt: skip
@click.option("--isolated", type=_ABOVE_ZERO, metavar="A", help="leave out structures with an atom "
              "that has no neighbour within this distance, Angstrom")  # fmt: skip
@click.option("--skip-incomplete", is_flag=True, help="leave out frames without energy, forces, "
              "stress or cell, or with NaN, and say how many (default: refuse them)")  # fmt: skip
@click.option("--cutoff", type=_ABOVE_ZERO, default=6.0, show_default=True, metavar="A",
              help="of the model in --config-out, Angstrom")  # fmt: skip
@click.option("--no-progress", is_flag=True, help="no progress bars")
def command(file: tuple[Path, ...], **options: Any) -> None:
    """Crystals with energy, forces and stress -> ASE-LMDBs, split by material.

    FILE: MPtrj's JSON (.json, .json.gz), ASE databases (.db, .json, .aselmdb), extended XYZ, or
    others that ASE reads (.traj, OUTCAR, vasprun.xml); all are one data set.
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

        print("\nfor your config (--config-out writes a whole one):\n")
        print(yaml.safe_dump(config.sections(out, described), sort_keys=False))
        print(f"the model needs {config.needs(described)}")
        return
    write_text(config_out, config.text(out, described, options["cutoff"]))
    print(f"config to train with: {config_out}")


def _without_stress(options: dict[str, Any]) -> None:
    for name in ("stress_key", "max_stress"):
        if options[name] is not None:
            word = f"--{name.replace('_', '-')}"
            raise DensError(f"{word} {options[name]} and --no-stress: give one of them")


def _say(out: Path, described: dict[str, Any]) -> None:
    for source in described["sources"]:
        labels = ", ".join(f"{name}: {words}" for name, words in source["labels"].items())
        print(f"{source['file']}: {labels}")
    for reason, count in described["left_out"].items():
        if reason != "incomplete":
            print(f"{count} frames are left out for {reason}")
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
            f"warning: {warning}; the units above are what was read, and --energy-unit, "
            "--length-unit, --force-unit, --stress-unit say otherwise"
            if "materials of" not in warning
            else f"warning: {warning}"
        )
