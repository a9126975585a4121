"""The hash-grid field: rendering, schedules and state.

Letters: B views, H W pixels, P points.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdi_gs.cameras import CameraBatch, camera_rays
from sdi_gs.contracts import DensityField, cube
from sdi_gs.errors import UserError
from sdi_gs.representations.ngp.background import Environment
from sdi_gs.representations.ngp.field import NgpField
from sdi_gs.representations.ngp.occupancy import OccupancyGrid
from sdi_gs.representations.ngp.rendering import FieldRender, FieldRenderer, FieldValues
from sdi_gs.representations.ngp.shading import Lighting, draw_lighting, shade
from sdi_gs.settings.compute import fewest
from sdi_gs.settings.ngp import NgpConfig


class Ngp:
    """A hash-grid field with its occupancy grid and, if configured, a learned background."""

    def __init__(self, config: NgpConfig, *, generator: torch.Generator, device: torch.device) -> None:
        self.config = config
        self._device = device
        self.field = NgpField(config, generator=generator, device=device)
        self.occupancy = OccupancyGrid(config, device=device)
        self.steps_since_update = 0
        has_environment = config.background == "environment"
        self.environment = Environment(config, generator=generator, device=device) if has_environment else None

    @property
    def device(self) -> torch.device:
        """Device of its tensors."""
        return self._device

    @property
    def num_points(self) -> int:
        """0: a field is not made of splats."""
        return 0

    def describe(self) -> str:
        """Return "a field"."""
        return "a field"

    def splats(self) -> None:
        """Return None: a field has no splats."""

    def density(self, *, resolution: int | None = None) -> DensityField:
        """Return density and albedo within the field's cube, the same at every resolution."""
        return DensityField(
            density_of=self.density_of, albedo_of=self.albedo_of, box=cube(self.config.radius), device=self.device
        )

    def detached_copy(self) -> Ngp:
        """Copy the field as it is now."""
        copy = Ngp(self.config, generator=torch.Generator(self.device).manual_seed(0), device=self.device)
        copy.load_state(self.state())
        return copy

    # ---- values at points ----

    def density_of(
        self,
        points: Tensor,  # [P, 3] world
    ) -> Tensor:  # [P]
        """Return the density per scene unit; 0 outside the cube."""
        return self.field.density_of(points)

    def albedo_of(
        self,
        points: Tensor,  # [P, 3] world
    ) -> Tensor:  # [P, 3]
        """Return the colour in (0, 1)."""
        return self.field.albedo_of(points)

    def normals_of(
        self,
        points: Tensor,  # [P, 3] world
    ) -> Tensor:  # [P, 3]
        """Return unit vectors against the gradient of the density."""
        return self.field.normals_of(points)

    # ---- rendering ----

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        with_depth: bool = False,
        with_normals: bool = False,
    ) -> FieldRender:
        """Render the albedo over given colours with rays sampled at fixed places; depth is always included.

        Raises UserError for images below 16 pixels.
        """
        return self._render(cameras, background[:, None, :], None, with_normals=with_normals, generator=None)

    def render_for_training(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1], used where the config's background is "given"
        *,
        progress: float,
        generator: torch.Generator,
        views_at_once: int = 0,
        rays_at_once: int = 0,
    ) -> FieldRender:
        """Render with jittered samples, the config's background and light, and normals if a regulariser needs them.

        The tensors kept for the backward pass are those of at most ``views_at_once`` views and ``rays_at_once`` rays
        at a time (0: all). Raises UserError for images below 16 pixels.
        """
        lighting = draw_lighting(self.config.shading, cameras, progress, generator=generator)
        per_ray = background[:, None, :]
        if self.environment is not None:
            per_ray = self.environment.colours(camera_rays(cameras).directions).unflatten(0, (len(cameras), -1))
        elif self.config.background == "random":
            per_ray = torch.rand((len(cameras), 1, 3), generator=generator, device=self.device)
        return self._render(
            cameras,
            per_ray,
            lighting,
            with_normals=self.config.losses.needs_normals,
            generator=generator,
            rays_at_once=fewest(views_at_once * cameras.width * cameras.height, rays_at_once),
        )

    def _render(
        self,
        cameras: CameraBatch,
        background: Tensor,  # [B, 1 or H W, 3]
        lighting: Lighting | None,
        *,
        with_normals: bool,
        generator: torch.Generator | None,
        rays_at_once: int = 0,
    ) -> FieldRender:
        def values_at(points: Tensor, directions: Tensor) -> FieldValues:
            return self.field.values_at(points, with_normals=with_normals or lighting is not None)

        def lit(values: FieldValues, points: Tensor, views: Tensor) -> Tensor:
            assert lighting is not None and values.normals is not None
            return shade(self.config.shading, lighting, values.albedo, values.normals, points, views)

        renderer = FieldRenderer(
            sampling=self.config,
            occupied=self.occupancy.occupied(),
            density_of=self.field.density_of,
            values_at=values_at,
            backend=self.field.backend,
            shade=lit if lighting is not None else None,
        )
        return renderer.render(cameras, background, generator=generator, rays_at_once=rays_at_once)

    # ---- training ----

    def before_step(self, progress: float, generator: torch.Generator, *, num_steps: int) -> None:
        """Update levels and occupancy for a share ``progress`` of a run of ``num_steps``."""
        self.field.num_levels = self.field.levels_at(progress)
        every = self.config.occupancy_every
        if progress == 0.0:
            # No cell has been evaluated: fading from "occupied" would take longer than many runs.
            self.occupancy.refresh(self.field.density_of)
        elif self.steps_since_update == 0:
            self.occupancy.update(self.field.density_of, generator, run_share=every / num_steps)
        self.steps_since_update = (self.steps_since_update + 1) % every

    def finalize(self) -> None:
        """Turn on all levels, and recompute the occupancy grid, after the last step."""
        self.field.num_levels = self.config.grid.num_levels
        self.occupancy.refresh(self.field.density_of)

    def parameters(self) -> dict[str, Tensor]:
        """Return every trainable tensor by name."""
        own = {f"field.{name}": value for name, value in self.field.params.items()}
        if self.environment is not None:
            own |= {f"environment.{name}": value for name, value in self.environment.params.items()}
        return own

    def state(self) -> dict[str, Any]:
        """Return everything that rendering and the next step depend on, as nested dicts of tensors and numbers."""
        return {
            "params": {name: value.detach() for name, value in self.parameters().items()},
            "occupancy": self.occupancy.alphas,
            "num_levels": self.field.num_levels,
            "steps_since_update": self.steps_since_update,
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned.

        Raises UserError for the state of another representation or of a field of another size.
        """
        own, saved = self.parameters(), state.get("params", {})
        if {name: value.shape for name, value in saved.items()} != {name: value.shape for name, value in own.items()}:
            raise UserError(
                "the saved state is not that of a field of this size: resume with the settings and the "
                "representation it was made with"
            )
        for name, value in own.items():
            value.copy_(saved[name])
        self.occupancy.alphas = state["occupancy"].to(self.device)
        self.field.num_levels = int(state["num_levels"])
        self.steps_since_update = int(state["steps_since_update"])
