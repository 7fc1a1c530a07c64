"""Unpickling records of OCP's LMDB files without running code that they may hold.

A record is a pickled PyG ``Data`` of tensors, NumPy values and plain Python. A pickle names what
it wants to call ("globals"), so one that wants anything else is refused before it is called. The
work is done by Python's own unpickler in C; only the look-up of names is ours.
"""

from __future__ import annotations

import builtins
import codecs
import collections
import io
import pickle
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.data import data as pyg_data
from torch_geometric.data import storage as pyg_storage

from dens_ocp.gaps.pickled_names import numpy_functions


class RefusedGlobal(pickle.UnpicklingError):
    """A pickle wants something that no record needs; ``wanted`` is its dotted name."""

    def __init__(self, module: str, name: str) -> None:
        super().__init__(f"it needs {module}.{name}")
        self.wanted = f"{module}.{name}"


class _Unpickler(pickle.Unpickler):
    """Knows the names in ``admitted`` alone: module and name -> what a pickle gets. Inside a
    pickled storage there are numbers and its type, which torch looks up itself."""

    admitted: Mapping[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.admitted[module, name]
        except KeyError:
            raise RefusedGlobal(module, name) from None


_STORAGES = SimpleNamespace(
    __name__="pickle",
    Unpickler=_Unpickler,
    load=lambda file, **options: _Unpickler(file, **options).load(),
)
"""What ``torch.load`` asks of its ``pickle_module``."""


def _load_storage(content: bytes) -> torch.TypedStorage:
    """``torch.storage._load_from_bytes``, which calls ``torch.load`` and so unpickles anything.

    Storages in pickles always have torch's old format; of the new one there are archives that hold
    code (TorchScript).
    """
    if content[:2] == b"PK":
        raise RefusedGlobal("torch.storage", "_load_from_bytes of an archive")
    return torch.load(io.BytesIO(content), pickle_module=_STORAGES, weights_only=False)


def _admitted() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("torch.storage", "_load_from_bytes"): _load_storage,
        ("_codecs", "encode"): codecs.encode,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
        ("torch_geometric.data.data", "Data"): Data,
        ("torch", "Size"): torch.Size,
        ("torch", "device"): torch.device,
        ("torch.nn.parameter", "Parameter"): torch.nn.Parameter,
    }
    for module, names in (
        (pyg_data, ("DataEdgeAttr", "DataTensorAttr")),
        (pyg_storage, ("BaseStorage", "NodeStorage", "EdgeStorage", "GlobalStorage")),
        (torch._utils, ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")),
    ):
        table |= {
            (module.__name__, name): getattr(module, name)
            for name in names
            if hasattr(module, name)
        }
    for name in ("set", "frozenset", "complex", "bytearray", "slice", "range", "list", "dict",
                 "tuple", "int", "float", "bool", "str", "bytes"):  # fmt: skip
        table["builtins", name] = getattr(builtins, name)
        table["__builtin__", name] = getattr(builtins, name)  # protocol 2
    table["__builtin__", "xrange"] = range
    dtypes = [each for each in vars(torch).values() if isinstance(each, torch.dtype)]
    table |= {("torch", str(each)[6:]): each for each in dtypes}
    table |= {(module, name): function for module, name, function in numpy_functions()}
    table["numpy", "ndarray"] = np.ndarray
    table["numpy", "dtype"] = np.dtype
    return table


ADMITTED = _admitted()
"""Module and name of each global that a record may want -> what it gets."""


class _RecordUnpickler(_Unpickler):
    admitted = ADMITTED


class _NumberUnpickler(_Unpickler):
    """No global but those of NumPy's scalars."""

    admitted = {key: ADMITTED[key] for key in ADMITTED if key[1] in ("dtype", "scalar", "encode")}


def loads(content: bytes | None) -> Any:
    """Unpickle a record; named as ``pickle.loads``, in whose place it stands.

    Args:
        content: value of a key of an LMDB; None if there is no such key.

    Raises:
        RefusedGlobal: it wants something that is not in :data:`ADMITTED`; nothing of it was called.
        pickle.UnpicklingError: no such key, or damaged.
    """
    if content is None:
        raise pickle.UnpicklingError("the file has no such key")
    try:
        return _RecordUnpickler(io.BytesIO(content)).load()
    except RefusedGlobal:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error


def loads_number(content: bytes) -> int:
    """Unpickle the entry ``length`` of an LMDB.

    Raises:
        pickle.UnpicklingError: damaged, or no number.
    """
    try:
        return int(_NumberUnpickler(io.BytesIO(content)).load())
    except Exception as error:
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
