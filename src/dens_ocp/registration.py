"""The one place that puts names into fairchem's registry, when fairchem asks for the first one.

fairchem and the models take seconds to import, so ``import dens_ocp`` imports neither: it watches
the import of some of fairchem's modules. Gaps between fairchem and current releases of what it
needs (:mod:`dens_ocp.gaps`) are filled on the way.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from dens_ocp import gaps

TRAINER_NAMES = ("dens", "denoising_forces")
"""``denoising_forces`` is the authors' name."""

MODEL_NAMES = ("equiformer_v2_dens", "escn_dens", "esen_dens", "equiformer_dens")
"""Models with DeNS."""

MODELS_IN_WORDS = f"{', '.join(MODEL_NAMES[:-1])} or {MODEL_NAMES[-1]}"

_REGISTRY = "fairchem.core.common.registry"
_COMMAND_LINE = "fairchem.core._cli"
_TABLES = (
    "fairchem.core.models.equiformer_v2.wigner",
    "fairchem.core.models.escn.so3",
    "fairchem.core.models.scn.spherical_harmonics",
)
"""They read a table of fairchem's own with ``torch.load`` and no ``weights_only``: torch warns."""


def prepare() -> None:
    """Let fairchem be imported with what is installed, its registry know our names as soon as it is
    asked for one, and its command line start its processes with functions of ours. Done by
    ``import dens_ocp``."""
    if not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
        sys.meta_path.append(gaps.StandIns())
    for name in (_REGISTRY, _COMMAND_LINE, *gaps.PATCHES):
        if name in sys.modules:
            _imported(sys.modules[name])


def register() -> None:
    """Register trainer, models and data set with fairchem.

    Raises:
        Exception: anything that importing torch or fairchem raises.
    """
    from fairchem.core.common.registry import registry

    from dens_ocp.data.dens_ase_db import DeNSAseDBDataset
    from dens_ocp.data.dens_lmdb import DeNSLmdbDataset
    from dens_ocp.models.equiformer.model import EquiformerDeNS
    from dens_ocp.models.equiformer_v2 import EquiformerV2DeNS
    from dens_ocp.models.escn import eSCNDeNS
    from dens_ocp.models.esen import eSENDeNS
    from dens_ocp.training.trainer import DeNSTrainer

    for name in TRAINER_NAMES:
        registry.register_trainer(name)(DeNSTrainer)
    models = (EquiformerV2DeNS, eSCNDeNS, eSENDeNS, EquiformerDeNS)
    for name, model in zip(MODEL_NAMES, models, strict=True):
        registry.register_model(name)(model)
    registry.register_dataset("dens_lmdb")(DeNSLmdbDataset)
    registry.register_dataset("dens_ase_db")(DeNSAseDBDataset)


class _Watch(importlib.abc.MetaPathFinder):
    """Python's own finder, with something done when a watched module has been imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in (_REGISTRY, _COMMAND_LINE, *_TABLES, *gaps.PATCHES):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = functools.partial(_execute, spec.loader.exec_module)
            spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec


def _execute(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    gaps.before(module.__name__)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using `torch.load`", FutureWarning)
        execute(module)
    _imported(module)


def _imported(module: ModuleType) -> None:
    gaps.after(module)
    if module.__name__ == _REGISTRY:
        _register_when_asked(module.Registry)
    elif module.__name__ == _COMMAND_LINE:
        # it puts itself in its places; if it is what imports fairchem's, it does so at its end
        importlib.import_module("dens_ocp.launch.spawned")


def _register_when_asked(registry: Any) -> None:
    """Exchange ``get_class``, which all ``get_..._class`` of fairchem call, until it is called."""
    stock = registry.__dict__["get_class"]
    if getattr(stock.__func__, "_asks_dens_ocp", False):
        return

    def get_class(cls: Any, name: str, mapping_name: str) -> Any:
        registry.get_class = stock
        try:
            register()
        except BaseException:
            registry.get_class = own  # the next call fails as this one did
            raise
        return cls.get_class(name, mapping_name)

    get_class._asks_dens_ocp = True  # type: ignore[attr-defined]
    own = registry.get_class = classmethod(get_class)
