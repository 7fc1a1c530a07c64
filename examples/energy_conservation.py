"""Does a model conserve energy? Velocity Verlet, through fairchem's OCPCalculator.

    python examples/energy_conservation.py checkpoints/RUN/best_checkpoint.pt molecule.xyz --box 50

The checkpoint is one of this package, or an exported one (`dens-ocp export`; fairchem alone). The
structure is any file of ASE's; --box N puts a molecule into a cell of N Angstrom, because graphs
are periodic. Velocities are drawn for the temperature with a seed.

It prints the drift of the total energy (slope of a straight line) and its largest deviation from
the start, and writes time, total and kinetic energy as text and a picture. With forces that are
gradients of a smooth energy the total energy stays; with forces of a head it does not.
"""

import argparse
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
from ase import units
from ase.io import read
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet
from tqdm import tqdm

with suppress(ImportError):
    import dens_ocp  # noqa: F401 (makes fairchem know its models)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("structure", type=Path, help="the first frame is taken")
    parser.add_argument("--box", type=float, help="edge of a cubic cell, Angstrom")
    parser.add_argument("--temperature", type=float, default=300.0, help="K (default: 300)")
    parser.add_argument("--time", type=float, default=2.0, help="ps (default: 2)")
    parser.add_argument("--step", type=float, default=0.5, help="fs (default: 0.5)")
    parser.add_argument("--seed", type=int, default=0, help="of the velocities (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("energies.txt"))
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    for file in (options.checkpoint, options.structure):
        if not file.is_file():
            parser.error(f"{file} does not exist")
    for name in ("temperature", "time", "step"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name}: {getattr(options, name)} is not above 0")
    if options.out.suffix != ".txt":
        parser.error(f"--out: {options.out} should end in .txt")
    return options


def run(options: argparse.Namespace) -> np.ndarray:
    """Rows of time (ps), total and kinetic energy (eV)."""
    from fairchem.core import OCPCalculator

    atoms = read(options.structure, index=0)
    if options.box is not None:
        atoms.set_cell([options.box] * 3)
        atoms.center()
        atoms.pbc = True
    atoms.calc = OCPCalculator(checkpoint_path=str(options.checkpoint), cpu=options.cpu, seed=0)
    random = np.random.default_rng(options.seed)
    MaxwellBoltzmannDistribution(atoms, temperature_K=options.temperature, rng=random)
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, options.step * units.fs)
    rows = []
    steps = max(round(1000 * options.time / options.step), 1)
    for step in tqdm(range(steps + 1), desc="velocity Verlet", unit="step"):
        if step:
            dynamics.run(1)
        time = step * options.step / 1000
        rows.append((time, atoms.get_total_energy(), atoms.get_kinetic_energy()))
    return np.array(rows)


def draw(rows: np.ndarray, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5))
    axes.plot(rows[:, 0], 1000 * (rows[:, 1] - rows[0, 1]))
    axes.set_xlabel("time (ps)")
    axes.set_ylabel("total energy less that of the start (meV)")
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> int:
    options = parsed()
    rows = run(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(options.out, rows, header="time_ps total_eV kinetic_eV", fmt="%.6f")
    draw(rows, options.out.with_suffix(".png"))
    drift = np.polyfit(rows[:, 0], rows[:, 1], 1)[0] if len(rows) > 1 else 0.0
    deviation = np.abs(rows[:, 1] - rows[0, 1]).max()
    print(f"drift {1000 * drift:.3f} meV/ps, largest deviation {1000 * deviation:.2f} meV")
    print(f"written: {options.out}, {options.out.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
