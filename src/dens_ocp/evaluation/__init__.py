"""From a checkpoint to numbers: predictions, relaxations, scores, leaderboard files."""
