"""Errors of predictions and relaxations, by split."""
