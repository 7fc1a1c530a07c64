"""The main job: `dens-ocp demo` from nothing to table, pictures, leaderboard files and report."""

import re

from dens_ocp.tools.cli import main
from tests.runs import dens_ocp

SPLITS = ["id", "ood_ads", "ood_cat", "ood_both"]


def test_quick_demo(tmp_path, capsys):
    shown = dens_ocp("demo", "--quick", "--compare", "--workdir", "demo", cwd=tmp_path).stdout
    for split in SPLITS:
        assert re.search(rf"^{split} +DeNS +\d", shown, re.MULTILINE), split
        assert re.search(r"^ +without DeNS +\d", shown, re.MULTILINE)
        assert re.search(rf"^{split} +\d+\.\d +\d+\.\d +[+-]\d+\.\d \+- ", shown, re.MULTILINE)
    assert re.search(r"On id the force error is \d+ % (lower|higher) with DeNS", shown)
    (folder,) = (tmp_path / "demo" / "report").iterdir()
    pictures = ["corruption.png", "training.png", "DeNS/report/parity.png"]
    for picture in (folder / name for name in pictures):
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    assert "ood_both" in (folder / "table.txt").read_text()
    assert (folder / "DeNS" / "report" / "index.html").is_file()
    data = tmp_path / "demo" / "data-quick"
    for task, kind in (("s2ef", "s2ef"), ("is2re", "is2re"), ("is2rs", "is2re")):
        lmdbs = [f"--lmdb={split}={data / kind / f'val_{split}'}" for split in SPLITS]
        file = folder / "DeNS" / "submission" / f"{task}.npz"
        assert main(["submission", "check", str(file), *lmdbs]) == 0
    # what the table says of id is what fairchem's validate says
    ours = float(re.search(r"^id +DeNS +\S+ +(\S+)", shown, re.MULTILINE)[1])
    theirs = float(re.search(r"own validation, id, DeNS: (\S+) meV/A", shown)[1])
    assert abs(ours - theirs) < 0.2
