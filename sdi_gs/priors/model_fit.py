"""Whether text encoder, U-Net and VAE are of one text-to-image model."""

from __future__ import annotations

from typing import Any

from sdi_gs.errors import UserError


def require_one_model(name: str, text_encoder: Any, unet: Any, vae: Any) -> None:
    """Raise UserError unless the configs are those of one text-to-image model (not inpainting, depth, SDXL, ...)."""
    for what, given, needed, whose in (
        ("in_channels", unet.in_channels, vae.latent_channels, "vae"),
        ("out_channels", unet.out_channels, vae.latent_channels, "vae"),
        ("cross_attention_dim", unet.cross_attention_dim, text_encoder.hidden_size, "text_encoder"),
    ):
        if given != needed:
            raise UserError(
                f"the components of {name} do not fit: its unet has {what} {given}, its {whose} needs {needed}: "
                "use a text-to-image model like Stable Diffusion 2.1"
            )
    if not isinstance(unet.sample_size, int):
        raise UserError(f"the unet of {name} has sample_size {unet.sample_size}: use a model of square images")
    # Models are published with up to three times their VAE's training size (2.1 with the VAE of 256 pixels), and
    # 2.1-base with two thirds of it. Farther apart, one of the two comes from elsewhere.
    factor = vae_factor(vae)
    image_size = unet.sample_size * factor
    if not vae.sample_size / 4 < image_size < vae.sample_size * 4:
        raise UserError(
            f"the components of {name} do not fit: its unet's {unet.sample_size} latent pixels times its vae's factor "
            f"{factor} are images of {image_size} pixels, but the vae is made for {vae.sample_size}: "
            "take both from one model"
        )


def vae_factor(config: Any) -> int:
    """Return the image pixels along one latent pixel: each block of the VAE but the last halves the image."""
    return 2 ** (len(config.block_out_channels) - 1)
