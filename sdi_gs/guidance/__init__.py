"""Score distillation: from latents and a prompt to the target that the latents should move to."""
