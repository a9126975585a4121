"""A dense grid of density and colour in a cube: values at points, rendering and state.

Between vertices all numbers are linear; density is a softplus of them, colour a sigmoid of spherical harmonics.

Letters: B views, H W pixels, P points, S vertices along a side, K harmonics.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import DensityField, cube
from sdi_gs.errors import UserError
from sdi_gs.rasterize.spherical_harmonics import harmonic_bases
from sdi_gs.representations.ngp.backends import Backend
from sdi_gs.representations.ngp.occupancy import OccupancyGrid
from sdi_gs.representations.ngp.rendering import FieldRender, FieldRenderer, FieldValues
from sdi_gs.settings.compute import fewest
from sdi_gs.settings.voxels import VoxelsConfig


class Voxels:
    """A voxel grid with its occupancy grid; ``params`` owns its tensors, density [S, S, S] and colour [3 K, S, S, S].

    Axes of the grid are z, y, x.
    """

    def __init__(self, config: VoxelsConfig, *, device: torch.device) -> None:
        self.config = config
        self._device = device
        side = config.resolutions[0]
        axis = torch.linspace(-config.radius, config.radius, side, device=device)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        distance = (x.square() + y.square() + z.square()).sqrt()
        channels = 3 * (config.sh_degree + 1) ** 2
        self.params = nn.ParameterDict(
            {
                "density": nn.Parameter(config.blob_scale * (1.0 - distance / config.blob_radius)),
                "colour": nn.Parameter(torch.zeros((channels, side, side, side), device=device)),
            }
        )
        self.occupancy = OccupancyGrid(config, device=device)
        self.steps_since_update = 0
        self.backend: Backend | None = None
        """Code that marches and blends; None to choose by device."""

    @property
    def device(self) -> torch.device:
        """Device of its tensors."""
        return self._device

    @property
    def resolution(self) -> int:
        """Vertices along a side now."""
        return len(self.params["density"])

    @property
    def num_points(self) -> int:
        """0: a grid is not made of splats."""
        return 0

    def describe(self) -> str:
        """Return its name and size."""
        return f"a voxel grid of {self.resolution}³"

    def splats(self) -> None:
        """Return None: a grid has no splats."""

    def density(self, *, resolution: int | None = None) -> DensityField:
        """Return density and albedo within the cube, the same at every resolution."""
        return DensityField(
            density_of=self.density_of, albedo_of=self.albedo_of, box=cube(self.config.radius), device=self.device
        )

    def detached_copy(self) -> Voxels:
        """Copy the grid as it is now."""
        copy = Voxels(self.config, device=self.device)
        copy.load_state(self.state())
        return copy

    # ---- values at points ----

    def density_of(
        self,
        points: Tensor,  # [P, 3] world
    ) -> Tensor:  # [P]
        """Return the density per scene unit; 0 outside the cube."""
        raw = self._interpolated(self.params["density"][None], points)[:, 0]
        return F.softplus(raw) * (points.detach().abs().amax(dim=-1) <= self.config.radius)

    def albedo_of(
        self,
        points: Tensor,  # [P, 3] world
    ) -> Tensor:  # [P, 3]
        """Return the colour in (0, 1), the mean over all directions of its logit."""
        return torch.sigmoid(self._interpolated(self.params["colour"][:3], points))

    def values_at(
        self,
        points: Tensor,  # [P, 3] world, inside the cube
        directions: Tensor,  # [P, 3] world, unit, from the camera
    ) -> FieldValues:
        """Return everything that a render needs, with one look-up."""
        grid = torch.cat([self.params["density"][None], self.params["colour"]])
        values = self._interpolated(grid, points)
        logits = values[:, 1:]
        if self.config.sh_degree > 0:
            bases = harmonic_bases(self.config.sh_degree, directions)
            # The constant counts as 1, so that a degree of 0 is plain colour.
            logits = torch.einsum("pk,pkc->pc", bases / bases[:, :1], logits.unflatten(1, (-1, 3)))
        return FieldValues(density=F.softplus(values[:, 0]), albedo=torch.sigmoid(logits), normals=None)

    def _interpolated(
        self,
        grid: Tensor,  # [C, S, S, S]
        points: Tensor,  # [P, 3] world
    ) -> Tensor:  # [P, C]
        places = (points / self.config.radius)[None, :, None, None]
        found = F.grid_sample(grid[None], places, align_corners=True, padding_mode="border")
        return found[0, :, :, 0, 0].T

    # ---- rendering ----

    def render(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        with_depth: bool = False,
    ) -> FieldRender:
        """Render over given colours with rays sampled at fixed places; depth is always included.

        Raises UserError for images below 16 pixels.
        """
        return self._renderer().render(cameras, background[:, None, :], generator=None)

    def render_for_training(
        self,
        cameras: CameraBatch,  # B of them
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        generator: torch.Generator,
        views_at_once: int = 0,
        rays_at_once: int = 0,
    ) -> FieldRender:
        """Render with jittered samples.

        The tensors kept for the backward pass are those of at most ``views_at_once`` views and ``rays_at_once`` rays
        at a time (0: all). Raises UserError for images below 16 pixels.
        """
        at_once = fewest(views_at_once * cameras.width * cameras.height, rays_at_once)
        return self._renderer().render(cameras, background[:, None, :], generator=generator, rays_at_once=at_once)

    def _renderer(self) -> FieldRenderer:
        return FieldRenderer(
            sampling=self.config,
            occupied=self.occupancy.occupied(),
            density_of=self.density_of,
            values_at=self.values_at,
            backend=self.backend,
        )

    # ---- training ----

    def before_step(self, progress: float, generator: torch.Generator, *, num_steps: int) -> None:
        """Update the occupancy for a share ``progress`` of a run of ``num_steps``."""
        every = self.config.occupancy_every
        if progress == 0.0:
            self.occupancy.refresh(self.density_of)
        elif self.steps_since_update == 0:
            self.occupancy.update(self.density_of, generator, run_share=every / num_steps)
        self.steps_since_update = (self.steps_since_update + 1) % every

    def state(self) -> dict[str, Any]:
        """Return everything that rendering and the next step depend on, as nested dicts of tensors and numbers."""
        return {
            "params": {name: value.detach() for name, value in self.params.items()},
            "occupancy": self.occupancy.alphas,
            "steps_since_update": self.steps_since_update,
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` returned, at its resolution; the parameters are new tensors if that differs.

        Raises UserError for the state of another representation or of a grid of another kind.
        """
        saved, own = state.get("params", {}), self.params
        channels = own["colour"].shape[0]
        side = len(saved.get("density", ()))
        shapes = {"density": (side,) * 3, "colour": (channels, side, side, side)}
        if {name: tuple(value.shape) for name, value in saved.items()} != shapes:
            raise UserError(
                "the saved state is not that of a voxel grid of this kind: resume with the settings and the "
                "representation it was made with"
            )
        for name, value in saved.items():
            if own[name].shape == value.shape:
                own[name].copy_(value)
            else:
                own[name] = nn.Parameter(value.to(self.device, copy=True))
        self.occupancy.alphas = state["occupancy"].to(self.device)
        self.steps_since_update = int(state["steps_since_update"])


def resampled(
    grid: Tensor,  # [S, S, S] or [C, S, S, S]
    side: int,
) -> Tensor:  # the same with ``side`` vertices along an axis
    """Return a grid with more vertices and the same corners, linear between the old ones."""
    channels = grid.reshape(1, -1, *grid.shape[-3:])
    found = F.interpolate(channels, size=(side,) * 3, mode="trilinear", align_corners=True)
    return found.reshape(*grid.shape[:-3], side, side, side)
