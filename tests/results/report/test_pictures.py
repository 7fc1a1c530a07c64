"""Pictures show what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import image

from dens_ocp.data.structures import structure
from dens_ocp.dens.config import DeNSConfig
from dens_ocp.results.report.breakdown import Breakdown
from dens_ocp.results.report.figures.corruption_gallery import (
    corrupted,
    corruption_gallery,
    most_varied,
    sigmas_around,
)
from dens_ocp.results.report.figures.drawing import COLOURS, DENSITY_FROM, save
from dens_ocp.results.report.figures.evaluation_figures import (
    Parity,
    binned,
    force_magnitude,
    group_errors,
    keys,
    parity,
    relaxation_traces,
)
from dens_ocp.results.report.figures.learning_curves import ERRORS, SETTINGS, learning_curves
from dens_ocp.results.report.relaxation_files import Relaxations, Trace
from dens_ocp.results.report.scalars import read_series
from dens_ocp.results.report.viewer.scenes import FORCE, LONGEST_FORCE, NOISE, STRETCH
from tests.conftest import slab
from tests.results.report.runs import write_metrics


@pytest.fixture
def shown():
    return structure(slab("Pt", "O"))


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


def hue(colour):
    return np.round(np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255, 2)


# ---- corrupted structures ----------------------------------------------------------------------


def test_corrupted_structure(shown):
    figure = corruption_gallery(shown)
    assert titles(figure) == ["original", "σ = 0.1 Å", "σ = 0.3 Å", "σ = 0.5 Å"] * 2
    n, above, below = len(shown.pos), figure.axes[:4], figure.axes[4:]
    assert [len(axis.patches) for axis in above] == [n] + 3 * [2 * n]
    counts = [len(axis.patches) - n for axis in below]
    assert counts[0] == 0 and 0 < counts[1] < shown.free.sum() and len(set(counts[1:])) == 1
    frames = {tuple(np.round(np.ptp([axis.get_xlim(), axis.get_ylim()], axis=1), 4))
              for axis in figure.axes}  # fmt: skip
    assert len(frames) == 1


def test_arrows_are_those_of_the_corrupted_atoms(shown):
    config, sigma = DeNSConfig(r=0.5), 0.2
    figure = corruption_gallery(shown, [sigma], config, seed=3)
    expected = corrupted(shown, config.model_copy(update={"p": 1.0, "sigma": sigma}), seed=3)
    mask = expected.noise_mask.numpy()
    assert [len(axis.collections) for axis in figure.axes] == [0, 0, 0, 2]
    arrows = {tuple(np.round(each.get_facecolor()[0, :3], 2)): each
              for each in figure.axes[3].collections}  # fmt: skip
    displaced, force = arrows[tuple(hue(NOISE))], arrows[tuple(hue(FORCE))]
    assert displaced.N == force.N == mask.sum() > 0
    # a rotation and a projection make no vector longer, and most of them shorter
    lengths = np.hypot(displaced.U, displaced.V)
    true = STRETCH * np.linalg.norm(expected.noise_vec.numpy(), axis=1)[mask]
    assert (lengths <= true + 1e-6).all() and lengths.max() > 0.5 * true.max()
    assert 0 < np.hypot(force.U, force.V).max() <= LONGEST_FORCE + 1e-6


def test_noise_of_the_columns_is_the_same_but_for_its_size(shown):
    small, large = (
        corrupted(shown, DeNSConfig(p=1, r=0.5, sigma=sigma), seed=3) for sigma in (0.1, 0.5)
    )
    assert torch.allclose(5 * small.noise_vec, large.noise_vec, atol=1e-6)
    assert (small.noise_vec[shown.fixed] == 0).all()
    assert small.noise_mask.any()


SHAPES = {
    "slab": lambda: slab("Pt", "O"),
    "flat": lambda: stretched([4.0, 4.0, 0.2]),
    "tall": lambda: stretched([0.2, 0.2, 4.0]),
    "tilted": lambda: tilted(),
}


def stretched(factors):
    record = slab("Pt", "O")
    record.pos = record.pos * torch.tensor(factors, dtype=record.pos.dtype)
    return record


def tilted():
    record = slab("Pt", "O")
    shear = torch.tensor([[1, 0, 0], [0.9, 1, 0], [0.9, 0.9, 1]], dtype=record.pos.dtype)
    record.pos = record.pos @ shear
    return record


@pytest.mark.parametrize("sigmas", [(0.01, 0.1), (0.1, 0.3, 0.5), (0.1, 1.5)])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_atom_and_no_arrow_is_cut(shape, sigmas):
    """Large noise moves atoms beyond the frame of the original, and its arrows are longer."""
    shown, narrow = structure(SHAPES[shape]()), shape == "tall"
    every = DeNSConfig(r=1.0, all_atoms=True)  # arrows at the rim, too
    figure = corruption_gallery(shown, sigmas, every, seed=len(sigmas), narrow=narrow)
    figure.draw_without_rendering()
    arrows = 0
    for axis in figure.axes:
        patches = [
            patch.get_path().transformed(patch.get_transform()).get_extents()
            for patch in axis.patches
        ]
        quivers = [
            # outlines of arrows are in pixels from where they start
            path.get_extents(quiver.get_transform()).translated(*axis.transData.transform(start))
            for quiver in axis.collections
            for path, start in zip(quiver.get_paths(), quiver.get_offsets(), strict=True)
        ]
        panel = axis.get_window_extent()
        for box in [*patches, *quivers]:
            assert panel.x0 <= box.x0 and box.x1 <= panel.x1, axis.get_title()
            assert panel.y0 <= box.y0 and box.y1 <= panel.y1, axis.get_title()
        arrows += len(quivers)
    assert arrows == 2 * len(sigmas) * len(shown.pos)


def test_the_legend_says_the_scales_and_covers_nothing(shown):
    for sigma, words in ((0.1, "noise, 5 times as long"), (2.0, "noise")):
        for narrow in (False, True):
            figure = corruption_gallery(shown, [sigma], narrow=narrow)
            figure.draw_without_rendering()
            (legend,) = figure.legends
            texts = [each.get_text() for each in legend.get_texts()]
            assert texts[0] == words and texts[2:] == [
                "original position", "fixed atom, never corrupted",
            ]  # fmt: skip
            longest = np.linalg.norm(shown.forces, axis=1)[shown.free].max()
            assert texts[1] == f"original force ({longest:.2f} eV/Å is 2 Å long)"
            top = legend.get_window_extent().y1
            assert top <= min(axis.get_window_extent().y0 for axis in figure.axes)
            assert legend.get_window_extent().x0 >= 0
            assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_masked_fixed_atoms_are_drawn_where_they_are(shown):
    config = DeNSConfig(r=1, encode="masked")
    moved = corrupted(shown, config.model_copy(update={"p": 1.0, "sigma": 0.3}), seed=0)
    assert moved.noise_mask.all() and (moved.displacement.numpy()[shown.fixed] == 0).all()
    figure = corruption_gallery(shown, [0.3], config)
    (displaced,) = (
        each
        for each in figure.axes[3].collections
        if tuple(np.round(each.get_facecolor()[0, :3], 2)) == tuple(hue(NOISE))
    )
    assert (np.hypot(displaced.U, displaced.V)[shown.fixed] < 1e-6).all()


def test_the_most_varied_structure_is_shown():
    plain, varied = slab("Pt", "O"), slab("Pt", "O")
    varied.atomic_numbers = varied.atomic_numbers.clone()
    varied.atomic_numbers[0] = 29
    plain, varied = structure(plain), structure(varied)
    assert most_varied([plain, varied, plain]) is varied


def test_sigmas_of_a_schedule():
    config = DeNSConfig(sigma={"low": 0.01, "high": 1.0, "num_steps": 50})
    assert sigmas_around(config) == (0.01, 0.1, 1.0)


# ---- parity ------------------------------------------------------------------------------------


def test_parity():
    rng = np.random.default_rng(0)
    energy, force = rng.normal(size=20), rng.normal(size=300)
    pairs = Parity(np.stack([energy, energy + 0.1], 1), np.stack([force, force], 1), 100.2, 49.8)
    figure = parity({"id": pairs, "b": Parity(pairs.energies, pairs.forces, None, None)}, "EMT")
    assert titles(figure) == [
        "id\nenergy MAE 100 meV", "b\nno energy labels", "force MAE 50 meV/Å", "no force labels",
    ]  # fmt: skip
    points = figure.axes[0].collections[0].get_offsets()
    assert np.allclose(points[:, 0], energy) and np.allclose(points[:, 1], energy + 0.1)
    assert figure.axes[0].get_xlabel() == "EMT energy (eV)"


def test_many_points_become_a_density():
    many = np.random.default_rng(0).normal(size=(DENSITY_FROM + 1, 2))
    figure = parity({"id": Parity(many[:50], many, 1.0, 1.0)})
    above, below = (axis.collections[0] for axis in figure.axes)
    assert len(above.get_offsets()) == 50
    assert below.get_array().sum() == DENSITY_FROM + 1 and len(below.get_offsets()) < 10_000


def test_no_force_labels_and_a_single_energy():
    figure = parity({"id": Parity(np.array([[1.0, 2.0]]), np.zeros((0, 2)), 1000.0, None)})
    assert titles(figure)[1] == "no force labels"


# ---- learning curves ---------------------------------------------------------------------------


def test_loss_curves_show_dens_terms_apart(tmp_path):
    series = read_series(write_metrics(tmp_path / "run"))
    assert list(series["train/loss_noise"][0]) == [10, 20, 30, 40]
    figure = learning_curves({"DeNS": series}, noise_of_zero=0.08)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["energy", "forces (uncorrupted atoms)", "noise (corrupted atoms)"]
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == [10, 20, 30, 40]
    assert np.allclose(line.get_ydata(), [10, 5, 100 / 30, 2.5])
    assert figure.axes[3].lines[-1].get_ydata()[0] == 0.08
    rate, shares = learning_curves({"DeNS": series}, panels=SETTINGS).axes
    assert len(rate.lines[0].get_xdata()) == 4 and len(shares.lines) == 4


def test_an_odd_number_of_panels_leaves_no_empty_frame(tmp_path):
    series = read_series(write_metrics(tmp_path / "plain", ("energy", "forces")))
    figure = learning_curves({"plain": series}, panels=ERRORS[:-1])
    assert [axis.axison for axis in figure.axes] == [True, True, True, False]


def test_curves_of_a_run_without_dens(tmp_path):
    plain = read_series(write_metrics(tmp_path / "plain", ("energy", "forces")))
    dens = read_series(write_metrics(tmp_path / "dens"))
    noise = learning_curves({"without DeNS": plain}).axes[3]
    assert [text.get_text() for text in noise.texts] == ["not logged"] and not noise.lines
    figure = learning_curves({"DeNS": dens, "plain": plain})
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "energy (DeNS)" in texts and "energy (plain)" in texts


# ---- errors ------------------------------------------------------------------------------------


@pytest.fixture
def splits():
    rng = np.random.default_rng(0)
    made = {}
    for name, metals in {"id": ("Cu", "Pt"), "ood": ("Pt", "Al")}.items():
        made[name] = Breakdown()
        for number in range(12):
            true = structure(slab(metals[number % 2], ("O", "N")[number % 2], number))
            forces = true.forces[true.free] + 0.1 * rng.normal(size=(true.free.sum(), 3))
            made[name].add(true, true.energy + 0.1, forces)
    return made


def test_dots_are_the_groups_errors(splits):
    figure = group_errors(splits, "element")
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == [
        "N", "O", "Al", "Cu", "Pt",
    ]  # fmt: skip
    drawn = {
        (round(x), round(y, 6))
        for line in figure.axes[0].lines
        for x, y in zip(*line.get_data(), strict=True)
    }
    for breakdown in splits.values():
        for place, name in enumerate(("N", "O", "Al", "Cu", "Pt")):
            group = breakdown.groups["element"].get(name)
            assert group is None or (place, round(group.force_mae, 6)) in drawn
    hollow = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert sum(len(line.get_xdata()) for line in hollow) == 4  # N and O: six atoms in each split


def test_groups_of_a_kind(splits):
    assert keys(splits, "surface") == ["Pt", "Al", "Cu"]
    assert keys(splits, "tag") == ["surface (tag 1)", "adsorbate (tag 2)"]
    for kind in ("adsorbate", "surface", "tag"):
        figure = group_errors(splits, kind)
        assert len(figure.axes) == (1 if kind == "tag" else 2)
        assert figure.axes[0].get_xlabel() == "force MAE (meV/Å)"


def test_force_error_against_force(splits):
    line = binned(splits["id"])
    assert line[:, 2].sum() == sum(group.atoms for group in splits["id"].groups["tag"].values())
    figure = force_magnitude(splits)
    drawn = figure.axes[0].lines[0]
    shown = binned(splits["id"], 5)
    assert np.allclose(drawn.get_data(), 1000 * shown[:, :2].T)


def test_relaxations_start_from_the_label():
    labelled = Trace("1", np.array([3.0, 2.5]), np.array([1.0, 0.01]), label=2.4)
    without = Trace("2", np.array([1.0, 0.5]), np.array([1.0, 0.01]), label=None)
    ended = np.array([1, 1]), np.array([0.01, 0.01])
    done = Relaxations([labelled, without], 2, 0, *ended, np.array([0.1]))
    figure = relaxation_traces({"id": done}, fmax=0.02)
    above, below = figure.axes
    assert np.allclose(above.lines[0].get_ydata(), [0.6, 0.1])
    assert np.allclose(above.lines[2].get_ydata(), [0.5, 0.0])
    assert above.get_title() == "id\nenergy MAE 100 meV"
    assert below.lines[-1].get_ydata()[0] == 0.02
    for traces, zero in (
        ([labelled, without], "label or last frame"), ([labelled], "label"),
        ([without], "last frame"),
    ):  # fmt: skip
        ended = np.ones(len(traces), int), np.full(len(traces), 0.01)
        figure = relaxation_traces({"id": Relaxations(traces, 2, 0, *ended, np.zeros(0))}, None)
        assert figure.axes[0].get_ylabel() == f"energy \u2212 {zero} (eV)"


def test_a_relaxation_of_no_step_is_seen():
    traces = [Trace("1", np.array([0.3]), np.array([0.01]), label=0.1)]
    done = Relaxations(traces, 1, 0, np.array([0]), np.array([0.01]), np.array([0.2]))
    figure = relaxation_traces({"id": done}, fmax=0.02)
    for axis in figure.axes:
        assert any(line.get_marker() == "." for line in axis.lines)
        left, right = axis.get_xlim()
        ticks = [each for each in axis.get_xticks() if left <= each <= right]
        assert ticks == [0, 1], "whole steps"


# ---- small screens -----------------------------------------------------------------------------


def test_pictures_for_small_screens_show_the_same(splits, tmp_path):
    """The panels stand below each other, and are as wide as a phone."""
    rng = np.random.default_rng(0)
    pairs = Parity(rng.normal(size=(5, 2)), rng.normal(size=(50, 2)), 1.0, 1.0)
    traces = [Trace("1", np.array([1.0, 0.5]), np.array([1.0, 0.1]), None)]
    done = Relaxations(traces, 1, 0, np.array([1]), np.array([0.1]), np.zeros(0))
    series = read_series(write_metrics(tmp_path / "run"))
    for draw in (
        lambda narrow: parity({"id": pairs, "ood": pairs}, narrow=narrow),
        lambda narrow: force_magnitude(splits, narrow),
        lambda narrow: group_errors(splits, "adsorbate", narrow),
        lambda narrow: relaxation_traces({"id": done, "ood": done}, 0.02, narrow),
        lambda narrow: learning_curves({"run": series}, 0.08, narrow=narrow),
    ):
        wide, narrow = draw(False), draw(True)
        assert sorted(titles(wide)) == sorted(titles(narrow))
        assert narrow.get_size_inches()[0] < 5 < wide.get_size_inches()[0]
        points = [
            sorted(len(line.get_xdata()) for axis in figure.axes for line in axis.lines)
            for figure in (wide, narrow)
        ]
        assert points[0] == points[1]


# ---- files -------------------------------------------------------------------------------------


def test_pictures_are_written_whole(tmp_path, shown):
    path = save(corruption_gallery(shown), tmp_path / "sub" / "c.png")
    pixels = image.imread(path)
    assert min(pixels.shape[:2]) > 300 and pixels[..., :3].std() > 0.03
    assert [each.name for each in path.parent.iterdir()] == ["c.png"]


def test_colours_differ_in_lightness():
    """Told apart in grey, too, but for those that differ in shape."""
    grey = sorted(hue(colour) @ [0.21, 0.72, 0.07] for colour in COLOURS)
    assert grey[-1] - grey[0] > 0.25
