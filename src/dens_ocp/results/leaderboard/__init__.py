"""Files for the leaderboard, and their checks."""
