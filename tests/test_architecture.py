"""Which package may import which (docs/architecture.md), and what importing dens_ocp does."""

import ast
import graphlib
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "dens_ocp"

# each may import those after it
PACKAGES = (
    "tools", "results", "training", "relaxation", "auto", "models", "settings", "data", "launch",
    "checkpoints", "dens", "gaps",
)  # fmt: skip
LEAVES = {"errors", "whole_files", "patched"}
# names that fairchem's registry, configs and checkpoints know, and what each may import
ENTRY = {
    "__init__": {"registration", "data", "dens", "models", "relaxation"},
    "registration": {"data", "gaps", "launch", "models", "training"},
    "trainer": {"training"},
}


def names_in(path: Path, top_level: bool = False) -> set[str]:
    """Dotted names of ours that a file imports: modules, and what is taken from them."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "dens_ocp"}


def imports_of(path: Path) -> set[str]:
    """Packages, and modules next to them."""
    names = {name.split(".")[1] for name in names_in(path) if "." in name}
    return names & {*PACKAGES, *LEAVES, *ENTRY}


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_imports_run_downwards(path):
    package = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if package in PACKAGES:
        allowed = {package, *PACKAGES[PACKAGES.index(package) + 1 :], "registration"} | LEAVES
    else:
        assert package in LEAVES | set(ENTRY), "add it to PACKAGES, LEAVES or ENTRY"
        allowed = ENTRY.get(package, set())
    assert imports_of(path) <= allowed, f"{path.name} imports {imports_of(path) - allowed}"


def test_no_module_imports_itself_in_a_circle():
    modules = {
        ".".join(["dens_ocp", *path.relative_to(SOURCE).with_suffix("").parts]): path
        for path in SOURCE.rglob("*.py")
    }
    arrows = {
        name: {each for each in names_in(path, top_level=True) if each in modules}
        for name, path in modules.items()
    }
    graphlib.TopologicalSorter(arrows).prepare()


def test_packages_are_small():
    folders = [path for path in [SOURCE, *SOURCE.rglob("*")] if path.is_dir()]
    folders = [path for path in folders if path.name != "__pycache__"]
    assert len([path for path in folders if path.parent == SOURCE]) <= 12
    assert len(list(SOURCE.glob("*.py"))) <= 6
    for folder in folders:
        assert len(list(folder.glob("*.py"))) <= 15, folder


def test_importing_registers():
    from fairchem.core.common.registry import registry

    import dens_ocp.trainer
    from dens_ocp.models.equiformer_v2 import EquiformerV2DeNS
    from dens_ocp.models.escn import eSCNDeNS

    for name in ("dens", "denoising_forces"):
        assert registry.get_trainer_class(name) is dens_ocp.trainer.DeNSTrainer
    assert registry.get_model_class("equiformer_v2_dens") is EquiformerV2DeNS
    assert registry.get_model_class("escn_dens") is eSCNDeNS
    assert registry.get_dataset_class("dens_lmdb").__name__ == "DeNSLmdbDataset"


def test_one_class_between_fairchems_trainer_and_ours():
    from dens_ocp.trainer import DeNSTrainer

    ours = [each for each in DeNSTrainer.__mro__ if each.__module__.startswith("dens_ocp.")]
    assert len(ours) == 2


def test_no_module_is_long_or_a_collection():
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path
        assert path.stem not in ("utils", "helpers", "common", "misc"), path
