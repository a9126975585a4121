"""Frozen diffusion models behind one interface (``sdi_gs.contracts.DiffusionPrior``)."""
