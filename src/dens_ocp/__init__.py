"""DeNS (denoising non-equilibrium structures) for fairchem/OCP.

With the package imported, fairchem finds the trainer ``dens`` (= ``denoising_forces``), the models
``equiformer_v2_dens``, ``escn_dens``, ``esen_dens`` and ``equiformer_dens``, and the data sets
``dens_lmdb`` and ``dens_ase_db``.
"""

from dens_ocp.registration import prepare

__version__ = "0.1.0"

prepare()
