"""Relax an adsorbate on a metal slab with a DeNS checkpoint, through fairchem's OCPCalculator.

    python examples/relax_adsorbate.py checkpoints/RUN/best_checkpoint.pt --metal Pt --adsorbate CO

The checkpoint is one of a DeNS run (this package has to be installed) or an exported one (`dens-ocp
export`; fairchem alone).

The structure is one that OC20's models know: the close-packed surface of the metal, four layers, at
least 8 Angstrom wide, vacuum of 20 Angstrom, tags 0 (below the surface), 1 (surface), 2
(adsorbate); atoms with tag 0 are fixed.

What the energy is depends on what the model was trained on.

- OC20: the adsorption energy, E(slab + adsorbate) - E(relaxed clean slab) - E(gas), all with
  OC20's DFT settings, the gas from N2, H2O, CO and H2. Nothing has to be subtracted. The value
  counts for the relaxed structure.
- OC22: the total DFT energy. For an adsorption energy relax the clean slab with the same model too,
  and subtract its energy and the DFT energy of the gas.
"""

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bcc110, fcc111, hcp0001, molecule
from ase.constraints import FixAtoms
from ase.data import atomic_numbers, covalent_radii, reference_states
from ase.io import read
from ase.optimize import LBFGS

SURFACES = {"fcc": fcc111, "bcc": bcc110, "hcp": hcp0001}
BELOW, SURFACE, ADSORBATE = 0, 1, 2  # OC20's tags


def make_slab(metal: str) -> Atoms:
    """The close-packed surface, as OC20's: periodic in all directions, its lower layers fixed."""
    lattice = (reference_states[atomic_numbers[metal]] or {}).get("symmetry")
    if lattice not in SURFACES:
        raise ValueError(f"{metal} is no fcc, bcc or hcp metal")
    unit = SURFACES[lattice](metal, size=(1, 1, 4), vacuum=10.0)
    across, along, _ = np.ceil(8.0 / unit.cell.lengths()).astype(int)
    slab = SURFACES[lattice](metal, size=(across, along, 4), vacuum=10.0)
    # ASE counts layers from the top
    slab.set_tags([SURFACE if layer == 1 else BELOW for layer in slab.get_tags()])
    slab.set_constraint(FixAtoms(mask=slab.get_tags() == BELOW))
    slab.pbc = True
    return slab


def make_adsorbate(formula: str) -> Atoms:
    """An atom, or a molecule of ASE's with the first heavy atom of the formula at the bottom."""
    atoms = Atoms(formula)
    if len(atoms) > 1:
        symbols = list(atoms.symbols)
        first = next((symbol for symbol in symbols if symbol != "H"), symbols[0])
        atoms = molecule(formula)
        down = list(atoms.symbols).index(first)
        atoms.positions -= atoms.positions[down]
        up = atoms.positions.sum(axis=0)
        if np.linalg.norm(up) > 1e-3:  # else planar, and lies flat
            atoms.rotate(up, "z")
    atoms.set_tags([ADSORBATE] * len(atoms))
    return atoms


def make_structure(metal: str, formula: str) -> Atoms:
    """The adsorbate on top of an atom of the slab, at the sum of the covalent radii."""
    slab, adsorbate = make_slab(metal), make_adsorbate(formula)
    down = int(np.argmin(np.linalg.norm(adsorbate.positions, axis=1)))
    height = covalent_radii[atomic_numbers[metal]] + covalent_radii[adsorbate.numbers[down]]
    add_adsorbate(slab, adsorbate, height, position="ontop", mol_index=down)
    return slab


def write_energies(trajectory: Path) -> np.ndarray:
    """Step, energy and largest force of every frame, as text and as a picture."""
    frames = read(trajectory, index=":")
    rows = [
        (step, frame.get_potential_energy(), np.linalg.norm(frame.get_forces(), axis=1).max())
        for step, frame in enumerate(frames)
    ]
    header = "step   energy, eV   largest force on a free atom, eV/Angstrom"
    np.savetxt(trajectory.with_suffix(".txt"), rows, fmt="%4d %12.5f %10.5f", header=header)

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    steps, energies, forces = np.array(rows).T
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(6, 5))
    above.plot(steps, energies, marker=".")
    above.set_ylabel("energy, eV")
    below.semilogy(steps, forces, marker=".")
    below.set_ylabel("largest force, eV/Å")
    below.set_xlabel("step")
    below.xaxis.get_major_locator().set_params(integer=True)
    figure.tight_layout()
    figure.savefig(trajectory.with_suffix(".png"), dpi=150)
    return np.array(rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="of a DeNS run, or an exported one")
    parser.add_argument("--metal", default="Cu", help="element of the slab (default: Cu)")
    parser.add_argument(
        "--adsorbate", default="CO", help="element or formula, H, O, OH, CO, NH3 (default: CO)"
    )
    parser.add_argument(
        "--fmax", type=float, default=0.02, help="largest force at the end, eV/Angstrom (0.02)"
    )
    parser.add_argument("--steps", type=int, default=300, help="at most so many steps (300)")
    parser.add_argument(
        "--out", type=Path, help="trajectory; the text and the picture of the energies lie beside "
        "it (default: METAL_ADSORBATE.traj)"
    )  # fmt: skip
    parser.add_argument("--cpu", action="store_true", help="do not use the GPU")
    args = parser.parse_args(argv)
    if not args.checkpoint.is_file():
        parser.error(f"checkpoint {args.checkpoint} does not exist")
    try:
        atoms = make_structure(args.metal, args.adsorbate)
    except (KeyError, ValueError) as error:
        parser.error(f"cannot build {args.adsorbate} on {args.metal}: {error}")
    out = args.out or Path(f"{args.metal}_{args.adsorbate}.traj")
    if out.suffix != ".traj":
        parser.error(f"--out {out} should end in .traj")

    os.environ.setdefault("LOGLEVEL", "ERROR")  # fairchem prints its whole config otherwise
    with suppress(ImportError):
        # before fairchem: it stands in for torch-scatter, where that is not installed
        import dens_ocp  # noqa: F401
    import torch
    from fairchem.core import OCPCalculator

    cpu = args.cpu or not torch.cuda.is_available()
    # EquiformerV2 and eSCN draw random edge frames; a seed makes the run repeatable
    atoms.calc = OCPCalculator(checkpoint_path=args.checkpoint, cpu=cpu, seed=0)
    free = len(atoms) - len(atoms.constraints[0].index)
    print(f"{args.adsorbate} on {args.metal}: {len(atoms)} atoms, {free} of them free")
    out.parent.mkdir(parents=True, exist_ok=True)
    optimizer = LBFGS(atoms, trajectory=str(out), logfile="-")
    converged = optimizer.run(fmax=args.fmax, steps=args.steps)
    steps, energies, forces = write_energies(out).T
    state = "converged" if converged else f"NOT converged to {args.fmax} eV/Angstrom"
    print(
        f"{state} after {int(steps[-1])} steps: energy {energies[-1]:.4f} eV "
        f"(start {energies[0]:.4f} eV), largest force {forces[-1]:.4f} eV/Angstrom\n"
        "The energy is the adsorption energy for a model trained on OC20, the total energy for "
        "one trained on OC22.\n"
        f"wrote {out}, {out.with_suffix('.txt').name}, {out.with_suffix('.png').name}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
