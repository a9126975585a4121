"""Metrics of a finished scene: one module each, and the table of them."""
