"""The page: complete, self-contained, with the numbers that were computed."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from dens_ocp.data.structures import open_structures
from dens_ocp.errors import DensError
from dens_ocp.results.report.breakdown import score_split
from dens_ocp.results.report.page import read_evaluation
from dens_ocp.tools.cli import main
from tests.lmdbs import write_lmdb
from tests.molecules import record as molecule_record
from tests.results.report.runs import NAME, write_evaluation, write_predictions, write_run

VOID = {"meta", "img", "source", "br", "link", "hr"}


class Page(HTMLParser):
    """Tags in their order, texts, tables; complains of tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Run, evaluation, and the page of both."""
    folder = tmp_path_factory.mktemp("full")
    checkpoint = write_run(folder / "run") / "checkpoint.pt"
    evaluation = write_evaluation(folder / "evaluation", checkpoint)
    (evaluation / "scores.txt").write_text("split  energy\nid     <1>\n")
    (evaluation / "scores.json").write_text('{"s2ef": {"id": {"energy_mae": 1.0}}}')
    assert main(["report", str(evaluation)]) == 0
    return folder


def page_of(folder):
    return Page((folder / "index.html").read_text())


@pytest.fixture(scope="module")
def page(full):
    return page_of(full / "evaluation" / "report")


def test_everything_is_there(full, page):
    assert "No warnings" in page.text or "note" in page.text
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1" and headings.count("h1") == 1 and headings.count("h2") == 9
    written = {path.name for path in (full / "evaluation" / "report").iterdir()}
    assert written == {
        "index.html", "learning_curves.png", "schedule.png", "parity.png", "force_magnitude.png",
        "errors_by_element.png", "errors_by_adsorbate.png", "errors_by_surface.png",
        "errors_by_tag.png", "relaxations.png", "corrupted_structures.png",
    }  # fmt: skip
    assert "Left out" not in page.text
    assert len(page.all("img")) == len(written) - 1
    assert "<1>" in page.text  # text of files is escaped
    assert "&lt;1&gt;" in (full / "evaluation" / "report" / "index.html").read_text()


def test_it_needs_nothing_beside_itself(full, page):
    text = (full / "evaluation" / "report" / "index.html").read_text()
    for image in page.all("img"):
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/png;base64" and len(image["alt"]) > 20
        assert base64.b64decode(data).startswith(b"\x89PNG")
    narrow = page.all("source")
    assert len(narrow) == len(page.all("img"))
    for source in narrow:
        assert source["media"] == "screen and (max-width: 900px)"
        assert base64.b64decode(source["srcset"].partition(",")[2]).startswith(b"\x89PNG")
    assert not page.all("link") and not page.all("iframe")
    assert not any("src" in each for each in page.all("script"))
    (policy,) = (each["content"] for each in page.all("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    assert not re.search(r"https?://|@import|url\(", text)
    assert all(link["href"].startswith("#") for link in page.all("a"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)


def test_it_has_two_3d_viewers_and_one_script(page):
    viewers = [each for each in page.all("div") if each.get("class") == "viewer3d"]
    relaxations, corrupted = (each["aria-label"] for each in viewers)
    assert relaxations == "3D view of relaxations"
    assert re.fullmatch(r"3D view of structure \w+, corrupted", corrupted)
    kinds = [each.get("type") for each in page.all("script")]
    assert sorted(map(str, kinds)) == [
        "None", "application/json", "application/json", "application/octet-stream",
    ]  # fmt: skip


def test_it_can_be_read_aloud_and_on_a_phone(page):
    assert page.all("html") == [{"lang": "en"}]
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(each.get("scope") in ("col", "row") for each in page.all("th"))


def test_the_key_numbers_are_those_computed(full, page):
    evaluation = read_evaluation(full / "evaluation")
    header = next(row for row in page.rows if row[0] == "split")
    assert "energy MAE\n(meV)" in header and "force MAE\n(meV/Å)" in header
    for split in ("id", "ood_ads"):
        row = next(row for row in page.rows if row[0] == split)
        structures = list(open_structures(evaluation.splits[split]["s2ef"]))
        found = np.load(evaluation.predictions(split))
        energies = np.array([each.energy for each in structures])
        forces = np.concatenate([each.forces[each.free] for each in structures])
        expected = [
            "8",
            f"{1000 * np.abs(found['energy'][:, 0] - energies).mean():.0f}",
            f"{1000 * np.abs(energies - energies.mean()).mean():.0f}",
            f"{1000 * np.abs(found['forces'] - forces).mean():.1f}",
            f"{1000 * np.abs(forces).mean():.1f}",
        ]
        assert row[1:6] == expected


def test_relaxations_and_config_in_numbers(page):
    row = next(row for row in page.rows if row[0] == "id" and len(row) == 7)
    # three systems, 0.25 eV off after two steps, last force 0.01 eV/Angstrom on a free atom
    assert row[1:] == ["3", "250", "2", "0.010", "100", "0"]
    assert ["sigma", "0.1"] in page.rows and ["seed", "7"] in page.rows
    assert "relaxation_fmax: 0.02" in page.text and "core:abc" in page.text
    assert next(row for row in page.rows if row[0] == "torch")[2] == "x.y"


def test_the_verdict_has_all_checks(page):
    for subject in (
        "Length", "Numbers", "Validation", "Denoising", "Corruption", "Predictions", "Relaxations",
    ):  # fmt: skip
        assert subject in page.text


def test_the_page_says_which_checkpoint_was_evaluated(tmp_path):
    """The run's state is that of checkpoint.pt; what was evaluated is another file."""
    folder = write_run(tmp_path / "run")
    evaluation = write_evaluation(tmp_path / "e", folder / "best_checkpoint.pt", splits=("id",))
    assert main(["report", str(evaluation)]) == 0
    page = page_of(evaluation / "report")
    rows = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert rows["state read from"] == f"checkpoints/{NAME}/checkpoint.pt" and rows["step"] == "40"
    assert rows["evaluated"] == f"checkpoints/{NAME}/best_checkpoint.pt"
    assert rows["its step"] == "20" and rows["its epoch"] == "1"
    assert "of best_checkpoint.pt" in header_of(evaluation / "report")
    (folder / "best_checkpoint.pt").unlink()
    assert main(["report", str(folder), "--evaluation", str(evaluation)]) == 0
    page = page_of(evaluation / "report")
    rows = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert rows["evaluated"].endswith("best_checkpoint.pt, which no longer exists")


def header_of(folder):
    return re.search(r"<header>.*?</header>", (folder / "index.html").read_text(), re.S)[0]


def test_tags_have_no_energies(page):
    """A structure's energy belongs to no tag: not «0 structures» where all have such atoms."""
    assert ["tag", "split", "free atoms", "force MAE (meV/Å)"] in page.rows
    rows = [row for row in page.rows if row[0].endswith(("(tag 1)", "(tag 2)"))]
    assert rows and all(len(row) == 4 for row in rows)


def test_the_header_names_no_paths_of_this_machine(full, page):
    header = header_of(full / "evaluation" / "report")
    assert str(full) not in header and "evaluation evaluation (OC20) · of checkpoint.pt" in header
    run_table = [row for row in page.rows if row[:1] in (["state read from"], ["curves read from"])]
    assert len(run_table) == 2 and not any(cell.startswith("/") for _, cell in run_table)


def test_molecules_have_neither_surface_nor_adsorbate(tmp_path):
    evaluation = molecules_evaluation(tmp_path, ("CH3CH2OH", "H2O"))
    assert main(["report", str(evaluation)]) == 0
    page = page_of(evaluation / "report")
    assert "no atom of these data has tag 2" in page.text
    assert not any(word in row for row in page.rows for word in ("surface", "adsorbate", "none"))
    assert "subsurface" not in page.text and "surface C-H-O" not in page.text
    assert "Errors by element " in page.text and "C-H-O" in page.text
    assert ["split", "structure", "elements", "energy error (meV)"] in page.rows
    written = {path.name for path in (evaluation / "report").glob("errors_by_*.png")}
    assert written == {"errors_by_element.png", "errors_by_elements.png"}


def test_frames_of_one_molecule(tmp_path):
    evaluation = molecules_evaluation(tmp_path, ("CH3CH2OH",))
    assert main(["report", str(evaluation)]) == 0
    written = {path.name for path in (evaluation / "report").glob("errors_by_*.png")}
    assert written == {"errors_by_element.png"}


def molecules_evaluation(folder, names):
    """An evaluation of molecules: all tags are 0."""
    records = []
    for index in range(6):
        each = molecule_record(names[index % len(names)], index)
        each.y, each.force = each.energy, each.forces
        each.cell, each.tags = 50 * torch.eye(3)[None], torch.zeros(each.natoms, dtype=torch.long)
        del each.energy, each.forces
        records.append(each)
    write_lmdb(folder / "data" / "test" / "data.lmdb", records)
    section = {"src": str(folder / "data" / "test")}
    write_predictions(folder / "e" / "predictions" / "test.npz", open_structures(section))
    description = {"checkpoint": None, "splits": {"test": {"s2ef": section, "is2re": None}}}
    (folder / "e" / "evaluation.json").write_text(json.dumps(description))
    return folder / "e"


def test_a_run_without_dens_is_not_described_with_it(tmp_path):
    config = {
        "model": {"name": "equiformer_v2_dens"},
        "optim": {"batch_size": 4, "max_epochs": 2, "dens": {"enabled": False}},
        "cmd": {"print_every": 10}, "outputs": {"forces": {"level": "atom"}},
    }  # fmt: skip
    folder = write_run(tmp_path / "run", config)
    evaluation = write_evaluation(tmp_path / "e", folder / "checkpoint.pt", splits=("id",))
    assert main(["report", str(evaluation)]) == 0
    page = page_of(evaluation / "report")
    assert "this run trains without DeNS, so no structure is corrupted" in page.text
    for words in ("dotted line (no noise predicted)", "The fractions should", "the run's σ"):
        assert words not in page.text
    assert not any("noise" in image["alt"].lower() for image in page.all("img"))


def test_without_a_run_the_corruption_is_that_of_the_defaults(tmp_path):
    evaluation = write_evaluation(tmp_path, splits=("id",))
    assert main(["report", str(evaluation)]) == 0
    text = page_of(evaluation / "report").text
    assert "with the default options of DeNS (no training run is known)" in text
    assert "the run's σ" not in text


@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_real_browser(full, width, tmp_path):
    """The browser lays the page out within its width, with every picture decoded."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on PATH")
    probe = (
        "<script>addEventListener('load', () => { document.title = JSON.stringify({"
        "wide: document.documentElement.scrollWidth, pictures: [...document.images].every("
        "i => i.complete && i.naturalWidth > 300), count: document.images.length, "
        "verdict: document.querySelector('.verdict').getBoundingClientRect().bottom})})</script>"
    )
    text = (full / "evaluation" / "report" / "index.html").read_text()
    framed = tmp_path / "page.html"
    framed.write_text(text.replace("</body>", probe + "</body>"))
    # a window of chromium is never narrower than 500 pixels; a frame is
    outer = tmp_path / "outer.html"
    outer.write_text(
        f"<body style='margin:0'><iframe src='page.html' style='width:{width}px;height:900px;"
        "border:0'></iframe><script>addEventListener('load', () => setTimeout(() => {"
        "document.body.append(frames[0].document.title)}, 100))</script>"
    )
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000",
        "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=8000", "--dump-dom", f"file://{outer}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(re.search(r'\{"wide.*\}(?=</body>)', done.stdout)[0])
    assert found["pictures"] and found["count"] == 10
    assert found["wide"] <= width
    assert width < 1000 or found["verdict"] < 900, "the verdict does not fit on a screen"


# ---- what is missing ---------------------------------------------------------------------------


def test_a_training_run_alone(tmp_path):
    write_run(tmp_path)
    assert main(["report", NAME, "--run-dir", str(tmp_path), "--out", str(tmp_path / "o")]) == 0
    page = page_of(tmp_path / "o")
    assert page.text.count("Left out: no evaluation was given") == 4
    assert "no labelled structures can be read here" in page.text
    assert len(page.all("img")) == 2


def test_the_default_folder_of_a_run(tmp_path):
    folder = write_run(tmp_path)
    assert main(["report", str(folder / "checkpoint.pt")]) == 0
    assert (tmp_path / "results" / NAME / "report" / "index.html").is_file()


def test_a_run_of_an_older_version_and_an_evaluation_without_run(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "metrics.jsonl").unlink()
    evaluation = write_evaluation(tmp_path / "evaluation", splits=("id",))
    assert main(["report", str(folder), "--evaluation", str(evaluation)]) == 0
    assert (
        "there is no metrics.jsonl next to its checkpoints" in page_of(evaluation / "report").text
    )
    assert main(["report", str(evaluation)]) == 0
    text = page_of(evaluation / "report").text
    assert "no training run was given" in text and "Parity" in text


def test_a_split_without_predictions_and_one_without_data(tmp_path):
    evaluation = write_evaluation(tmp_path)
    (evaluation / "predictions" / "id.npz").unlink()
    shutil.rmtree(tmp_path / "data" / "ood_ads")
    assert main(["report", str(evaluation)]) == 0
    text = page_of(evaluation / "report").text
    assert "predictions/id.npz is missing" in text
    assert "ood_ads: the data set cannot be read here" in text


def test_warnings_come_first(tmp_path, capsys):
    checkpoint = write_run(tmp_path / "run", val_forces_mae=[0.2, 0.1, 0.15, 0.2]) / "checkpoint.pt"
    evaluation = write_evaluation(tmp_path / "e", checkpoint)
    section = read_evaluation(evaluation).splits["id"]["s2ef"]
    structures = list(open_structures(section))[1:]
    write_predictions(
        evaluation / "predictions" / "id.npz", structures,
        lambda each, rng: (each.energy, np.full((each.free.sum(), 3), np.nan)),
    )  # fmt: skip
    assert main(["report", str(evaluation)]) == 0
    printed = capsys.readouterr().out
    assert "2 warnings (Validation, id)" in printed
    assert "  warning: Validation: The force MAE rises: 200.0 meV/Å at the end, 100.0 at" in printed
    assert "  warning: id: 7 predictions are NaN or infinite" in printed
    text = page_of(evaluation / "report").text
    assert text.index("rises") < text.index("No NaN")
    assert "7 predictions are NaN or infinite" in text and "1 structures have no pred" in text


def test_predictions_of_another_split(tmp_path):
    evaluation = write_evaluation(tmp_path)
    for name in ("id", "ood_ads"):
        (evaluation / "predictions" / f"{name}.npz").rename(tmp_path / f"{name}.npz")
    (tmp_path / "id.npz").rename(evaluation / "predictions" / "ood_ads.npz")
    with pytest.raises(DensError, match="ood_ads.npz: none of its 8 ids is in .*another split"):
        score_split(read_evaluation(evaluation), "ood_ads")


# ---- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "there is no run 'nowhere'"),
        ([NAME[:-1]], f"did you mean '{NAME}'?"),
        (["empty"], "holds neither a checkpoint"),
        ([NAME, "--evaluation", "empty"], "--evaluation: "),
        ([NAME, "--out", "file"], "--out: file is a file"),
        (["damaged"], "checkpoint.pt is damaged"),
        (["broken"], "evaluation.json is not valid JSON"),
    ],
)
def test_mistakes_are_named(words, says, tmp_path, capsys, monkeypatch):
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "damaged", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "damaged" / "checkpoint.pt").write_bytes(b"PK\x03\x04 half")
    (tmp_path / "broken" / "evaluation.json").write_text("{")
    assert main(["report", *words]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.rglob("index.html"))
