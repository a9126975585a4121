"""Where the content of an exported file comes from: for formats that have room to write it down."""

from __future__ import annotations

from dataclasses import dataclass

from sdi_gs import __version__
from sdi_gs.settings.cameras import CameraConfig

PROGRAM = f"sdi-gs {__version__}"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known of where a scene comes from; None where it comes from a file or from code."""

    prompt: str | None = None
    prior: str | None = None
    seed: int | None = None
    step: int | None = None
    """Steps of optimisation behind it."""
    cameras: CameraConfig | None = None
    """Cameras that it was optimised from."""
    unit: float = 1.0
    """Length of a scene unit in the file."""

    def lines(self) -> list[str]:
        """Return it as comments: program, prompt, prior, seed and steps."""
        lines = [PROGRAM]
        if self.prompt is not None:
            lines.append(f"prompt {self.prompt}")
        if self.prior is not None:
            lines.append(f"prior {self.prior}")
        if self.seed is not None:
            lines.append(f"seed {self.seed} steps {self.step}")
        return lines


UNKNOWN = Origin()
"""Nothing is known but the program."""
