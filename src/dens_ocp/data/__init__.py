"""Data sets: files, records, labels, structures, as fairchem reads them and as ours are checked."""
