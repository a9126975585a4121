"""Presets as Python."""
