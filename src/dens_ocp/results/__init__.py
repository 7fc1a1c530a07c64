"""What a model is worth: scores, leaderboard files, whole evaluations, reports."""
