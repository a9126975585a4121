"""The networks of one evaluation: found once, loaded when first used, kept for all scenes."""

from __future__ import annotations

from typing import Any

import torch

from sdi_gs.errors import UserError
from sdi_gs.evaluation.networks.clip import ClipNetwork, load_clip
from sdi_gs.evaluation.networks.files import NetworkFiles, how_to_get, network_files
from sdi_gs.evaluation.networks.image_reward import ImageRewardNetwork, load_image_reward
from sdi_gs.settings.scoring import NetworkOptions, Role


class Networks:
    """The networks that the learned metrics use."""

    def __init__(self, options: NetworkOptions | None = None, *, device: torch.device | str = "cpu") -> None:
        self.options = options or NetworkOptions()
        self.device = device
        self._files: dict[str, NetworkFiles | None] = {}
        self._loaded: dict[tuple[str, str], Any] = {}
        self._used: dict[Role, NetworkFiles] = {}

    def why_not(self, role: Role) -> str | None:
        """Return why a role has no network here, with the command that brings it; None where it has one."""
        source = self.options.source(role)
        if self._found(source) is not None:
            return None
        return f"no weights of {source} here: {how_to_get(source)}"

    def clip(self, role: Role) -> ClipNetwork:
        """Return the CLIP network of a role; UserError where it is not here or has another layout."""
        return self._kept(role, "clip", load_clip)

    def image_reward(self) -> ImageRewardNetwork:
        """Return ImageReward; UserError where it is not here or has another layout."""
        return self._kept("image-reward", "image-reward", load_image_reward)

    def text(self, prompt: str) -> str:
        """Return what the networks read for a prompt."""
        return self.options.prompt_template.replace("{prompt}", prompt)

    def records(self) -> list[dict[str, Any]]:
        """Return what the manifest records of the networks that were used."""
        return [
            {
                "role": role,
                "source": files.source,
                "id": files.name,
                "revision": files.revision,
                "sha256": files.sums(),
                "prompt_template": self.options.prompt_template,
                **self._loaded[_kind(role), files.source].describe(),
            }
            for role, files in self._used.items()
        ]

    def _found(self, source: str) -> NetworkFiles | None:
        if source not in self._files:
            self._files[source] = network_files(source)
        return self._files[source]

    def _kept(self, role: Role, kind: str, load: Any) -> Any:
        source = self.options.source(role)
        files = self._found(source)
        if files is None:
            raise UserError(f"{self.why_not(role)}")
        if (kind, source) not in self._loaded:
            self._loaded[kind, source] = load(files, device=self.device)
        self._used[role] = files
        return self._loaded[kind, source]


def _kind(role: Role) -> str:
    return "image-reward" if role == "image-reward" else "clip"
