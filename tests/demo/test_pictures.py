"""Pictures are written, and show what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import image
from torch.utils.tensorboard import SummaryWriter

from dens_ocp.config import DeNSConfig
from dens_ocp.demo import curves
from dens_ocp.demo.corruption_picture import _corruption, draw_corruption, most_varied
from dens_ocp.demo.curves import draw_curves, read_scalars
from dens_ocp.demo.parity import draw_parity
from dens_ocp.demo.table import Labels
from dens_ocp.errors import DensError
from tests.conftest import slab


@pytest.fixture
def record():
    made = slab("Pt", "O")
    made.force = made.forces
    return made


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, still open."""
    saved = []
    monkeypatch.setattr(curves.plt, "close", saved.append)
    return saved


def is_drawn(path):
    pixels = image.imread(path)
    assert not list(path.parent.glob(".*"))
    return min(pixels.shape[:2]) > 300 and pixels[..., :3].std() > 0.03


def write_events(folder, terms=("energy", "forces", "noise")):
    with SummaryWriter(folder) as writer:
        for step in range(1, 41):
            for term in terms:
                writer.add_scalar(f"train/loss_{term}", 100 / step, step)
            if "noise" in terms:
                writer.add_scalar("train/dens_noise_mae", 0.1 / step, step)
        for step in (20, 40):
            writer.add_scalar("val/forces_mae", 0.1, step)
    return folder


def test_corrupted_structure(tmp_path, record, figures):
    path = draw_corruption(tmp_path / "c.png", record)
    assert is_drawn(path)
    titles = [axis.get_title() for axis in figures[0].axes]
    assert titles == ["original", "σ = 0.1 Å", "σ = 0.3 Å", "σ = 0.5 Å"] * 2
    frame, n = 2, record.natoms
    above, below = figures[0].axes[:4], figures[0].axes[4:]
    assert [len(axis.patches) for axis in above] == [n + frame] + 3 * [2 * n + frame]
    free = int((record.fixed == 0).sum())
    counts = [len(axis.patches) - n - frame for axis in below]
    assert counts[0] == 0 and 0 < counts[1] < free and len(set(counts[1:])) == 1


def test_noise_of_the_columns_is_the_same_but_for_its_size(record):
    small, large = (
        _corruption(record, DeNSConfig(p=1, r=0.5, sigma=sigma), seed=3) for sigma in (0.1, 0.5)
    )
    assert torch.allclose(5 * small.noise_vec, large.noise_vec, atol=1e-6)
    assert (small.noise_vec[record.fixed == 1] == 0).all()
    assert small.noise_mask.any()


def test_the_most_varied_record_is_shown():
    plain, varied = slab("Pt", "O"), slab("Pt", "O")
    varied.atomic_numbers = varied.atomic_numbers.clone()
    varied.atomic_numbers[0] = 29
    assert most_varied([plain, varied, plain]) is varied


def test_parity(tmp_path, figures):
    rng = np.random.default_rng(0)
    true = Labels(rng.normal(size=20), [rng.normal(size=(5, 3)) for _ in range(20)])
    off = Labels(true.energy + 0.1, [forces - 0.05 for forces in true.forces])
    path = draw_parity(tmp_path / "sub" / "p.png", {"val_id": (off, true), "b": (true, true)})
    assert is_drawn(path)
    titles = [axis.get_title() for axis in figures[0].axes]
    assert titles[:2] == ["val_id\nenergy MAE 100 meV", "b\nenergy MAE 0 meV"]
    assert titles[2] == "force MAE 50 meV/Å"
    points = figures[0].axes[0].collections[0].get_offsets()
    assert np.allclose(points[:, 0], true.energy) and np.allclose(points[:, 1], off.energy)


def test_loss_curves_show_dens_terms_apart(tmp_path, figures):
    series = read_scalars(write_events(tmp_path / "events"))
    assert list(series["train/loss_noise"][0]) == list(range(1, 41))
    path = draw_curves(tmp_path / "t.png", {"DeNS": series}, every=10, noise_of_zero=0.08)
    assert is_drawn(path)
    labels = [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()]
    assert labels == ["energy", "forces (uncorrupted atoms)", "noise (corrupted atoms)"]
    # a point per window of ten steps: the mean that fairchem has accumulated by its end
    line = figures[0].axes[0].lines[0]
    assert list(line.get_xdata()) == [10, 20, 30, 40]
    assert np.allclose(line.get_ydata(), [10, 5, 100 / 30, 2.5])


def test_curves_of_a_run_without_dens(tmp_path, figures):
    plain = read_scalars(write_events(tmp_path / "plain", ("energy", "forces")))
    dens = read_scalars(write_events(tmp_path / "dens"))
    assert is_drawn(draw_curves(tmp_path / "a.png", {"without DeNS": plain}, every=10))
    assert is_drawn(draw_curves(tmp_path / "b.png", {"DeNS": dens, "plain": plain}, every=10))
    texts = [text.get_text() for text in figures[1].axes[0].get_legend().get_texts()]
    assert "energy (DeNS)" in texts and "energy (plain)" in texts


def test_no_tensorboard_files(tmp_path):
    with pytest.raises(DensError, match="no tensorboard files"):
        read_scalars(tmp_path)
