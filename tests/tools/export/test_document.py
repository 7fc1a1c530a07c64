"""docs/inference.md: its commands have the options they show, and its facts are the code's."""

import shlex
import subprocess
import sys

import yaml

from dens_ocp.tools.export.checkpoint import LARGEST_DIFFERENCE
from dens_ocp.tools.export.command import command
from dens_ocp.tools.export.stock_model import TRAINER
from tests.conftest import ROOT
from tests.test_readme import blocks, commands

DOCUMENT = ROOT / "docs" / "inference.md"


def test_commands():
    found = [words for _, text in blocks(DOCUMENT) for words in commands(text)]
    export, example = found
    assert export[:2] == ["dens-ocp", "export"]
    out = command.make_context("export", export[2:]).params["out"]
    (shown,) = (shlex.split(text.replace("\\\n", "")) for _, text in blocks(DOCUMENT, "text"))
    assert str(out) in shown and str(out.with_suffix(".yml")) in shown
    help_text = subprocess.run(
        [sys.executable, str(ROOT / example[1]), "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    options = [word for word in example if word.startswith("--")]
    assert options and all(option in help_text for option in options)


def test_facts():
    text = DOCUMENT.read_text()
    assert TRAINER in text and f"above {LARGEST_DIFFERENCE:.0e}".replace("e-0", "e-") in text
    for option in ("--raw", "--config-yml"):
        assert option in text
    assert yaml.safe_load((ROOT / "configs/oc22/equiformer_v2_dens.yml").read_text())
