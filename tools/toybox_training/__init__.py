"""Training of toybox's networks: the prior's VAE, text encoder and U-Net, and the judge."""
