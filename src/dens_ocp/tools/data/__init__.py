"""``dens-ocp data``: data sets of molecules and of a user's own as fairchem LMDBs."""
