"""Which archive holds a data set of the recipes; docs/data.md says where it is and how to prepare
it."""

from __future__ import annotations

import re
from typing import NamedTuple


class Archive(NamedTuple):
    """A file to download.

    Attributes:
        path: regular expression for the end of a path in the recipes.
        name: of the file. size: of the download.
    """

    path: str
    name: str
    size: str


ARCHIVES = (
    Archive(r"oc20/s2ef/train_200K", "s2ef_train_200K.tar", "344 MB"),
    Archive(r"oc20/s2ef/train_2M", "s2ef_train_2M.tar", "3.4 GB"),
    Archive(r"oc20/s2ef/train_all_md", "s2ef_train_all.tar and s2ef_md.tar", "225 GB and 42 GB"),
    Archive(r"oc20/s2ef/val_id(_30k)?", "s2ef_val_id.tar", "1.7 GB"),
    Archive(r"oc20/s2ef/val_ood_(ads|cat|both)", r"s2ef_val_ood_\1.tar", "1.7 to 1.9 GB"),
    Archive(r"oc20/s2ef/test_\w+", "s2ef_test_lmdbs.tar.gz", "30 GB"),
    Archive(r"oc20/is2re/\w+", "is2res_train_val_test_lmdbs.tar.gz", "8.1 GB"),
    Archive(r"oc22/s2ef-total/\w+", "s2ef_total_train_val_test_lmdbs.tar.gz", "20 GB"),
    Archive(r"oc22/is2re-total/\w+", "is2res_total_train_val_test_lmdbs.tar.gz", "109 MB"),
    Archive(r"oc22/oc22_linfit_coeffs.npz", "oc22_linfit_coeffs.npz", "a file of fairchem"),
    Archive(r"mptrj/(train|val)", "MPtrj_2022.9_full.json", "11.4 GB"),
    Archive(r"md17/(\w+)/(train|val|test)", r"md17_\1.npz", "from sgdml.org"),
)


def of(path: str) -> Archive | None:
    """The archive of a path, if it is one of the recipes' paths.

    >>> of("data/oc20/s2ef/val_ood_ads").name
    's2ef_val_ood_ads.tar'
    """
    for archive in ARCHIVES:
        match = re.search(rf"(?:^|/)data/{archive.path}/?$", path)
        if match:
            return archive._replace(name=match.expand(archive.name))
    return None


def to_download(path: str) -> str:
    """What to do about a data set that is missing; empty for a path that no recipe names."""
    archive = of(path)
    if archive is None:
        return ""
    return f"get {archive.name} ({archive.size}) and prepare it as docs/data.md says"
