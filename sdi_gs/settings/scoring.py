"""Which networks score results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sdi_gs.errors import UserError
from sdi_gs.settings.bounds import check_settings

Role = Literal["clip", "clip-iqa", "hps", "image-reward"]
ROLES: tuple[Role, ...] = ("clip", "clip-iqa", "hps", "image-reward")


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The networks of the learned metrics: each a known name, a folder or file, or a hub id (owner/name)."""

    clip: str = "clip-b32"
    """Of clip, r-precision and janus: clip-b32, clip-b16, clip-l14 or clip-bigg."""
    clip_iqa: str = "clip-b16"
    """Of clip-iqa; MV-SDI's is clip-b16."""
    hps: str = "hps-v2"
    """Of hps: hps-v2 or hps-v2.1."""
    image_reward: str = "image-reward"
    """Of image-reward."""
    prompt_template: str = "{prompt}"
    """What the networks read for a prompt; {prompt} stands for it."""

    def __post_init__(self) -> None:
        check_settings(self)
        if "{prompt}" not in self.prompt_template:
            raise UserError(f'the prompt template "{self.prompt_template}" needs {{prompt}} in it')

    def source(self, role: Role) -> str:
        """Return what the network of a role comes from."""
        return str(getattr(self, role.replace("-", "_")))
