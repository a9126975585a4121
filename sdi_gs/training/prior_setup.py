"""A prior made ready for a run's settings."""

from __future__ import annotations

from sdi_gs.contracts import DiffusionPrior
from sdi_gs.contracts.prior_extras import TunablePrior
from sdi_gs.errors import UserError
from sdi_gs.guidance.prompts import PromptConditions
from sdi_gs.row_groups import views_together
from sdi_gs.settings.run import RunConfig, require_groups


def require_decoder(prior: DiffusionPrior, config: RunConfig) -> None:
    """Raise UserError for a loss in pixels under a prior that cannot decode."""
    if config.losses.space == "pixels" and not callable(getattr(prior, "decode_latents", None)):
        raise UserError(
            f"losses.space pixels needs decoded targets, and {prior.name} has no decode_latents: use latents"
        )


def tune(prior: DiffusionPrior, config: RunConfig) -> None:
    """Set how the prior computes, if it has more than one way."""
    if isinstance(prior, TunablePrior):
        prior.configure(config.compute)


def conditions_of(prior: DiffusionPrior, config: RunConfig) -> PromptConditions:
    """Return the embeddings of a config's prompts; UserError for views that the prior cannot be given."""
    require_groups(prior.name, views_together(prior), config)
    return PromptConditions(
        prior,
        config.prompt,
        negative_prompt=config.negative_prompt,
        backgrounds=config.backgrounds,
        name_background=config.named_backgrounds,
        view_prompts=config.view_prompts,
        views=config.guidance.views,
    )
