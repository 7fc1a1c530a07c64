"""The 3D viewer: the numbers it is given, HTML that needs no network, a real browser."""

from __future__ import annotations

import gzip
import html
import json
import re
import shutil
import subprocess
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files
from queue import Queue
from threading import Thread
from urllib.parse import unquote

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

import dens_ocp
from dens_ocp.data.structures import structure
from dens_ocp.dens.config import DeNSConfig
from dens_ocp.errors import DensError
from dens_ocp.results.report.figures.corruption_gallery import ALL_ATOMS, corrupted
from dens_ocp.results.report.relaxation_files import read_relaxations
from dens_ocp.results.report.structure_views import as_atoms, corruption_view, relaxation_view
from dens_ocp.results.report.viewer import view
from dens_ocp.results.report.viewer.fragments import fragment, page, script
from dens_ocp.results.report.viewer.scenes import (
    FORCE,
    LONGEST_FORCE,
    MAX_ATOMS,
    MAX_FRAMES,
    NOISE,
    STRETCH,
    as_json,
    palette,
    structure_scene,
    trajectory_scene,
)
from tests.conftest import slab
from tests.results.report.runs import write_trajectory


@pytest.fixture
def copper():
    """A slab with fixed lower layers and an oxygen atom, with energies and forces of EMT."""
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.pbc = True
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() > 1))
    atoms.calc = EMT()
    atoms.get_forces()
    return atoms


def content_of(text):
    """What the script element of the first viewer holds."""
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', text, re.S)[1])


def rows(values):
    return np.reshape(values, (-1, 3)) / 1000


def moving(count, steps):
    """A trajectory of ``count`` atoms, of which the last moves, with energies 0, -1, ..."""
    frames = []
    for step in range(steps):
        atoms = Atoms("H" * count, np.arange(3 * count).reshape(-1, 3).astype(float))
        atoms.positions[-1, 0] += 0.1 * step
        forces = np.zeros((count, 3))
        forces[-1] = [3.0 * step, 4.0 * step, 0.0]
        atoms.calc = SinglePointCalculator(atoms, energy=-float(step), forces=forces)
        frames.append(atoms)
    return frames


# ---- numbers -----------------------------------------------------------------------------------


def test_a_structure_as_numbers(copper):
    content = as_json(structure_scene(copper))
    assert content["label"] == "Cu12O" and content["elements"] == copper.numbers.tolist()
    assert np.allclose(rows(content["positions"]), copper.positions, atol=6e-4)
    assert np.allclose(rows(content["cell"]), copper.cell, atol=6e-4)
    assert content["fixed"] == list(copper.constraints[0].index) and len(content["fixed"]) == 8
    assert content["energies"] == [pytest.approx(copper.get_potential_energy(), abs=1e-4)]
    largest = np.linalg.norm(copper.get_forces(), axis=1).max()  # ASE: zero on fixed atoms
    assert content["maxForces"] == [pytest.approx(largest, abs=1e-4)] and largest > 0.1
    assert not content["arrows"] and not content["ghosts"] and not content["moves"]
    assert as_json(structure_scene(molecule("H2O")))["cell"] == []


def test_arrows_are_noise_and_original_forces(copper):
    noisy = dens_ocp.corrupt(copper, sigma=0.1, r=0.5, seed=1)
    mask, noise = noisy.arrays["corrupted"], noisy.arrays["noise"]
    content = as_json(structure_scene(noisy))
    assert 0 < mask.sum() < 5
    assert np.allclose(rows(content["ghosts"]), copper.positions[mask], atol=6e-4)
    assert content["ghostElements"] == copper.numbers[mask].tolist()
    by_colour = {each["colour"]: each for each in content["arrows"]}
    displaced, force = (
        np.reshape(by_colour[colour]["ends"], (-1, 2, 3)) / 1000 for colour in (NOISE, FORCE)
    )
    for ends in (displaced, force):
        assert np.allclose(ends[:, 0], copper.positions[mask], atol=6e-4)
    assert np.allclose(displaced[:, 1] - displaced[:, 0], STRETCH * noise[mask], atol=2e-3)
    forces = copper.get_forces(apply_constraint=False)
    longest = np.linalg.norm(forces, axis=1)[~structure_scene(copper).fixed].max()
    expected = forces[mask] * LONGEST_FORCE / longest
    assert np.allclose(force[:, 1] - force[:, 0], expected, atol=2e-3)
    assert by_colour[NOISE]["name"] == "noise, 5 times as long"
    assert by_colour[FORCE]["name"] == f"original force ({longest:.2f} eV/Å is 2 Å long)"


def test_large_noise_is_not_stretched(copper):
    noisy = dens_ocp.corrupt(copper, sigma=4.0, r=1.0, seed=1)
    arrow = as_json(structure_scene(noisy))["arrows"][0]
    ends = np.reshape(arrow["ends"], (-1, 2, 3)) / 1000
    assert arrow["name"] == "noise"
    mask = noisy.arrays["corrupted"]
    assert np.allclose(ends[:, 1], noisy.positions[mask], atol=2e-3)


def test_a_trajectory_holds_what_moves():
    frames = moving(4, 3)
    content = as_json(trajectory_scene(frames))
    assert content["moving"] == [3] and content["steps"] == [0, 1, 2]
    assert np.allclose(rows(content["positions"]), frames[0].positions)
    assert [rows(each).tolist() for each in content["moves"]] == [
        [pytest.approx(frame.positions[3].tolist())] for frame in frames[1:]
    ]
    assert content["energies"] == [0.0, -1.0, -2.0]
    assert content["maxForces"] == [0.0, 5.0, 10.0]


@pytest.mark.parametrize(("atoms", "steps", "shown"), [(2, 500, MAX_FRAMES), (2, 7, 7)])
def test_long_trajectories_are_thinned(atoms, steps, shown):
    content = as_json(trajectory_scene(moving(atoms, steps)))
    assert len(content["steps"]) == shown == len(content["energies"]) == len(content["moves"]) + 1
    assert (content["steps"][0], content["steps"][-1]) == (0, steps - 1)
    assert content["energies"] == [-float(step) for step in content["steps"]]


def test_trajectories_of_many_moving_atoms_have_fewer_frames():
    rng = np.random.default_rng(0)
    frames = [Atoms("H600", 30 * rng.random((600, 3))) for _ in range(50)]
    content = as_json(trajectory_scene(frames))
    assert len(content["steps"]) == 20 and content["energies"] == [None] * 20
    assert len(json.dumps(content)) < 400_000


def test_colours():
    found = palette([structure_scene(molecule("CH3OH"))])
    assert set(found) == {"1", "6", "8"} and found["8"]["symbol"] == "O"

    def light(colour):
        return sum(int(colour[at : at + 2], 16) for at in (1, 3, 5))

    assert all(light(each["pale"]) > light(each["colour"]) for each in found.values())


def test_what_cannot_be_shown():
    nan = molecule("H2O")
    nan.positions[0] = np.nan
    for wrong, words in (
        ([], "no frames"),
        ([molecule("H2O"), molecule("CO")], "frame 1 has other atoms than frame 0"),
        ([nan], "positions of frame 0 are NaN"),
        ([Atoms(f"H{MAX_ATOMS + 1}")], f"{MAX_ATOMS + 1} atoms; it shows at most {MAX_ATOMS}"),
    ):
        with pytest.raises(DensError, match=words):
            trajectory_scene(wrong)
    with pytest.raises(DensError, match="nothing to show"):
        view({})


# ---- the report's ------------------------------------------------------------------------------


def test_the_reports_structures_are_those_of_its_picture():
    shown, config = structure(slab("Pt", "O")), DeNSConfig(sigma=0.2)
    content = content_of(corruption_view(shown, config, seed=3))
    labels = [each["label"] for each in content["scenes"]]
    assert labels == [
        "σ = 0.1 Å, as in training", "σ = 0.2 Å, as in training", "σ = 0.6 Å, as in training",
        "σ = 0.1 Å, all atoms", "σ = 0.2 Å, all atoms", "σ = 0.6 Å, all atoms", "original",
    ]  # fmt: skip
    assert labels[content["chosen"]] == "σ = 0.2 Å, as in training"
    expected = corrupted(shown, config.model_copy(update={"p": 1.0}), seed=3)
    at = rows(content["scenes"][1]["positions"])
    assert np.allclose(at, shown.pos + expected.displacement.numpy(), atol=6e-4)
    assert len(content["scenes"][1]["arrows"][0]["ends"]) == 6 * expected.noise_mask.sum()
    assert np.allclose(rows(content["scenes"][-1]["positions"]), shown.pos, atol=6e-4)
    names = {each["arrows"][0]["name"] for each in content["scenes"][:-1]}
    assert len(names) == 1, "one scale of noise"


def test_fixed_atoms_that_are_corrupted_move():
    shown = structure(slab("Pt", "O"))
    moved = corrupted(shown, ALL_ATOMS.model_copy(update={"sigma": 0.3}), seed=0)
    atoms = as_atoms(shown, moved)
    assert np.abs(atoms.positions - shown.pos)[shown.fixed].max() > 0.05
    assert structure_scene(atoms).fixed.tolist() == shown.fixed.tolist()


def test_the_reports_relaxations(tmp_path):
    shown, relaxed = structure(slab("Pt", "O")), {}
    for split in ("id", "ood"):
        for sid in range(4):
            path = tmp_path / split / "trajectories" / f"{sid}.traj"
            write_trajectory(path, shown, [3.0, 2.0, 1.5], force=0.25)
        relaxed[split] = read_relaxations(path.parent, {}, traces=3)
    content = content_of(relaxation_view(relaxed))
    labels = [each["label"] for each in content["scenes"]]
    assert [label.split(",")[0] for label in labels] == ["id: 0", "id: 1", "ood: 0", "ood: 1"]
    for each in content["scenes"]:
        assert each["energies"] == [3.0, 2.0, 1.5]
        assert each["maxForces"] == [0.25] * 3, "5 eV/Å on a fixed atom does not count"
    assert relaxation_view({}) is None


# ---- HTML --------------------------------------------------------------------------------------


def test_a_page_has_the_script_once_and_fetches_nothing(copper):
    scenes = [structure_scene(copper), trajectory_scene(moving(3, 4))]
    text = page(scenes, "two")
    assert text.count('id="viewer3d-library"') == 1
    assert not re.search(r"https?://|@import|url\(|src=|href=", text)
    assert "default-src 'none'" in text
    assert len(text) < 300_000


def test_the_library_is_whole_and_has_its_licence():
    packed = re.search(r'id="viewer3d-library">(.*?)</script>', script())[1]
    code = gzip.decompress(b64decode(packed)).decode()
    folder = files("dens_ocp.results.report.viewer")
    assert code.endswith((folder / "3Dmol-min.js").read_text())
    assert "University of Pittsburgh" in code and "BSD-3-Clause" in code
    assert script() == script()


def test_texts_are_escaped():
    scene = structure_scene(molecule("H2O"), "</script><b>&\u2028")
    text = fragment([scene], '<"x" & y>')
    assert text.count("</script>") == 1 and "<b>" not in text
    assert content_of(text)["scenes"][0]["label"] == "</script><b>&\u2028"
    assert 'aria-label="&lt;&quot;x&quot; &amp; y&gt;"' in text


def test_in_a_notebook(copper, tmp_path):
    shown = view({"<clean>": copper, "frames": moving(3, 4)})
    output = shown._repr_html_()
    frame = re.fullmatch(r'<iframe srcdoc="([^"]*)" (.*)></iframe>', output, re.S)
    assert html.unescape(frame[1]) == shown.html
    assert 'sandbox="allow-scripts"' in frame[2] and "&lt;clean&gt;" in frame[2]
    content = content_of(shown.html)
    assert [each["label"] for each in content["scenes"]] == ["<clean>", "frames"]
    assert [len(each["steps"]) for each in content["scenes"]] == [1, 4]
    assert shown.save(tmp_path / "sub" / "view.html").read_text() == shown.html
    assert repr(view(molecule("H2O"))) == "<3D view of H2O>"


# ---- a real browser ----------------------------------------------------------------------------


class Heard(BaseHTTPRequestHandler):
    """Puts what a page says as the path of a request into ``queue`` of its server."""

    def do_GET(self):
        self.server.queue.put(json.loads(unquote(self.path[1:])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def heard():
    """The address to which a page says something, and the queue of what was said."""
    with HTTPServer(("127.0.0.1", 0), Heard) as server:
        server.queue = Queue()
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", server.queue
        server.shutdown()


@pytest.mark.parametrize("with_webgl", [True, False])
def test_in_a_real_browser(copper, tmp_path, heard, with_webgl):
    """It draws with WebGL, in the iframe of a notebook too; without WebGL it says so."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on PATH")
    shown = view({"slab": copper, "frames": moving(3, 4)})
    if not with_webgl:
        off = "HTMLCanvasElement.prototype.getContext = OffscreenCanvas.prototype.getContext"
        shown.html = shown.html.replace("<body>", f"<body><script>{off} = () => null;</script>")
    told = (
        "<script>new MutationObserver(() => { const root = document.querySelector('.viewer3d'); "
        "if (root.dataset.state !== 'starting') parent.postMessage([root.dataset.state, "
        "root.innerText, document.querySelectorAll('canvas').length], '*') })"
        ".observe(document.body, {subtree: true, attributeFilter: ['data-state']})</script>"
    )
    shown.html = shown.html.replace("</body>", told + "</body>")
    address, said = heard
    outer = tmp_path / "outer.html"
    outer.write_text(
        "<body><script>addEventListener('message', (each) => { new Image().src = "
        f"'{address}' + encodeURIComponent(JSON.stringify(each.data))"
        "})</script>" + shown._repr_html_()
    )
    command = [
        browser, "--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--window-size=900,800",
        f"--user-data-dir={tmp_path / 'profile'}", f"file://{outer}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            state, text, canvases = said.get(timeout=120)
        finally:
            running.terminate()
    if with_webgl:
        assert (state, canvases) == ("ready", 1)
        assert "paler: fixed atoms" in text and "slab" in text and "Cu" in text
    else:
        assert (state, canvases) == ("failed", 0)
        assert text.startswith("This browser cannot show the 3D view.")
