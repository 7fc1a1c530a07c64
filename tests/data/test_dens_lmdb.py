"""The MD flags of ``dens_lmdb``, through fairchem's own ``create_dataset`` and data loaders."""

import itertools
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from fairchem.core.common.registry import registry
from fairchem.core.datasets.base_dataset import create_dataset
from fairchem.core.datasets.lmdb_dataset import data_list_collater
from torch.utils.data import DataLoader

from dens_ocp.data.dens_lmdb import DeNSLmdbDataset
from dens_ocp.data.md_flags import without_inherited_md
from dens_ocp.errors import DensError
from tests.data.conftest import KEY_MAPPING

COUNTS = [3, 4, 2]
MD = (1, 4, 5, 8)


def log_lines(indices):
    kinds = ("all/relaxations/random7_md", "all/rattled/random8")
    return "".join(
        f"{'all/md/random9' if index in MD else kinds[index % 2]},frame{index},-301.5\n"
        for index in indices
    )


def write_logs(folder, counts=COUNTS, pattern="data_log.{:04d}.txt"):
    start = 0
    for shard, count in enumerate(counts):
        (folder / pattern.format(shard)).write_text(log_lines(range(start, start + count)))
        start += count
    return folder


def flagged(md):
    return tuple(sorted(sid for sid, flag in md.items() if flag == 1))


def test_data_log_is_read_as_the_authors_read_it(write, md_of):
    md = md_of(write_logs(write(COUNTS)))
    assert sorted(md) == list(range(9))
    assert flagged(md) == MD
    assert set(map(type, md.values())) == {int}


def test_data_log_may_be_cut_into_other_pieces(write, md_of):
    assert flagged(md_of(write_logs(write(COUNTS), [9]))) == MD


@pytest.mark.parametrize("subset", [{"first_n": 5}, {"sample_n": 6}, {"no_shuffle": True}])
def test_flags_follow_subsets(write, md_of, subset):
    md = md_of(write_logs(write(COUNTS)), **subset)
    assert len(md) == subset.get("first_n", subset.get("sample_n", 9))
    assert flagged(md) == tuple(sid for sid in MD if sid in md)


def test_flags_follow_splits(write, md_of):
    src = write_logs(write(COUNTS))
    splits = {"train": {"first_n": 2}, "val": {"sample_n": 8}}
    assert flagged(md_of(src, splits=splits)) == (1,)
    md = md_of(src, split="val", splits=splits)
    assert len(md) == 8 and flagged(md) == tuple(sid for sid in MD if sid in md)


@pytest.mark.parametrize("as_file", [False, True])
def test_shards_partition_records_and_flags(write, md_of, as_file):
    src = write([9] if as_file else COUNTS)
    write_logs(src, [9] if as_file else COUNTS)
    np.savez(src / "metadata.npz", natoms=np.arange(9), sid=np.arange(9))
    src = src / "data.0000.lmdb" if as_file else src
    seen = {}
    for shard in range(4):
        config = {"src": str(src), "shard": shard, "total_shards": 4}
        dataset = DeNSLmdbDataset({**config, "format": "dens_lmdb"})
        assert [dataset[index].sid for index in range(len(dataset))] == list(
            dataset._metadata["sid"]
        )
        md = md_of(src, shard=shard, total_shards=4)
        assert len(md) == len(dataset) and not seen.keys() & md.keys()
        seen |= md
    assert sorted(seen) == list(range(9)) and flagged(seen) == MD


def test_ids_are_those_of_fairchem(write):
    src = write(COUNTS)
    plain = registry.get_dataset_class("lmdb")({"src": str(src)})
    ids = {plain[index].sid: plain[index].id for index in range(9)}
    for shard in range(2):
        dataset = DeNSLmdbDataset({"src": str(src), "shard": shard, "total_shards": 2})
        for index in range(len(dataset)):
            assert dataset[index].id == ids[dataset[index].sid]


def test_negative_index_has_its_own_flag(write):
    dataset = DeNSLmdbDataset({"src": str(write_logs(write(COUNTS)))})
    assert (dataset[-1].sid, dataset[-1].md, dataset[-2].md) == (8, 1, 0)


def test_flags_without_records_and_records_without_flags_are_errors(write, md_of):
    src = write_logs(write(COUNTS), [3, 4, 1])
    with pytest.raises(DensError, match="8 lines.*9 records") as error:
        md_of(src)
    assert str(src) in str(error.value)
    write_logs(src, [3, 4, 3])
    with pytest.raises(DensError, match="10 lines.*9 records"):
        md_of(src)
    assert flagged(md_of(src, md_source="none")) == ()


def test_same_total_in_other_order_is_an_error(write, md_of):
    src = write_logs(write(COUNTS), [4, 3, 2])
    with pytest.raises(DensError, match="data_log.0000.txt has 4 lines, but data.0000.lmdb"):
        md_of(src)


def test_other_text_files_count_only_when_asked_for(write, md_of, caplog):
    src = write(COUNTS)
    (src / "README.txt").write_text("md\n" * 9)
    assert flagged(md_of(src)) == ()
    assert "README.txt" in caplog.text
    assert len(flagged(md_of(src, md_source="data_log"))) == 9
    write_logs(src)
    assert flagged(md_of(src)) == MD


def test_data_log_asked_for_and_absent(write, md_of):
    with pytest.raises(DensError, match="no data_log"):
        md_of(write(COUNTS), md_source="data_log")


def test_single_file_takes_the_log_of_its_number(write, md_of):
    src = write_logs(write(COUNTS))
    assert flagged(md_of(src / "data.0001.lmdb")) == (4, 5)
    (src / "data_log.0001.txt").unlink()
    assert flagged(md_of(src / "data.0001.lmdb")) == ()
    with pytest.raises(DensError, match=r"no data_log\*.txt for data.0001.lmdb"):
        md_of(src / "data.0001.lmdb", md_source="data_log")


def test_only_file_of_a_folder_takes_any_log_when_asked_for(write, md_of):
    src = write_logs(write([9]), [9], "frames.txt") / "data.0000.lmdb"
    assert flagged(md_of(src)) == ()
    assert flagged(md_of(src, md_source="data_log")) == MD


@pytest.mark.parametrize(
    ("entries", "sids"),
    [
        (["data.0001.lmdb"], (3, 4, 5, 6)),
        ("data.0001.lmdb", (3, 4, 5, 6)),
        (["data.000[12].lmdb"], (3, 4, 5, 6, 7, 8)),
        (["data.0000.lmdb", "*2.lmdb"], (0, 1, 2, 7, 8)),
        (["../md"], (7, 8)),
        (["../m*"], (7, 8)),
    ],
)
def test_md_files(write, md_of, entries, sids):
    src = write_logs(write(COUNTS))
    (src.parent / "md").mkdir()
    (src.parent / "md" / "data.lmdb").symlink_to(src / "data.0002.lmdb")
    assert flagged(md_of(src, md_files=entries)) == sids
    absolute = entries if isinstance(entries, str) else [str(src / entry) for entry in entries]
    assert flagged(md_of(src, md_files=absolute, md_source="files")) == sids


def test_md_files_of_a_folder_of_links(write, tmp_path):
    src, md, links = write([3], "all"), write([2], "md"), tmp_path / "all_md"
    links.mkdir()
    (links / "0.lmdb").symlink_to(src / "data.0000.lmdb")
    (links / "1.lmdb").symlink_to(md / "data.0000.lmdb")
    dataset = DeNSLmdbDataset({"src": str(links), "md_files": [str(md)]})
    assert [dataset[index].md for index in range(5)] == [0, 0, 0, 1, 1]


def test_md_files_of_a_single_file(write, md_of):
    src = write([4]) / "data.0000.lmdb"
    assert flagged(md_of(src, md_files=[src.name])) == (0, 1, 2, 3)
    assert flagged(md_of(src, md_files=[src.name], first_n=2)) == (0, 1)


def test_md_files_that_name_nothing_of_the_set(write, md_of):
    src, other = write(COUNTS), write([2], "other")
    with pytest.raises(DensError, match="data.0009.lmdb"):
        md_of(src, md_files=["data.0009.lmdb"])
    with pytest.raises(DensError, match="not part of the data set"):
        md_of(src, md_files=[str(other)])


def as_int(index):
    return int(index in MD)


@pytest.mark.parametrize(
    "form", [as_int, lambda i: torch.tensor([as_int(i)]), lambda i: np.bool_(as_int(i))]
)
def test_md_of_the_records(write, md_of, form):
    src = write(COUNTS, change=lambda record, index: record.__setattr__("md", form(index)))
    md = md_of(src)
    assert flagged(md) == MD and set(map(type, md.values())) == {int}
    assert flagged(md_of(src, md_source="none")) == ()
    assert flagged(md_of(src, shard=1, total_shards=2)) == (5, 8)


@pytest.mark.parametrize("value", [None, 2, torch.tensor([0, 1]), "yes"])
def test_a_record_with_no_or_wrong_md_is_named(write, md_of, value):
    def change(record, index):
        record.md = value if index == 5 else 0

    with pytest.raises(DensError, match="record 2 of .*data.0001.lmdb.*md"):
        md_of(write(COUNTS, change=change))


def test_md_in_later_records_only_is_an_error(write, md_of):
    def change(record, index):
        if index == 3:
            record.md = 1

    src = write(COUNTS, change=change)
    with pytest.raises(DensError, match="record 0 of .*data.0001.lmdb.*md_source: none"):
        md_of(src)
    assert flagged(md_of(src, md_source="none")) == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"md_soruce": "files"}, "md_soruce.*did you mean 'md_source'"),
        ({"md_file": ["x"]}, "md_file .*did you mean 'md_files'"),
        ({"MD_files": ["x"]}, "did you mean 'md_files'"),
        ({"dm_files": ["x"]}, "did you mean 'md_files'"),
        ({"md_source": "datalog"}, "'datalog'.*did you mean 'data_log'"),
        ({"md_source": "files"}, "needs md_files"),
        ({"md_source": "records", "md_files": ["data.0000.lmdb"]}, "both given"),
        ({"md_files": 3}, "not a list"),
    ],
)
def test_mistakes_in_options(write, md_of, options, message):
    with pytest.raises(DensError, match=message):
        md_of(write([2]), **options)


def test_options_of_the_training_set_are_not_handed_down():
    train = {"src": "train", "md_files": ["md*.lmdb"]}
    assert without_inherited_md({"src": "val"}, train)["md_source"] == "none"
    own = {"src": "val", "md_source": "records"}
    assert without_inherited_md(own, train) == own
    assert without_inherited_md({"src": "val"}, {"src": "train"}) == {"src": "val"}


def loader(src, **options):
    config = {"src": str(src), "format": "dens_lmdb", "key_mapping": KEY_MAPPING, **options}
    return partial(
        DataLoader,
        create_dataset({**config, "no_shuffle": True}, "train"),
        batch_size=3,
        collate_fn=partial(data_list_collater, otf_graph=True),
    )


@pytest.mark.parametrize(
    ("as_file", "start"),
    [
        *itertools.product((False, True), (None, "fork")),
        pytest.param(False, "spawn", marks=pytest.mark.slow),
    ],
)
def test_data_loaders(write, as_file, start):
    src = write_logs(write([9]), [9]) / "data.0000.lmdb" if as_file else write_logs(write(COUNTS))
    workers = {} if start is None else {"num_workers": 1, "multiprocessing_context": start}
    batches = list(loader(src)(**workers))
    assert [batch.md.shape for batch in batches] == [(3,)] * 3
    assert not batches[0].md.dtype.is_floating_point
    sids = torch.cat([batch.sid for batch in batches])
    assert tuple(sids[torch.cat([batch.md for batch in batches]) == 1].tolist()) == MD


def test_an_error_in_a_worker_keeps_its_own_message_only(write):
    src = write(COUNTS, change=lambda record, index: record.__setattr__("md", index))
    with pytest.raises(DensError) as error:
        list(loader(src, md_source="records")(num_workers=1))
    assert str(error.value).startswith("record 2 of ") and "Traceback" not in str(error.value)


def test_pickled_copy_reads_on_its_own(write):
    dataset = DeNSLmdbDataset({"src": str(write_logs(write(COUNTS)))})
    copy = pickle.loads(pickle.dumps(dataset))
    del dataset
    assert [copy[index].md for index in range(9)] == [as_int(index) for index in range(9)]


def test_record_that_is_not_there(write, tmp_path):
    import lmdb

    src = write(COUNTS)
    with lmdb.open(str(src / "data.0001.lmdb"), subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"7", txn.pop(b"2"))
    dataset = DeNSLmdbDataset({"src": str(src)})
    with pytest.raises(DensError, match="record 2 of .*data.0001.lmdb cannot be read"):
        dataset[5]


def test_shared_alloys(shared):
    src = shared / "data" / "oc20_alloys" / "s2ef_val"
    if not src.is_dir():
        pytest.skip("no OC20-like alloys in ../shared")
    for path in (src, src / "data.0000.lmdb"):
        dataset = create_dataset({"src": str(path), "format": "dens_lmdb"}, "val")
        assert len(dataset) == 190 and dataset.dataset.md_source == "none"
        assert dataset[0].md == 0
