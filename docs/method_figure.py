"""Makes docs/method.png: ``python docs/method_figure.py``."""

from pathlib import Path

from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT

from dens_ocp.data.structures import Structure
from dens_ocp.results.report.figures.corruption_gallery import corruption_gallery

slab = fcc111("Cu", (3, 3, 4), vacuum=8.0)
add_adsorbate(slab, "O", 1.3, "fcc")
slab.rattle(0.05, seed=0)
slab.calc = EMT()
shown = Structure(
    id="O on Cu(111)",
    sid="0",
    atomic_numbers=slab.numbers,
    tags=slab.get_tags(),
    fixed=slab.get_tags() > 2,  # the two lower layers
    pos=slab.positions,
    cell=slab.cell.array,
    energy=slab.get_potential_energy(),
    forces=slab.get_forces(),
)
figure = corruption_gallery(shown, sigmas=(0.1, 0.3, 0.5), seed=0)
figure.savefig(Path(__file__).with_name("method.png"), dpi=110)
