"""The examples: an adsorbate is relaxed, with a DeNS checkpoint and with an exported one; molecular
dynamics at constant energy; the notebook, from an extended XYZ file to two models."""

import html
import json
import re
import subprocess
import sys

import jupytext
import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write
from matplotlib import image
from nbclient import NotebookClient

from dens_ocp.checkpoints import metrics_file
from dens_ocp.data.structures import open_structures
from dens_ocp.tools import cli
from tests.conftest import ROOT
from tests.runs import environment
from tests.tools.export.stock import without_dens_ocp

EXAMPLE = ROOT / "examples" / "relax_adsorbate.py"
DYNAMICS = ROOT / "examples" / "energy_conservation.py"
NOTEBOOK = ROOT / "examples" / "own_slabs.py"

AS_A_SCRIPT = """
import runpy
del sys.argv[0]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert end.code == 0
"""


def relax(*arguments, cwd, check=True, example=EXAMPLE):
    return subprocess.run(
        [sys.executable, str(example), *map(str, arguments)], cwd=cwd, env=environment(),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=check,
    )  # fmt: skip


def test_relaxation(trained, tmp_path):
    out = tmp_path / "results" / "pt_oh.traj"
    done = relax(
        trained.checkpoint, "--metal", "Pt", "--adsorbate", "OH", "--steps", 3, "--out", out,
        "--cpu", cwd=tmp_path,
    )  # fmt: skip
    frames = read(out, index=":")
    assert len(frames) == 4
    first, last = frames[0], frames[-1]
    assert "38 atoms, 11 of them free" in done.stdout
    assert done.stdout.count("LBFGS:") == 4, "progress, step by step"
    # OC20's layout
    tags, below = first.get_tags(), first.get_tags() == 0
    assert [int((tags == tag).sum()) for tag in (0, 1, 2)] == [27, 9, 2]
    assert first.positions[below, 2].max() < first.positions[tags == 1, 2].min()
    assert list(first.constraints[0].index) == list(np.flatnonzero(below))
    assert first.pbc.all() and min(first.cell.lengths()[:2]) >= 8
    assert first.symbols[-2:].get_chemical_formula() == "HO"
    assert first.positions[-1, 2] > first.positions[-2, 2], "H of OH looks up"
    # it moves, and the fixed atoms do not
    assert np.array_equal(first.positions[below], last.positions[below])
    assert np.abs(last.positions - first.positions).max() > 1e-4
    # energies as text and picture
    rows = np.loadtxt(out.with_suffix(".txt"))
    energies = [frame.get_potential_energy() for frame in frames]
    assert np.allclose(rows[:, 1], energies, atol=1e-5) and list(rows[:, 0]) == [0, 1, 2, 3]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert f"energy {energies[-1]:.4f} eV" in done.stdout
    assert "adsorption energy" in done.stdout


@pytest.mark.slow
def test_relaxation_with_an_exported_checkpoint(trained, tmp_path):
    """Without dens_ocp: the same energies as with the original."""
    exported = tmp_path / "exported.pt"
    assert cli.main(["export", str(trained.checkpoint), str(exported)]) == 0
    arguments = ["--adsorbate", "O", "--steps", 1, "--cpu"]
    without_dens_ocp(AS_A_SCRIPT, EXAMPLE, exported, *arguments, cwd=tmp_path)
    relax(trained.checkpoint, *arguments, "--out", "own.traj", cwd=tmp_path)
    stock, own = (
        [frame.get_potential_energy() for frame in read(tmp_path / name, index=":")]
        for name in ("Cu_O.traj", "own.traj")
    )
    assert len(stock) == 2 and stock == pytest.approx(own, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.pt"], "nothing.pt does not exist"),
        ([EXAMPLE, "--metal", "Si"], "Si is no fcc, bcc or hcp metal"),
        ([EXAMPLE, "--metal", "Xx"], "cannot build CO on Xx"),
        ([EXAMPLE, "--adsorbate", "CO17"], "cannot build CO17"),
        ([EXAMPLE, "--out", "x.txt"], "should end in .traj"),
    ],
)
def test_mistakes(arguments, words, tmp_path):
    done = relax(*arguments, cwd=tmp_path, check=False)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_molecular_dynamics(trained, tmp_path):
    atoms = molecule("CH3OH")
    atoms.rattle(0.02, seed=0)
    write(tmp_path / "methanol.xyz", atoms)
    done = relax(
        trained.checkpoint, "methanol.xyz", "--box", 12, "--time", 0.002, "--step", 0.25, "--cpu",
        "--out", "md/energies.txt", cwd=tmp_path, example=DYNAMICS,
    )  # fmt: skip
    rows = np.loadtxt(tmp_path / "md" / "energies.txt")
    assert rows.shape == (9, 3) and np.isfinite(rows).all()
    assert rows[:, 0] == pytest.approx(np.arange(9) * 0.00025)
    assert rows[0, 2] > 0 and len(set(rows[:, 2])) > 5, "atoms move"
    slope = 1000 * np.polyfit(rows[:, 0], rows[:, 1], 1)[0]
    said = re.search(r"drift (-?[\d.]+) meV/ps, largest deviation ([\d.]+) meV", done.stdout)
    assert float(said[1]) == pytest.approx(slope, abs=1 + 0.01 * abs(slope))
    assert (tmp_path / "md" / "energies.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.pt", DYNAMICS], "nothing.pt does not exist"),
        ([DYNAMICS, DYNAMICS, "--time", "0"], "--time: 0.0 is not above 0"),
        ([DYNAMICS, DYNAMICS, "--out", "x.traj"], "should end in .txt"),
    ],
)
def test_mistakes_in_molecular_dynamics(arguments, words, tmp_path):
    done = relax(*arguments, cwd=tmp_path, check=False, example=DYNAMICS)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_notebook(tmp_path):
    """As Jupyter runs it, with a few steps of training."""
    notebook = jupytext.read(NOTEBOOK)
    kinds = {cell.cell_type for cell in notebook.cells}
    assert kinds == {"markdown", "code"}
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute(env={**environment(), "OWN_SLABS_TINY": "1"})
    (folder,) = tmp_path.iterdir()

    # the data set has the fixed atoms and the tags of the file
    frames = read(folder / "train.xyz", index=":")
    records = list(open_structures({"src": str(folder / "data" / "train")}))
    assert len(frames) == len(records) == 36
    for frame, record in zip(frames, records, strict=True):
        assert record.fixed.sum() == 8 and (record.tags[record.fixed] == 0).all()
        assert np.allclose(record.forces, frame.get_forces(apply_constraint=False), atol=1e-4)

    # two runs, one of them with DeNS
    lines = {}
    for run in ("with_DeNS", "without_DeNS"):
        checkpoints = folder / "checkpoints" / run
        assert (checkpoints / "best_checkpoint.pt").is_file()
        lines[run] = metrics_file.read(checkpoints)
        assert len([line for line in lines[run] if line["split"] == "val"]) == 2
    logged = {run: any("dens_noise_mae" in line for line in found) for run, found in lines.items()}
    assert logged == {"with_DeNS": True, "without_DeNS": False}
    for name in ("learning_curves.png", "parity.png"):
        assert image.imread(folder / name)[..., :3].std() > 0.02, f"{name} is empty"

    # outputs: two viewers, two pictures, numbers
    outputs = [each for cell in notebook.cells for each in cell.get("outputs", [])]
    shown = [each["data"] for each in outputs if "data" in each]
    assert sum("image/png" in each for each in shown) == 2
    corrupted, relaxed = (
        json.loads(re.search(r'json">(.*?)</script>', html.unescape(each["text/html"]))[1])
        for each in shown
        if "text/html" in each
    )
    noisy, original = corrupted["scenes"]
    assert noisy["positions"] != original["positions"]
    assert [len(each["ends"]) > 0 for each in noisy["arrows"]] == [True, True]
    (relaxation,) = relaxed["scenes"]
    assert relaxation["maxForces"][-1] <= relaxation["maxForces"][0]
    text = "".join(each.get("text", "") for each in outputs)
    assert "36 structures" in text and "3 of 13 atoms are corrupted" in text
    errors = re.findall(r"^(with.*): energy MAE \(meV\) \d+, force MAE .* \d+$", text, re.MULTILINE)
    assert errors == ["with DeNS", "without DeNS"]
