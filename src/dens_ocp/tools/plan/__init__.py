"""``dens-ocp plan``: what a training run costs on GPUs that are not here (docs/planning.md)."""
