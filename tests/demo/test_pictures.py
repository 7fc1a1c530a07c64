"""The demo's pictures are written under their names; what they show: tests/report."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from matplotlib import image

from dens_ocp.demo.pictures import corruption_picture, curves_picture, parity_picture
from dens_ocp.demo.table import Labels
from tests.lmdbs import s2ef_records
from tests.report.runs import write_events


def test_pictures_of_the_demo(tmp_path):
    dens = {"optim": {"dens": {"sigma": 0.1}}}
    run = SimpleNamespace(name="DeNS", config=dens, events=write_events(tmp_path / "events"))
    rng = np.random.default_rng(0)
    labels = Labels(rng.normal(size=5), [rng.normal(size=(3, 3)) for _ in range(5)])
    written = [
        corruption_picture(tmp_path / "p", s2ef_records(3), seed=0),
        curves_picture(tmp_path / "p", [run]),
        parity_picture(tmp_path / "p", "without DeNS", {"val_id": labels}, {"val_id": labels}),
    ]
    names = ["corruption.png", "training.png", "parity-without-DeNS.png"]
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == sorted(names)
    for path in written:
        pixels = image.imread(path)
        assert min(pixels.shape[:2]) > 300 and pixels[..., :3].std() > 0.03
