"""Data sets and checks of data."""
