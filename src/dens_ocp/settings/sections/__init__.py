"""What the sections of a training config may say: names, types, bounds, and their reading.

YAML 1.1 reads ``5e-4`` as a string, an override ``--optim.ema_decay=None`` may arrive as one, and
fairchem ignores a misspelt name. :func:`dens_ocp.settings.run.checked` reads a whole config once:
every number becomes the number it is meant to be, or one message names the option, its value and
what it should be.
"""
