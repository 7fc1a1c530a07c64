"""Names of :mod:`dens_ocp.dens.options`, for sections of a config."""

from dens_ocp.dens.options import Section, mapping, read, unknown

__all__ = ["Section", "mapping", "read", "unknown"]
