"""LMDBs in OC20's format, written by the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fairchem.core.datasets.base_dataset import create_dataset

from dens_ocp.data.dens_lmdb import DeNSLmdbDataset
from tests.lmdbs import s2ef_records, write_lmdb

KEY_MAPPING = {"y": "energy", "force": "forces"}


@pytest.fixture
def write(tmp_path):
    """``write(counts)``: a folder with one LMDB per count; ``sid`` numbers all records."""

    def write_folder(counts, folder: str = "train", change=lambda record, index: None) -> Path:
        records = s2ef_records(sum(counts))
        for index, record in enumerate(records):
            record.sid = index
            change(record, index)
        for shard, count in enumerate(counts):
            write_lmdb(tmp_path / folder / f"data.{shard:04d}.lmdb", records[:count])
            records = records[count:]
        return tmp_path / folder

    return write_folder


@pytest.fixture
def md_of():
    """``md_of(src, **options)``: {sid: md} of the data set as fairchem's trainers create it."""

    def read(src: os.PathLike | str, split: str = "train", **options) -> dict[int, int]:
        config = {"src": str(src), "format": "dens_lmdb", "key_mapping": KEY_MAPPING, **options}
        dataset = create_dataset(config, split)
        assert isinstance(dataset.dataset, DeNSLmdbDataset)
        records = [dataset[index] for index in range(len(dataset))]
        return {record.sid: record.md for record in records}

    return read
