"""DeNS (denoising non-equilibrium structures) for fairchem/OCP.

Importing the package registers with fairchem: trainer ``dens`` (= ``denoising_forces``), models
``equiformer_v2_dens``, ``escn_dens`` and ``equiformer_dens``, data set ``dens_lmdb``.
"""

import sys
import warnings

from dens_ocp.registration import register_for

__version__ = "0.1.0"

with warnings.catch_warnings():
    # three of fairchem's modules read a table of its own with torch.load and no weights_only
    warnings.filterwarnings("ignore", "You are using `torch.load`", FutureWarning)
    broken_installation = register_for(sys.argv)
    """The exception that kept a command line of ours from registering; else None."""
