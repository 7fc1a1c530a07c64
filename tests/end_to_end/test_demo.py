"""The main job: `dens-ocp demo` from nothing to table, pictures and submission files."""

import re

import numpy as np

from tests.runs import dens_ocp

SPLITS = ["val_id", "val_ood_ads", "val_ood_cat", "val_ood_both"]


def test_quick_demo(tmp_path):
    shown = dens_ocp("demo", "--quick", "--workdir", "demo", cwd=tmp_path).stdout
    for split in SPLITS:
        assert re.search(rf"{split} +DeNS +\d", shown), split
    (report,) = (tmp_path / "demo" / "report").iterdir()
    for name in ("corruption", "training", "parity-DeNS"):
        picture = report / "pictures" / f"{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 10_000
    assert "val_ood_both" in (report / "table.txt").read_text()
    with np.load(report / "submission" / "DeNS-s2ef.npz") as submission:
        for split in ("id", "ood_ads", "ood_cat", "ood_both"):
            count = len(submission[f"{split}_ids"])
            assert (
                count == len(set(submission[f"{split}_ids"])) == len(submission[f"{split}_energy"])
            )
            assert len(submission[f"{split}_chunk_idx"]) == count - 1
            assert np.isfinite(submission[f"{split}_forces"]).all()
    with np.load(report / "submission" / "DeNS-is2re.npz") as submission:
        assert all(np.isfinite(submission[f"{s}_energy"]).all() for s in ("id", "ood_both"))
    # what the table says of val_id is what fairchem's validate says
    ours = float(re.search(r"val_id +DeNS +\S+ +\S+ +(\S+)", shown)[1])
    theirs = float(re.search(r"own validate, val_id, DeNS: (\S+) meV/A", shown)[1])
    assert abs(ours - theirs) < 0.2
