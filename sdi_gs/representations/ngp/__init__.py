"""InstantNGP: a density and a colour field over a multi-resolution hash grid, rendered as a volume."""
