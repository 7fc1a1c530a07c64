"""From a training run and an evaluation to one HTML page and its pictures."""
