from fairchem.core.datasets.lmdb_dataset import LmdbDataset
class DeNSLmdbDataset(LmdbDataset):
    pass
