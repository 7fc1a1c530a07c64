"""What fairchem-core 1.10.0 asks of other packages and does not find in their current releases.

fairchem-core 1.10.0 is frozen; what is around it goes on. One module for each gap, which says since
which release it is there and when it can go:

* :mod:`~dens_ocp.gaps.torch_scatter`, :mod:`~dens_ocp.gaps.torch_sparse`: compiled extensions that
  ``import fairchem.core`` wants, where they are not installed.
* :mod:`~dens_ocp.gaps.pkg_resources`: setuptools 82 dropped it.
* :mod:`~dens_ocp.gaps.sph_harm`: SciPy 1.17 dropped it.
* :mod:`~dens_ocp.gaps.optimizable`: ASE 3.26 has methods that are abstract.
* :mod:`~dens_ocp.gaps.lmdb_environments`: lmdb 2.3 opens a file once in a process.
* :mod:`~dens_ocp.gaps.spawned_workers`: data workers import this package before fairchem.
* :mod:`~dens_ocp.gaps.process_groups`: torch 2.4 hangs when it frees process groups.
* :mod:`~dens_ocp.gaps.pickled_names`: NumPy 2 and Python 3.13 moved what pickles name.

``import dens_ocp`` fills them when fairchem is imported. A package that is installed is used.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

STAND_INS = {"torch_scatter": "fairchem", "torch_sparse": "fairchem", "pkg_resources": "torchtnt"}
"""Modules of this folder that take the place of a package, and the package that asks for it."""

PATCHES = {
    "fairchem.core.models.utils.basis": "sph_harm",
    "fairchem.core.common.relaxation.optimizable": "optimizable",
    "fairchem.core.datasets.lmdb_dataset": "lmdb_environments",
    "fairchem.core.datasets.base_dataset": "spawned_workers",
    "fairchem.core.common.distutils": "process_groups",
    "torchtnt.utils.version": "pkg_resources",
}
"""Modules of others -> the module of this folder whose functions ``before()`` and
``after(module)``, those that it has, are called around their import."""


def before(name: str) -> None:
    """What has to be done before the module ``name`` of another package is executed."""
    if name in PATCHES:
        getattr(_module(name), "before", lambda: None)()


def after(module: ModuleType) -> None:
    """What has to be done after it."""
    if module.__name__ in PATCHES:
        getattr(_module(module.__name__), "after", lambda _: None)(module)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"dens_ocp.gaps.{PATCHES[name]}")


class StandIns(importlib.abc.MetaPathFinder):
    """Finds the modules of this folder, where fairchem asks for a package that is not there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name, _, rest = fullname.partition(".")
        if name not in STAND_INS:
            return None
        if not (is_stand_in(name) if rest else _importer() == STAND_INS[name]):
            return None
        if name != "pkg_resources":
            # it looks for both and must not find ours: it asks for more of them
            importlib.import_module("torch_geometric.typing")
        file = Path(__file__).with_name(f"{name}.py")
        return importlib.util.spec_from_file_location(fullname, file, submodule_search_locations=[])


def _importer() -> str:
    """The package whose module imports."""
    frame = sys._getframe(2)
    while frame.f_back is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def is_stand_in(name: str) -> bool:
    """Whether the package ``name``, as it was imported, is the one of this folder."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and Path(file).parent == Path(__file__).parent
