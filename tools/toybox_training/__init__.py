"""How toybox's own networks are trained: the prior's VAE, text encoder and U-Net, and the judge."""
