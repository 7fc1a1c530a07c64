"""``dens-ocp evaluate``: from a checkpoint and a config to scores, leaderboard files, report."""
