"""Own data in other forms: what is without doubt becomes OC20's form, the rest is one message."""

import numpy as np
import pytest
import torch
from fairchem.core.datasets.base_dataset import create_dataset
from fairchem.core.datasets.lmdb_dataset import data_list_collater
from torch.utils.data import DataLoader

from dens_ocp.data.records.collation import CheckingCollater
from dens_ocp.data.records.named_records import read_with
from dens_ocp.data.records.record_checks import RecordRules
from dens_ocp.errors import DensError

RULES = RecordRules(
    "dataset.train", {"energy": "system", "forces": "atom"}, needs_cell=True, max_num_elements=90
)
BAD = 4


def batches(src, rules=RULES, form="lmdb", workers=0):
    """All records in batches of three, as the trainer's loaders make them."""
    dataset = create_dataset({"src": str(src), "format": form, "no_shuffle": True}, "train")
    read_with(dataset, rules)
    collater = CheckingCollater(data_list_collater, rules.where, periodic=rules.needs_cell)
    return list(DataLoader(dataset, 3, num_workers=workers, collate_fn=partial_otf(collater)))


class partial_otf:  # noqa: N801 (has to be pickled)
    def __init__(self, collater):
        self.collater = collater

    def __call__(self, records):
        return self.collater(records, otf_graph=True)


def field(name, change):
    return lambda record, index: record.__setitem__(name, change(record[name], index))


def drop(name):
    return lambda record, index: record.__delitem__(name)


def both_names(record, index):
    """The right energy and forces under fairchem's names, something else under OC20's."""
    record.energy, record.forces = record.y, record.force
    record.y, record.force = -1e6, torch.zeros_like(record.force)


def alternately(one, other):
    return lambda value, index: one(value) if index % 2 else other(value)


SAME = {
    "pos float64": field("pos", lambda v, i: v.double()),
    "pos numpy, big-endian": field("pos", lambda v, i: v.numpy().astype(">f8")),
    "pos with gradient": field("pos", lambda v, i: v.clone().requires_grad_()),
    "pos mixed": field("pos", alternately(torch.Tensor.double, torch.Tensor.numpy)),
    "cell (3, 3)": field("cell", lambda v, i: v[0]),
    "cell mixed": field("cell", alternately(lambda v: v[0].double(), lambda v: v.numpy())),
    "natoms missing": drop("natoms"),
    "natoms mixed": field("natoms", alternately(lambda v: torch.tensor([v]), np.int64)),
    "y float32": field("y", lambda v, i: np.float32(v)),
    "y (1, 1)": field("y", lambda v, i: torch.tensor([[v]])),
    "y mixed": field("y", alternately(torch.tensor, lambda v: torch.tensor([v]))),
    "y in a list": field("y", lambda v, i: [v]),
    "force numpy": field("force", lambda v, i: v.numpy()),
    "force float64": field("force", lambda v, i: v.double()),
    "atomic_numbers mixed": field("atomic_numbers", alternately(lambda v: v.byte(),
                                                                lambda v: v.float())),
    "atomic_numbers (N, 1)": field("atomic_numbers", lambda v, i: v[:, None].numpy()),
    "fixed bool": field("fixed", alternately(lambda v: v.bool(), lambda v: v.numpy())),
    "tags in a list": field("tags", lambda v, i: v.tolist()),
    "sid mixed": field("sid", alternately(lambda v: torch.tensor([v]), np.int64)),
    "names twice": both_names,
}  # fmt: skip


@pytest.fixture
def sound(write):
    return batches(write([4, 3], folder="sound"))


@pytest.mark.parametrize("case", SAME)
def test_another_form_gives_the_same_batch(write, sound, case):
    found = batches(write([4, 3], change=SAME[case]))
    for batch, expected in zip(found, sound, strict=True):
        names = {"pos", "cell", "natoms", "atomic_numbers", "fixed", "tags", "energy", "forces",
                 "sid", "fid", "batch"}  # fmt: skip
        assert names <= set(batch.keys())
        for name in names:
            assert batch[name].dtype == expected[name].dtype, name
            # float32 energies of some cases are rounded once more
            assert torch.allclose(batch[name], expected[name], rtol=1e-7), name


def test_mixed_forms_in_workers(write, sound):
    """Workers join records into memory of the first one's type."""

    def change(record, index):
        for case in ("pos mixed", "cell mixed", "atomic_numbers mixed", "fixed bool"):
            SAME[case](record, index)

    (first, *_) = batches(write([4, 3], change=change), workers=1)
    assert torch.equal(first.pos, sound[0].pos)
    assert torch.equal(first.atomic_numbers, sound[0].atomic_numbers)


def test_float64_energies_keep_their_digits(write):
    energies = [-17617.123456789 - index for index in range(3)]
    src = write(
        [3], change=field("y", lambda v, i: torch.tensor([energies[i]], dtype=torch.double))
    )
    (batch,) = batches(src)
    assert batch.energy.tolist() == energies


def test_pbc_of_ase_is_a_row_each(write):
    """fairchem joins (3,) tensors to one of (3 B,) and then looks at the first three."""
    src = write([3], change=lambda r, i: r.__setitem__("pbc", torch.tensor([True, True, False])))
    (batch,) = batches(src)
    assert batch.pbc.tolist() == [[True, True, False]] * 3


def test_records_without_pbc_are_periodic(write):
    def change(record, index):
        if index == 1:
            record.pbc = [1, 1, 1]

    (batch,) = batches(write([3], change=change))
    assert batch.pbc.tolist() == [[True] * 3] * 3


def only(change):
    return lambda record, index: change(record) if index == BAD else None


def element(number):
    return only(
        lambda r: r.__setitem__("atomic_numbers", torch.full_like(r.atomic_numbers, number))
    )


def to(name, value):
    return only(lambda r: r.__setitem__(name, value(r[name])))


REFUSED = {
    "uranium": (element(92), r"atomic number 92, .*model.max_num_elements: 90.*=93"),
    "a negative number": (element(-1), "an atomic number is -1"),
    "half a proton": (to("atomic_numbers", lambda v: v + 0.5), "numbers is a float32 tensor"),
    "no numbers": (only(lambda r: r.__delitem__("atomic_numbers")), "has no atomic_numbers"),
    "too few numbers": (to("atomic_numbers", lambda v: v[1:]), r"atomic_numbers has shape \(8,\)"),
    "no cell": (only(lambda r: r.__delitem__("cell")), "has no cell, but the model"),
    "lengths": (to("cell", lambda v: v[0].diagonal()), r"cell is a float32 tensor of shape \(3,\)"),
    "flat cell": (to("cell", lambda v: v * torch.tensor([[1.0], [1.0], [0.0]])), "has no volume"),
    "natoms": (to("natoms", lambda v: 8), "natoms is 8, expected 9"),
    "text": (to("natoms", lambda v: "nine"), "natoms is str 'nine', expected 9"),
    "two energies": (to("y", lambda v: torch.tensor([v, v])), r"energy is a float32 .*\(2,\), "
                     "expected one number"),
    "energy in words": (to("y", lambda v: "low"), "energy is str 'low', expected numbers"),
    "forces in words": (to("force", lambda v: "small"), "forces is str 'small', expected numbers"),
    "positions as rows": (to("pos", lambda v: v.T), r"pos is a float32 tensor of shape \(3, 9\)"),
    "one tag": (to("tags", lambda v: v[:1]), r"tags has shape \(1,\), expected \(9,\)"),
    "pbc": (only(lambda r: r.__setitem__("pbc", [0.5, 1, 1])), "pbc is list .*True or False"),
    "extra shape": (lambda r, i: r.__setitem__("extra", torch.zeros(2, 5 if i == BAD else 4)),
                    r"extra is a float32 tensor of shape \(2, 4\) and .* shape \(2, 5\)|"
                    r"extra is a float32 tensor of shape \(2, 5\) and .* shape \(2, 4\)"),
    "extra type": (lambda r, i: r.__setitem__("extra", 1.0 if i == BAD else torch.zeros(1)),
                   "cannot be in one batch: extra is"),
    "extra in one": (only(lambda r: r.__setitem__("extra", 1.0)),
                     "has no extra, but the record sid 4"),
    "extra not in one": (lambda r, i: None if i == BAD else r.__setitem__("extra", 1.0),
                         "the record sid 4.*has no extra, but the record sid 3"),
    "another pbc": (lambda r, i: r.__setitem__("pbc", torch.tensor([[True, True, i != BAD]])),
                    r"has pbc \[True, True, False\]|has \[True, True, False\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_the_rest_is_one_message_with_the_record(write, case):
    change, words = REFUSED[case]
    with pytest.raises(DensError, match=words) as error:
        batches(write([4, 3], change=change))
    text = str(error.value)
    assert text.startswith("dataset.train: the record sid") and f"sid {BAD}" in text
    assert "\n" not in text and ";" in text  # what to do


def test_a_record_without_names_has_its_place(tmp_path, write):
    def change(record, index):
        del record.sid, record.fid
        record.natoms = 9 if index != 2 else 8

    src = write([4], change=change)
    with pytest.raises(DensError, match=f"record 2 of {src}/data.0000.lmdb: natoms is 8"):
        batches(src / "data.0000.lmdb")


def test_models_without_periodic_graphs_need_no_cell(write):
    src = write([3], change=drop("cell"))
    (batch,) = batches(src, RecordRules("dataset.train"))
    assert "cell" not in batch and batch.natoms.tolist() == [9] * 3


def test_what_stock_fairchem_reads_is_read(write):
    """A target that is called ``y``; a cell that the model does not look at."""

    def change(record, index):
        record.cell = torch.tensor([[9.0, 9.0, 9.0]])

    rules = RecordRules("dataset.train", {"y": "system"})
    (batch,) = batches(write([3], change=change), rules)
    assert batch.y.shape == (3,) and "energy" not in batch and batch.cell.shape == (3, 3)
