"""fairchem's LMDB data set with a flag for records from molecular dynamics (``dens_lmdb``)."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from fairchem.core.datasets import lmdb_dataset
from fairchem.core.datasets.lmdb_dataset import LmdbDataset
from torch_geometric.data import Data

from dens_ocp.data import md_flags
from dens_ocp.data.checks import check_lmdb_source
from dens_ocp.data.lmdb_environment import LmdbEnvironment
from dens_ocp.data.records import record_pickles
from dens_ocp.data.records.named_records import explained
from dens_ocp.data.records.record_ids import env_and_key, place_of
from dens_ocp.errors import DensError

_fairchems_getitem = FunctionType(
    LmdbDataset.__getitem__.__code__, {**vars(lmdb_dataset), "pickle": record_pickles}
)
"""fairchem's method, for which the module ``pickle`` is ours. (Setting it in fairchem's module
would change stock data sets too, and setting it for the length of a call would not be safe with
threads.)"""


class DeNSLmdbDataset(LmdbDataset):
    """fairchem's ``lmdb`` whose records carry ``md``: int, 1 for MD, 0 else; (B,) in a batch.

    ``md_source`` and ``md_files`` say where the flags come from: :mod:`dens_ocp.data.md_flags`.

    With ``shard``/``total_shards`` indices run from 0 to ``len(self) - 1`` and metadata are those
    of the shard. (fairchem's class shows the indices of the whole set, with which its own
    ``create_dataset`` fails from the second shard on.) ``id`` stays that of the whole set.

    Records are unpickled by :mod:`~dens_ocp.data.records.record_pickles`, which runs no code of
    theirs.

    Can be pickled and forked; each process opens the files for itself.

    Args:
        config: ``src`` (folder with ``*.lmdb``, or one file), fairchem's options, ours.

    Attributes:
        md_source: where the flags come from; never ``auto``.

    Raises:
        DensError: damaged or missing files; misspelt ``md_...`` option; flags and records that
            disagree in number; from ``[]``, a record that cannot be read or could run code.
    """

    loads_no_code = True

    def __init__(self, config: dict[str, Any]) -> None:
        options = md_flags.parse_md_options(config)
        self._db_paths = check_lmdb_source(config.get("src"), "src of a dens_lmdb data set")
        super().__init__(config)
        self._in_folder = not self.path.is_file()
        counts = [len(keys) for keys in self._keys] if self._in_folder else [len(self._keys)]
        self.md_source = md_flags.source_of(options, self.path, self._first_record_has_md)
        self._guessed_none = options.md_source == "auto" and self.md_source == "none"
        self._flags = None
        if self.md_source == "data_log":
            self._flags = md_flags.flags_from_data_log(self.path, self._db_paths, counts)
        elif self.md_source == "files":
            self._flags = md_flags.flags_from_files(
                self.path, self._db_paths, counts, options.md_files
            )
        if self._flags is not None:
            logging.info(
                "%s: %d of %d records are MD (md_source: %s)",
                self.path,
                int(self._flags.sum()),
                len(self._flags),
                self.md_source,
            )
        self._whole_set = slice(0, sum(counts))
        self._shown = self._whole_set
        if self.sharded:
            self._keep_shard(counts)

    @property
    def number_of_md_records(self) -> int | None:
        """How many records are MD; None if only the records themselves say so."""
        if self.md_source == "records":
            return None
        return 0 if self._flags is None else int(self._flags.sum())

    def __getitem__(self, idx: int) -> Data:
        data = self._read(idx)
        if self.md_source == "records":
            data.md = self._md_of_record(data, idx)
            return data
        if self._guessed_none and getattr(data, "md", None) is not None:
            raise DensError(
                f"{place_of(self, idx)} has an attribute md, but the first record has none; give "
                "one to all records, or set md_source: none"
            )
        data.md = 0 if self._flags is None else int(self._flags[idx])
        return data

    def _read(self, idx: int) -> Data:
        try:
            data = _fairchems_getitem(self, idx)
        except Exception as error:  # of fairchem's method, or of what a pickle holds
            raise explained(self, idx, error) from error
        if self.sharded and self._in_folder:
            env, key = env_and_key(self, idx)
            data.id = f"{self.envs.index(env)}_{key}"
        return data

    def _first_record_has_md(self) -> bool:
        return len(self) > 0 and getattr(self._read(0), "md", None) is not None

    def _md_of_record(self, data: Data, idx: int) -> int:
        array = np.asarray(getattr(data, "md", None))
        value = array.item() if array.size == 1 else str(array)
        if value not in (0, 1):
            shown = "no attribute md" if value is None else f"md: {value!r}"
            raise DensError(
                f"{place_of(self, idx)} has {shown}; md_source: records needs md 0 or 1 in every "
                "record"
            )
        return int(value)

    # ---- shards ----------------------------------------------------------------------------

    def _keep_shard(self, counts: list[int]) -> None:
        """Forget all keys and flags but those of the shard, a range of the whole set."""
        start = int(self.indices[0]) if len(self.indices) else 0
        stop = start + len(self.indices)
        self._shown = slice(start, stop)
        if self._in_folder:
            begins = np.cumsum([0, *counts[:-1]]).tolist()
            self._keys = [
                keys[max(start - begin, 0) : max(stop - begin, 0)]
                for keys, begin in zip(self._keys, begins, strict=True)
            ]
            self._keylen_cumulative = np.cumsum([len(keys) for keys in self._keys]).tolist()
        else:
            self._keys = self._keys[start:stop]
        if self._flags is not None:
            self._flags = self._flags[start:stop]
        self.indices = np.arange(self.num_samples)

    @cached_property
    def _metadata(self) -> dict[str, np.ndarray]:
        """fairchem's, cut to the shard; it compares their number with that of all records."""
        if not self.sharded:
            return super()._metadata
        self.num_samples = self._whole_set.stop
        try:
            return {name: values[self._shown] for name, values in super()._metadata.items()}
        finally:
            self.num_samples = len(self.indices)

    # ---- files -----------------------------------------------------------------------------

    def connect_db(self, lmdb_path: Path | None = None) -> LmdbEnvironment:
        return LmdbEnvironment(lmdb_path)

    def __del__(self) -> None:
        # fairchem's looks at the folder again, which may be gone, and needs a finished __init__
        for env in (*getattr(self, "envs", ()), getattr(self, "env", None)):
            if env is not None:
                env.close()
