"""The 3D viewer in a notebook."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ase import Atoms

from dens_ocp.errors import DensError
from dens_ocp.results.report.viewer.fragments import page
from dens_ocp.results.report.viewer.scenes import Scene, structure_scene, trajectory_scene
from dens_ocp.whole_files import write_text

Shown = Atoms | Sequence[Atoms]

_AROUND = 220  # pixels of the menu, the controls and the legend, on a phone too


class View:
    """A 3D viewer that a notebook shows as output, and nbconvert writes into HTML.

    Attributes:
        html: a page that needs nothing else.
    """

    def __init__(self, scenes: Sequence[Scene], height: int = 420) -> None:
        self._height = height
        self._names = ", ".join(scene.label for scene in scenes)
        self.html = page(scenes, f"3D view of {self._names}", height=height)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page as a file.

        Raises:
            DensError: it cannot be written.
        """
        try:
            write_text(Path(path), self.html)
        except OSError as error:
            raise DensError(f"viewer: {path} cannot be written: {error}") from None
        return Path(path)

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" sandbox="allow-scripts" '
            f'title="{html.escape(f"3D view of {self._names}")}" '
            f'style="width:100%;height:{self._height + _AROUND}px;border:0"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<3D view of {self._names}>"


def view(shown: Shown | Mapping[str, Shown], height: int = 420) -> View:
    """Show structures and trajectories in 3D.

    Arrows show the noise and the original forces of structures that ``dens_ocp.corrupt`` made.
    Fixed atoms are paler. Trajectories have play and pause, energies and largest forces.

    Args:
        shown: a structure, a trajectory (a sequence of structures), or several of both by name.
        height: of the drawing, in pixels.

    Returns:
        An object that a notebook shows; ``save("view.html")`` writes it as a page. It takes about
        0.3 MB of a notebook.

    Raises:
        DensError: nothing to show, or a structure that is too large.

    >>> from ase.build import molecule
    >>> view(molecule("H2O"))
    <3D view of H2O>
    """
    named = shown if isinstance(shown, Mapping) else {None: shown}
    if not named:
        raise DensError("viewer: there is nothing to show")
    scenes = [
        structure_scene(each, name) if isinstance(each, Atoms) else trajectory_scene(each, name)
        for name, each in named.items()
    ]
    return View(scenes, height)
