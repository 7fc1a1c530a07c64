# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From an extended XYZ file to models with and without DeNS
#
# This notebook trains two small models on slabs with adsorbates, one with DeNS and one without.
# It then compares their predictions and relaxes a structure. It takes about four minutes on one
# CPU core.
#
# Open it in Jupyter with Jupytext (`pip install jupytext`), or run it as a script: `python
# examples/own_slabs.py`. All files are written into a new folder `own_slabs-DATE-TIME`.
#
# The structures and their labels are made here with ASE's EMT potential. **To use your own
# data**, put the paths of your files in place of those that section 1 writes, and leave out the
# rest of that section.

# %%
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import yaml
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.optimize import LBFGS

import dens_ocp
from dens_ocp.results.report.viewer import view

logging.disable(logging.INFO)  # fairchem logs the config of every model that it loads
warnings.simplefilter("ignore")  # of other packages

EPOCHS = 20  # more epochs and relaxations give better models, and take longer
RELAXATIONS = 40
if "OWN_SLABS_TINY" in os.environ:  # for a test
    EPOCHS, RELAXATIONS = 2, 8

FOLDER = Path(time.strftime("own_slabs-%Y%m%d-%H%M%S")).resolve()
FOLDER.mkdir()
CPU = [] if torch.cuda.is_available() else ["--cpu"]

try:
    from IPython.display import display
except ImportError:
    display = print


# %% [markdown]
# ## 1. Structures with energies and forces
#
# Each relaxation starts from a slab with four atoms in a layer. Most slabs have an adsorbate near
# an adsorption site. The structures along the relaxations are the data, as in OC20: they are
# *non-equilibrium structures*, with forces that are not zero. The atoms of the lower two layers are
# fixed. Tags are those of OC20: 0 below the surface, 1 surface, 2 adsorbate.
#
# Structures of one relaxation resemble each other. Therefore the training, validation and test
# sets come from different relaxations.


# %%
def start_of_a_relaxation(rng: np.random.Generator) -> Atoms:
    """A slab, mostly with an adsorbate, away from equilibrium."""
    slab = fcc111(rng.choice(["Cu", "Ag"]), size=(2, 2, 3), vacuum=7.0)
    slab.set_tags(slab.get_tags() == 1)  # ASE counts layers from the top
    if rng.random() < 0.85:
        adsorbate = Atoms(rng.choice(["O", "N"]), tags=[2])
        add_adsorbate(slab, adsorbate, 1.6, rng.choice(["bridge", "fcc", "hcp"]))
    free = slab.get_tags() > 0
    slab.positions[free] += rng.normal(0, 0.15, (free.sum(), 3))
    slab.set_constraint(FixAtoms(mask=~free))
    slab.pbc = True
    slab.info.clear()
    return slab


def relaxation(atoms: Atoms, count: int = 6) -> list[Atoms]:
    """Every third structure of a relaxation, with energies (eV) and forces (eV/Å) of EMT."""
    atoms.calc = EMT()
    frames = []

    def keep() -> None:
        frame = atoms.copy()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        frames.append(frame)

    optimizer = LBFGS(atoms, logfile=None, maxstep=0.1)
    optimizer.attach(keep, interval=3)
    optimizer.run(fmax=0.0, steps=3 * (count - 1))
    return frames


rng = np.random.default_rng(0)
relaxations = [relaxation(start_of_a_relaxation(rng)) for _ in range(RELAXATIONS)]
eighth = RELAXATIONS // 8
files = {
    "train": relaxations[: -2 * eighth],
    "val": relaxations[-2 * eighth : -eighth],
    "test": relaxations[-eighth:],
}
for name, those in files.items():
    # the column move_mask says which atoms are free; without it no atom is fixed
    write(
        FOLDER / f"{name}.xyz", [frame for frames in those for frame in frames],
        columns=["symbols", "positions", "tags", "move_mask", "forces"],
    )  # fmt: skip
    print(f"{name}.xyz: {len(those)} relaxations, {sum(map(len, those))} structures")

# %% [markdown]
# ## 2. Convert the files into a data set
#
# `dens-ocp data from-xyz` writes LMDBs in OC20's form and a config for training. It reads every
# file that ASE reads. If your file has energies and forces under other names or in other units,
# give `--energy-key`, `--forces-key` and `--energy-unit`. If you have one file only, leave out
# `--val-file` and `--test-file`, and give `--train` and `--val`: numbers of structures, which are
# drawn at random.


# %%
def dens_ocp_command(*words: str, last: int = 12) -> None:
    """Run `dens-ocp WORDS` in the folder and show the last lines of what it prints."""
    print("$ dens-ocp", *words)
    command = [sys.executable, "-m", "dens_ocp.tools.cli", *words]
    done = subprocess.run(
        command, cwd=FOLDER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    print("\n".join(done.stdout.splitlines()[-last:]))
    done.check_returncode()


dens_ocp_command(
    "data", "from-xyz", "train.xyz", "--val-file", "val.xyz", "--test-file", "test.xyz",
    "--out", "data", "--config-out", "config.yml", "--no-progress",
)  # fmt: skip

# %% [markdown]
# ## 3. Look at a corrupted structure
#
# In training, DeNS adds noise to the positions of some atoms and gives the model the original
# forces of these atoms. The model predicts the noise. Drag the drawing to turn it; the menu
# chooses another structure.

# %%
original = files["train"][0][0]
noisy = dens_ocp.corrupt(original, sigma=0.1, r=0.5, seed=0)
moved = noisy.arrays["corrupted"]
print(f"{moved.sum()} of {len(moved)} atoms are corrupted; their noise in Å:")
print(noisy.arrays["noise"][moved].round(3))
corrupted_view = view({"corrupted, σ = 0.1 Å": noisy, "original": original})
corrupted_view.save(FOLDER / "corrupted.html")
display(corrupted_view)

# %% [markdown]
# ## 4. Train with and without DeNS
#
# The config has a small EquiformerV2. Here it is made smaller still, so that two trainings take a
# few minutes. `auto` chooses the options of DeNS from the data. The two configs differ in nothing
# else.

# %%
config = yaml.safe_load((FOLDER / "config.yml").read_text())
config["model"] |= {
    "num_layers": 2, "sphere_channels": 16, "attn_hidden_channels": 16, "ffn_hidden_channels": 16,
    "num_heads": 2, "attn_alpha_channels": 8, "edge_channels": 16, "lmax_list": [2],
    "num_distance_basis": 64, "max_radius": 5.0,
}  # fmt: skip
config["optim"] |= {"max_epochs": EPOCHS, "lr_initial": 0.003}
RUNS = {"with DeNS": {"auto": True}, "without DeNS": {"enabled": False}}
CHECKPOINTS = {}
for name, dens in RUNS.items():
    run = name.replace(" ", "_")
    config["optim"]["dens"] = dens
    (FOLDER / f"{run}.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    start = time.time()
    dens_ocp_command(
        "main", "--mode", "train", "--config-yml", f"{run}.yml", "--timestamp-id", run,
        "--seed", "0", "--print-every", "5", *CPU, last=3,
    )  # fmt: skip
    CHECKPOINTS[name] = FOLDER / "checkpoints" / run
    print(f"{name}: {time.time() - start:.0f} s\n")

# %% [markdown]
# ## 5. Learning curves
#
# Every run writes its errors into `checkpoints/RUN/metrics.jsonl`, one line for every
# `--print-every` steps and one for every validation. Energies are in eV and forces in eV/Å.
#
# These models are tiny and train on few structures for few epochs. Whether DeNS helps cannot be
# seen from one such pair. `docs/auto.md` and `docs/ablations.md` describe how to find out whether
# it helps on your data.

# %%
colours = {"with DeNS": "#0072B2", "without DeNS": "#D55E00"}
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
for name, folder in CHECKPOINTS.items():
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for axis, split, metric in (
        (axes[0], "val", "forces_mae"), (axes[1], "val", "energy_mae"),
        (axes[2], "train", "dens_noise_mae"),
    ):  # fmt: skip
        found = [
            (line["step"], 1000 * line[metric])
            for line in lines
            if line["split"] == split and line.get(metric) is not None
        ]
        if found:
            axis.plot(*np.transpose(found), "o-", color=colours[name], markersize=3, label=name)
for axis, title, unit in zip(
    axes,
    ("force MAE, validation", "energy MAE, validation", "noise MAE, training"),
    ("meV/Å", "meV", "mÅ"),
    strict=True,
):
    axis.set(title=title, xlabel="step", ylabel=unit)
    axis.grid(alpha=0.3)
axes[0].legend(frameon=False)
figure.savefig(FOLDER / "learning_curves.png", dpi=120)
plt.show()

# %% [markdown]
# ## 6. Predictions for the validation set
#
# `dens_ocp.load` makes a calculator of ASE from a checkpoint. Its energies are total energies, as
# those in your file. The errors of forces are those of free atoms.

# %%
validation = read(FOLDER / "val.xyz", index=":")
free = [np.setdiff1d(np.arange(len(atoms)), atoms.constraints[0].index) for atoms in validation]
true_energies = np.array([atoms.get_potential_energy() for atoms in validation])
true_forces = np.concatenate(
    [atoms.get_forces()[rows] for atoms, rows in zip(validation, free, strict=True)]
)
figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
models = {name: dens_ocp.load(at / "best_checkpoint.pt") for name, at in CHECKPOINTS.items()}
errors = {}
for name, model in models.items():
    energies, forces = [], []
    for atoms, rows in zip(validation, free, strict=True):
        predicted = atoms.copy()
        predicted.calc = model
        energies.append(predicted.get_potential_energy())
        forces.append(predicted.get_forces()[rows])
    forces = np.concatenate(forces)
    errors[name] = {
        "energy MAE (meV)": 1000 * np.abs(np.array(energies) - true_energies).mean(),
        "force MAE (meV/Å)": 1000 * np.abs(forces - true_forces).mean(),
    }
    axes[0].plot(true_energies, energies, "o", color=colours[name], markersize=4, label=name)
    axes[1].plot(true_forces.ravel(), forces.ravel(), ".", color=colours[name], label=name)
for axis, title, unit in zip(axes, ("energy", "force component"), ("eV", "eV/Å"), strict=True):
    low, high = (
        min(axis.get_xlim()[0], axis.get_ylim()[0]),
        max(axis.get_xlim()[1], axis.get_ylim()[1]),
    )
    axis.plot([low, high], [low, high], color="0.5", linewidth=0.8, zorder=0)
    axis.set(xlabel=f"EMT {title} ({unit})", ylabel=f"predicted {title} ({unit})", aspect="equal")
axes[0].legend(frameon=False)
figure.savefig(FOLDER / "parity.png", dpi=120)
plt.show()
for name, each in errors.items():
    print(f"{name}:", ", ".join(f"{what} {value:.0f}" for what, value in each.items()))
print(f"all forces zero: force MAE (meV/Å) {1000 * np.abs(true_forces).mean():.0f}")

# %% [markdown]
# ## 7. Relax a structure with the model
#
# The first structure of the test set is relaxed with the model that was trained with DeNS. EMT
# then says how large the forces of the last structure really are. Press *Play* to see the
# relaxation.

# %%
atoms = files["test"][0][0].copy()
atoms.calc = models["with DeNS"]
frames = []


def keep_frame() -> None:
    frame = atoms.copy()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
    frames.append(frame)


optimizer = LBFGS(atoms, logfile=None, maxstep=0.1)
optimizer.attach(keep_frame)
converged = optimizer.run(fmax=0.05, steps=40)


def largest_force(structure: Atoms) -> float:
    return float(np.linalg.norm(structure.get_forces(), axis=1).max())


def with_emt(structure: Atoms) -> Atoms:
    again = structure.copy()
    again.calc = EMT()
    return again


print(f"{len(frames) - 1} steps, {'converged' if converged else 'not converged'}")
for what, structure in (("first", frames[0]), ("last", frames[-1])):
    print(
        f"largest force of the {what} structure: model {largest_force(structure):.3f} eV/Å, "
        f"EMT {largest_force(with_emt(structure)):.3f} eV/Å"
    )
relaxation_view = view({f"relaxation of {atoms.get_chemical_formula()}": frames})
relaxation_view.save(FOLDER / "relaxation.html")
display(relaxation_view)

# %% [markdown]
# ## What next
#
# - Train longer: `EPOCHS` and `RELAXATIONS` at the top, or the sizes in `config.yml`.
# - `dens-ocp report` writes a page about a run, with more pictures and checks (`docs/report.md`).
# - `dens-ocp evaluate` computes the errors of the test set (`docs/evaluation.md`).
# - `dens-ocp ablate` compares trainings with and without DeNS over several seeds
#   (`docs/ablations.md`).
