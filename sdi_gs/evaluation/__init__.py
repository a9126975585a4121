"""Scores of a finished object, and the probe of a prior."""
