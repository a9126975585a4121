"""How large training views are rendered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from sdi_gs.settings.bounds import SHARE, Range, check_settings


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """Sides of the training views' renders; the prior gets them resized to its own."""

    sizes: Annotated[tuple[int, ...], Range(16, 2048)] = ()
    """Sides of the renders in pixels, one after the other; none for the prior's own from start to end (threestudio's
    data.height). A field takes a sixteenth of the time at a quarter of the side."""
    milestones: Annotated[tuple[float, ...], SHARE] = ()
    """Shares of the run at which the next of ``sizes`` begins, one fewer than there are sizes (threestudio's
    resolution_milestones, which count steps)."""

    def __post_init__(self) -> None:
        check_settings(self)
        if len(self.milestones) != max(len(self.sizes) - 1, 0):
            raise ValueError(
                f"milestones must be one fewer than sizes, {max(len(self.sizes) - 1, 0)} for {len(self.sizes)} sizes, "
                f"got {len(self.milestones)}"
            )
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones must not decrease, got {' '.join(map(str, self.milestones))}")

    def size_at(self, progress: float, prior_size: int) -> int:
        """Return the side of a render at a share of the run, for a prior of pictures of ``prior_size`` pixels."""
        passed = sum(progress >= milestone for milestone in self.milestones)
        return self.sizes[passed] if self.sizes else prior_size

    def shares(self, prior_size: int) -> list[tuple[int, float]]:
        """Return each side with the share of the run that it lasts."""
        begins = (0.0, *self.milestones, 1.0)
        lengths = [end - begin for begin, end in zip(begins[:-1], begins[1:], strict=True)]
        return list(zip(self.sizes or (prior_size,), lengths, strict=True))

    def largest(self, prior_size: int) -> int:
        """Return the side of the run's largest renders."""
        return max(self.sizes, default=prior_size)
