"""The embedded OC20-like data set and the demo run on it."""
