"""``dens-ocp data materials``: crystals with energy, forces and stress as fairchem's ASE-LMDBs."""
