"""A 3D viewer of structures and trajectories, for the report and for notebooks.

It needs no network. 3Dmol.js draws it (``3Dmol-min.js``, version 2.5.5 from npm, licence in
``3Dmol-LICENSE.txt``), driven by ``viewer.js``. In a notebook:

    from dens_ocp.results.report.viewer import view

    view(atoms)       # a structure, with arrows where ``dens_ocp.corrupt`` made it
    view(frames)      # a trajectory, with play and pause
"""

from dens_ocp.results.report.viewer.notebook import View, view

__all__ = ["View", "view"]
