"""Score distillation: from latents and a prompt to the latent that they should become."""
