"""``dens-ocp ablate``: variants of a training, with several seeds, compared."""
