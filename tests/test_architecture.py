"""Who may import whom (docs/architecture.md), and what importing the package does."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "dens_ocp"

# a module or package of ours -> what of ours it may import, besides itself and
# what all may: `errors`, `whole_files`
MAY_IMPORT = {
    "errors": set(),
    "whole_files": set(),
    "closed_pipe": set(),
    "config": set(),
    "batch": set(),
    "preconditions": set(),
    "corruption": {"config", "batch"},
    "nn": set(),
    "fast": set(),
    "models": {"nn", "batch", "fast"},
    "loss": {"batch"},
    "metrics": {"batch"},
    "datasets": set(),
    "settings": set(),
    "host": {"datasets", "settings"},
    "auto": {"config", "datasets", "evaluation", "host"},
    "trainer": {
        "auto", "batch", "config", "corruption", "datasets", "host", "loss", "metrics", "models",
        "preconditions",
    },
    "registration": {"datasets", "models", "spawned", "trainer"},
    "spawned": set(),
    "evaluation": {"datasets"},
    "report": {"batch", "config", "corruption", "evaluation", "host"},
    "pipeline": {"datasets", "evaluation", "host", "report"},
    "ablation": {
        "config", "evaluation", "host", "pipeline", "registration", "report", "settings", "trainer",
    },
    "conversion": {"auto", "datasets", "host"},
    "demo": {"datasets", "evaluation", "host", "pipeline", "report"},
    "export": {"__init__", "config", "host", "models"},
    "doctor": {"config", "datasets", "host", "registration", "settings", "trainer"},
    "planning": {"host", "models"},
    "cli": {"closed_pipe", "host", "registration", "settings", "trainer", "__init__"},
    "__init__": {"registration"},
}  # fmt: skip


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
            if node.module == "dens_ocp":
                names = [f"dens_ocp.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "dens_ocp":
                found.add(parts[1] if len(parts) > 1 else "__init__")
    return found


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_arrows_point_one_way(path):
    unit = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert unit in MAY_IMPORT, (
        f"{unit}: say in this test and in docs/architecture.md who it may import"
    )
    forbidden = imports_of(path) - MAY_IMPORT[unit] - {unit, "errors", "whole_files"}
    assert not forbidden, f"{path.name} imports {forbidden}"


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


def test_no_module_is_long_or_a_drawer():
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path
        assert path.stem not in ("utils", "helpers", "common", "misc"), path
