"""DeNS (denoising non-equilibrium structures) for fairchem/OCP.

Importing the package registers with fairchem: trainer ``dens`` (= ``denoising_forces``), models
``equiformer_v2_dens`` and ``escn_dens``, data set ``dens_lmdb``.
"""

from dens_ocp.registration import register

__version__ = "0.1.0"

register()
