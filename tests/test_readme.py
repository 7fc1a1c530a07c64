"""The commands of README.md and docs/: run where that is possible here, else checked word by word.

A comment in front of a bash block says how: ``<!-- test: run -->`` (executed, on small data and
with a small model), ``<!-- test: parse -->`` (needs a cluster: the command line is parsed),
``<!-- test: install -->`` (needs the network: see ``test_installation.py``).
A block without one holds make commands.
"""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
import yaml
from fairchem.core.common.flags import flags
from fairchem.core.common.utils import load_config

from dens_ocp.dens.config import DeNSConfig, MultiScaleSigma, parse_dens_config
from dens_ocp.results.leaderboard.boards import OC20
from dens_ocp.settings import recipes
from dens_ocp.tools.cli import COMMANDS
from tests.conftest import ROOT
from tests.lmdbs import write_is2re, write_s2ef
from tests.runs import dens_ocp, environment

README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "slurm" / "README.md"]
EXECUTED = [README, ROOT / "docs" / "training.md", ROOT / "docs" / "commands.md"]
"""Documents of which the commands of kind ``run`` are executed, in this order in one folder."""
BIN = Path(sys.executable).parent

# What makes the recipe small enough for a test; the command stays as it is otherwise.
SMALLER = [
    "--cpu", "--print-every=1", "--model.num_layers=1", "--model.sphere_channels=8",
    "--model.attn_hidden_channels=8", "--model.num_heads=2", "--model.attn_alpha_channels=4",
    "--model.attn_value_channels=4", "--model.ffn_hidden_channels=8", "--model.edge_channels=8",
    "--model.lmax_list=[2]", "--optim.num_workers=0", "--task.relaxation_steps=2",
]  # fmt: skip
SMALLER_HERE = {
    "evaluate": ["--cpu", "--at-a-time=2", "--task.relaxation_steps=2", "--optim.num_workers=0"]
}


def blocks(document: Path, language: str = "bash") -> list[tuple[str, str]]:
    """(kind of test, text) of each fenced block."""
    pattern = rf"(?:<!-- test: (\w+) -->\n)?```{language}\n(.*?)```"
    return re.findall(pattern, document.read_text(), flags=re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The command lines of a block, as words; comments and continuations resolved."""
    joined = text.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def commands_of(kind: str, document: Path = README) -> list[list[str]]:
    return [words for test, text in blocks(document) if test == kind for words in commands(text)]


def is_ours(words: list[str]) -> bool:
    return words[0] == "dens-ocp" and words[1] in COMMANDS


def is_fairchem(words: list[str]) -> bool:
    return words[0] == "fairchem" or words[:2] == ["dens-ocp", "main"]


def test_every_block_is_tested():
    assert {kind for kind, _ in blocks(README)} == {"run", "install"}
    executed = [words for document in EXECUTED for words in commands_of("run", document)]
    assert len(executed) >= 15 and all(is_fairchem(words) or is_ours(words) for words in executed)
    elsewhere = [document for document in DOCUMENTS if document not in EXECUTED]
    assert not any(commands_of("run", document) for document in elsewhere)
    for document in DOCUMENTS:
        for words in commands_of("install", document):
            assert words[:4] == ["python", "-m", "pip", "install"]


def test_the_readme_is_short():
    """Issue: at most 900 words."""
    assert len(README.read_text().split()) <= 900


def test_make_targets_and_variables_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = [
        words
        for document in DOCUMENTS
        for _, text in blocks(document)
        for words in commands(text)
        if words[0] == "make"
    ]
    inline = re.findall(r"`make (\w[\w-]*)`", "".join(each.read_text() for each in DOCUMENTS))
    assert len(named) >= 3 and {"demo", "docs"} <= set(inline)
    for words in [*named, *(["make", target] for target in inline)]:
        for word in words[1:]:
            name, is_variable, _ = word.partition("=")
            pattern = rf"^{name} \?=" if is_variable else rf"^{name}:"
            assert re.search(pattern, makefile, flags=re.MULTILINE), word


def test_setup_ends_with_the_line_that_activates():
    makefile = (ROOT / "Makefile").read_text()
    lines = re.search(r"^setup: .*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1].splitlines()
    assert "source $(VENV)/bin/activate" in lines[-1] and "@echo" in lines[-1]


def test_ranks_that_srun_starts_end_together():
    """Without the option the others wait for a rank that failed."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    steps = [
        line
        for path in [*documents, *sorted((ROOT / "slurm").iterdir())]
        for line in path.read_text().splitlines()
        if re.match(r"\s*(step=\()?srun ", line)
    ]
    assert len(steps) >= 3
    for step in steps:
        assert "--kill-on-bad-exit=1" in step, step


def overrides_of(command: click.Command, name: str, words: list[str]) -> list[str]:
    """Those of a command line, which click accepts."""
    context = command.make_context(name, list(words))
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        return overrides_of(command, name, rest)
    return context.params.get("overrides", [])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_our_commands_parse(document):
    for _, text in blocks(document):
        for words in filter(is_ours, commands(text)):
            module = importlib.import_module(COMMANDS[words[1]][0])
            others = overrides_of(module.command, words[1], words[2:])
            # what is left overrides settings of the config
            sections = "logger|dataset|optim|model|task|evaluation"
            assert all(re.fullmatch(rf"--({sections})[\w.]*=\S*", each) for each in others), words


def test_options_of_the_demo_exist():
    shown = subprocess.run(
        [sys.executable, "-m", "dens_ocp.tools.cli", "demo", "--help"],
        env=environment(), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    arguments = re.findall(r"DEMO_ARGS=('.+?'|[^\s`]+)", text)
    options = re.findall(r"--[\w-]+", " ".join(arguments))
    assert options and all(option in shown for option in options)


def test_the_undo_line_names_the_pinned_fairchem():
    (pinned,) = re.findall(r'"(fairchem-core==[\d.]+)"', (ROOT / "pyproject.toml").read_text())
    undo = commands_of("install", ROOT / "docs" / "commands.md")
    assert ["--force-reinstall", "--no-deps", pinned] in [words[4:] for words in undo]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_parse(document):
    for _, text in blocks(document):
        for words in filter(is_fairchem, commands(text)):
            rest = words[1:] if words[0] == "fairchem" else words[2:]
            rest = rest[1:] if rest[0] == "main" else rest
            args, overrides = flags.get_parser().parse_known_args(rest)
            if f"--config-out {args.config_yml}" in document.read_text():
                continue  # a command of the document makes it
            config = load_config(ROOT / recipes.resolved(str(args.config_yml)))[0]
            for override in overrides:
                assert re.fullmatch(r"--[\w.]+=\S+", override), override
                section = config
                *path, last = override[2:].partition("=")[0].split(".")
                for key in path:
                    section = section.get(key, {}) if key != "dataset" else section[key]
                known = last in section or path[:1] == ["dataset"] or last in ("dataset",)
                known = known or (path == ["optim", "dens"] and last in DeNSConfig.model_fields)
                assert known, f"{override} overrides nothing"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_and_links_exist(document):
    text = document.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", text):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), target
    for path in re.findall(r"(?:configs|docs|slurm|tests)/[\w./]+\.\w+", text):
        assert (ROOT / path).is_file(), path
    for path, anchor in re.findall(r"\]\(([\w/]+\.md)#([\w-]+)\)", text):
        assert f'<a id="{anchor}">' in (document.parent / path).read_text()


def test_yaml_blocks_are_valid():
    for document in (README, ROOT / "docs/training.md", ROOT / "docs/index.md"):
        (block,) = (yaml.safe_load(text) for _, text in blocks(document, "yaml"))
        assert parse_dens_config(block["optim"]) == DeNSConfig()
        assert block["trainer"] in ("dens", "dens_ocp.trainer.DeNSTrainer")
    (schedule,) = (yaml.safe_load(text) for _, text in blocks(ROOT / "docs/options.md", "yaml"))
    sigma = parse_dens_config({"dens": schedule}).sigma
    assert sigma == MultiScaleSigma(low=0.01, high=0.5, num_steps=50)


# ---- executed -------------------------------------------------------------------------------


def execute(words: list[str], folder: Path, *, script: bool = True) -> str:
    """Run a command of the README in ``folder``, with the installed script or, as that takes six
    seconds of imports, with the function that it calls (``test_scripts_are_ours``)."""
    assert (BIN / words[0]).exists(), f"{words[0]} is missing: install the project (make setup)"
    smaller = SMALLER if is_fairchem(words) else SMALLER_HERE.get(words[1], [])
    words = [*words, *smaller]
    if not script:
        main = ["main"] if words[0] == "fairchem" and words[1] != "main" else []
        done = dens_ocp(*main, *words[1:], cwd=folder)
        return done.stdout + done.stderr
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]], cwd=folder,
        env=environment(PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}"),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def write_stock_checkpoint(ours: Path, stock: Path) -> None:
    """What fairchem's own EquiformerV2 would have saved: no module of DeNS, its own names."""
    checkpoint = torch.load(ours, weights_only=False)
    checkpoint["state_dict"] = {
        name.replace("energy_head.", "").replace("force_head.", ""): value
        for name, value in checkpoint["state_dict"].items()
        if not name.removeprefix("module.").startswith(("force_embedding", "noise_"))
    }
    checkpoint["ema"] = None
    torch.save(checkpoint, stock)


@pytest.mark.slow
def test_commands_run_as_written(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    write_s2ef(tmp_path / "data/oc20/s2ef/train_2M", 8)
    write_s2ef(tmp_path / "data/oc20/s2ef/val_id_30k", 4, seed=1)
    write_is2re(tmp_path / "data/oc20/is2re/val_id", 2, seed=2)
    for seed, split in enumerate(OC20.splits, start=10):
        write_s2ef(tmp_path / f"data/oc20/s2ef/test_{split}", 2, seed=seed)
        write_is2re(tmp_path / f"data/oc20/is2re/test_{split}", 1, seed=seed)
    run, logs, scripts = "", {}, set()
    for words in [words for document in EXECUTED for words in commands_of("run", document)]:
        words = [word.replace("RUN", run) for word in words]
        if "stock_equiformer_v2.pt" in words:
            best = tmp_path / f"checkpoints/{run}/best_checkpoint.pt"
            write_stock_checkpoint(best, tmp_path / "stock_equiformer_v2.pt")
        resumed = "--timestamp-id" in words
        epochs = [f"--optim.max_epochs={2 if resumed else 1}"] if is_fairchem(words) else []
        log = execute([*words, *epochs], tmp_path, script=words[0] not in scripts)
        scripts.add(words[0])
        logs.setdefault(kind_of(words), []).append(log)
        if "first" in words:  # the run of the commands after it
            run = next((tmp_path / "checkpoints").iterdir()).name
    train, resume, finetune = logs["train"]
    for doctor in logs["doctor"]:
        assert "problem" not in re.sub("(no|0) problem", "", doctor.lower())
    assert "GPU-hours" in logs["plan"][0]
    assert run.endswith("-first") and "noise MAE" in train
    assert f"Run {run}" in resume and "epoch 2 of 2" in resume
    maes = {re.findall(r"forces_mae: ([\d.]+)", log)[-1] for log in logs["validate"]}
    assert len(logs["validate"]) == 3 and len(maes) == 1
    assert "OC20 S2EF" in logs["evaluate"][0] and "ok" in logs["submission"][0]
    assert "index.html" in logs["report"][0]
    assert (tmp_path / "equiformer_v2.pt").is_file() and "equiformer_v2.pt" in logs["export"][0]
    assert list(tmp_path.glob("results/*/*predictions.npz")) and "predict" in logs
    assert list(tmp_path.glob("results/*/relaxed_positions.npz")) and "run-relaxations" in logs
    assert "start of fine-tuning with DeNS" in finetune


def kind_of(words: list[str]) -> str:
    """The mode of fairchem, or our command."""
    return words[words.index("--mode") + 1] if is_fairchem(words) else words[1]


def test_scripts_are_ours():
    for name, function in (("fairchem", "fairchem_main"), ("dens-ocp", "main")):
        assert f"from dens_ocp.tools.cli import {function}" in (BIN / name).read_text()
    assert shutil.which("fairchem", path=str(BIN))
