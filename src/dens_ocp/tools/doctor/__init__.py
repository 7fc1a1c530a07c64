"""``dens-ocp doctor``: checks of the installation and of the data of a run.

Nothing here imports torch or fairchem before a child process has seen that it can be done.
"""
