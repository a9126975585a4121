"""Pinhole cameras around the origin, and the view words (front, side, back) that name their positions.

World frame: z up, the object's front looks along +x. Azimuth 0 is in front of the object and grows towards +y,
elevation is the angle above the xy plane (threestudio's convention). Camera frame: OpenCV (x right, y down,
z forward), so that ``viewmat = inverse(world_from_camera)`` goes straight into gsplat.

Letters: B cameras, H W pixels, R rays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.settings.cameras import CameraConfig, ElevationLaw, JitterConfig

ViewWord = Literal["front view", "side view", "back view", "overhead view"]
VIEW_WORDS: tuple[ViewWord, ...] = get_args(ViewWord)

# Thresholds in degrees of threestudio's prompt processor.
FRONT_HALF_ANGLE_DEG = 45.0
BACK_HALF_ANGLE_DEG = 45.0
OVERHEAD_ELEVATION_DEG = 60.0
# Below it, every word names a quarter of the circle (the side two of them), around a multiple of this.
WORD_SECTOR_DEG = 90.0


def wrap_degrees(angle_deg: float) -> float:
    """Bring an angle into [-180, 180) degrees."""
    return (angle_deg + 180.0) % 360.0 - 180.0


def view_word(azimuth_deg: float, elevation_deg: float) -> ViewWord:
    """Name the side of the object that a camera sees (threestudio's thresholds)."""
    if elevation_deg > OVERHEAD_ELEVATION_DEG:
        return "overhead view"
    turn = abs(wrap_degrees(azimuth_deg))
    if turn < FRONT_HALF_ANGLE_DEG:
        return "front view"
    if turn > 180.0 - BACK_HALF_ANGLE_DEG:
        return "back view"
    return "side view"


@dataclass(frozen=True, kw_only=True)
class CameraBatch:
    """B pinhole cameras that share an image size."""

    world_from_camera: Tensor  # [B, 4, 4] rigid, OpenCV camera axes
    intrinsics: Tensor  # [B, 3, 3] pixels
    azimuth_deg: Tensor  # [B]
    elevation_deg: Tensor  # [B]
    width: int
    height: int

    def __len__(self) -> int:
        return self.world_from_camera.shape[0]

    @property
    def camera_from_world(self) -> Tensor:  # [B, 4, 4]
        """Return the view matrices that gsplat takes."""
        rotation = self.world_from_camera[:, :3, :3].transpose(1, 2)
        translation = -rotation @ self.world_from_camera[:, :3, 3:]
        view = torch.zeros_like(self.world_from_camera)
        view[:, :3, :3] = rotation
        view[:, :3, 3:] = translation
        view[:, 3, 3] = 1.0
        return view

    def view_words(self) -> list[ViewWord]:
        """Return one view word per camera."""
        return [
            view_word(azimuth, elevation)
            for azimuth, elevation in zip(self.azimuth_deg.tolist(), self.elevation_deg.tolist(), strict=True)
        ]

    def to(self, device: torch.device | str) -> CameraBatch:
        """Return the cameras on another device; the copy to a GPU does not wait for its pending work."""
        unawaited = torch.device(device).type != "cpu"
        return self._each(lambda values: values.to(device, non_blocking=unawaited))

    def repeated(self, times: int) -> CameraBatch:
        """Repeat the whole batch several times."""
        return self._each(lambda tensor: tensor.repeat(times, *[1] * (tensor.ndim - 1)))

    def moved(self, by: tuple[float, float, float]) -> CameraBatch:
        """Return the cameras at other places, with the same directions; ``by`` in scene units."""
        poses = self.world_from_camera.clone()
        poses[:, :3, 3] += torch.tensor(by, dtype=poses.dtype, device=poses.device)
        return replace(self, world_from_camera=poses)

    def of_size(self, side: int) -> CameraBatch:
        """Return the same views in square pictures of a side; themselves if that is theirs."""
        if (self.width, self.height) == (side, side):
            return self
        scale = torch.tensor(
            [side / self.width, side / self.height, 1.0], dtype=self.intrinsics.dtype, device=self.intrinsics.device
        )
        return replace(self, intrinsics=self.intrinsics * scale[:, None], width=side, height=side)

    def rows(self, chosen: slice) -> CameraBatch:
        """Return some of the cameras."""
        return self._each(lambda values: values[chosen])

    def _each(self, change: Callable[[Tensor], Tensor]) -> CameraBatch:
        return CameraBatch(
            world_from_camera=change(self.world_from_camera),
            intrinsics=change(self.intrinsics),
            azimuth_deg=change(self.azimuth_deg),
            elevation_deg=change(self.elevation_deg),
            width=self.width,
            height=self.height,
        )


def joined_cameras(batches: Sequence[CameraBatch]) -> CameraBatch:
    """Return the cameras of all batches in order; raises ValueError if their image sizes differ."""
    sizes = {(cameras.width, cameras.height) for cameras in batches}
    if len(sizes) != 1:
        raise ValueError(f"cameras of one batch share an image size, got {sorted(sizes)}")
    width, height = sizes.pop()
    return CameraBatch(
        world_from_camera=torch.cat([cameras.world_from_camera for cameras in batches]),
        intrinsics=torch.cat([cameras.intrinsics for cameras in batches]),
        azimuth_deg=torch.cat([cameras.azimuth_deg for cameras in batches]),
        elevation_deg=torch.cat([cameras.elevation_deg for cameras in batches]),
        width=width,
        height=height,
    )


def orbit_cameras(
    azimuth_deg: Tensor,  # [B]
    elevation_deg: Tensor,  # [B]
    distance: Tensor,  # [B] scene units
    fov_y_deg: Tensor,  # [B] vertical field of view
    *,
    width: int,
    height: int,
) -> CameraBatch:
    """Return cameras that look at the origin, world z up; at the poles, up is horizontal and away from the front."""
    azimuth, elevation = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    outward = torch.stack([elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1)
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], dim=-1)
    forward = -outward
    down = torch.linalg.cross(forward, right)
    world_from_camera = torch.zeros(len(azimuth), 4, 4, dtype=azimuth.dtype, device=azimuth.device)
    world_from_camera[:, :3, :3] = torch.stack([right, down, forward], dim=-1)
    world_from_camera[:, :3, 3] = outward * distance[:, None]
    world_from_camera[:, 3, 3] = 1.0
    focal = 0.5 * height / torch.tan(0.5 * torch.deg2rad(fov_y_deg))
    intrinsics = torch.zeros(len(azimuth), 3, 3, dtype=azimuth.dtype, device=azimuth.device)
    intrinsics[:, 0, 0] = focal
    intrinsics[:, 1, 1] = focal
    intrinsics[:, 0, 2] = 0.5 * width
    intrinsics[:, 1, 2] = 0.5 * height
    intrinsics[:, 2, 2] = 1.0
    return CameraBatch(
        world_from_camera=world_from_camera,
        intrinsics=intrinsics,
        azimuth_deg=azimuth_deg,
        elevation_deg=elevation_deg,
        width=width,
        height=height,
    )


def sample_cameras(
    config: CameraConfig,
    count: int,
    *,
    width: int,
    height: int,
    generator: torch.Generator,
    progress: float = 1.0,
) -> CameraBatch:
    """Draw random cameras with stratified azimuths: one per equal sector, all sectors rotated by a random angle.

    The cameras of a group (``views_per_group``) are neighbours in the batch, at equal turns around the object and at
    one elevation, distance and field of view; the first of each group are stratified over the turn between two of its
    cameras. Antithetic cameras are neighbours in the batch that face each other; the first of each pair are stratified
    over half a turn. Raises UserError if their number is odd, or no whole number of groups. ``progress`` is the
    finished share of the run: before ``word_spread_until`` azimuths keep to the middles of their view words.
    """
    size = config.views_per_group
    if count % size:
        raise UserError(f"these cameras come in groups of {size}, so {count} views do not go: use a multiple of {size}")
    if config.antithetic and count % 2:
        raise UserError(f"antithetic cameras come in pairs, so {count} views do not go: use an even number")

    groups = count // size

    def uniform(bounds: tuple[float, float]) -> Tensor:
        low, high = bounds
        return (low + (high - low) * torch.rand(groups, generator=generator)).repeat_interleave(size)

    turn = torch.rand((), generator=generator)
    sectors = groups // 2 if config.antithetic else groups
    strata = (torch.arange(sectors) + torch.rand(sectors, generator=generator)) / sectors
    if config.antithetic:
        strata = torch.stack([0.5 * strata, 0.5 * strata + 0.5], dim=1).flatten()
    azimuth = 360.0 * ((strata + turn)[:, None] / size + torch.arange(size) / size).flatten()
    if progress < config.word_spread_until:
        grown = progress / config.word_spread_until
        azimuth = towards_word_middles(azimuth, config.word_spread + (1.0 - config.word_spread) * grown)
    elevation = draw_elevations(config.elevation_deg, config.elevation_law, groups, generator).repeat_interleave(size)
    distance, fov = uniform(config.distance), uniform(config.fov_y_deg)
    if config.relative_distance:
        distance = distance / torch.tan(0.5 * torch.deg2rad(fov))
    cameras = orbit_cameras(
        azimuth % 360.0,
        elevation,
        distance,
        fov,
        width=width,
        height=height,
    )
    return cameras if config.jitter == JitterConfig() else jittered(cameras, config.jitter, generator)


def draw_elevations(
    bounds: tuple[float, float], law: ElevationLaw, count: int, generator: torch.Generator
) -> Tensor:  # [count] degrees
    """Draw the elevations of a step's cameras between ``bounds``, degrees.

    threestudio tosses a coin for all of them: even draws by angle, or the arcsine of even draws, whose ends are however
    those of the angles as shares of half a turn, so that they miss the outer part of the range.
    """
    low, high = bounds
    if law == "threestudio" and torch.rand((), generator=generator) >= 0.5:
        lowest, highest = (low + 90.0) / 180.0, (high + 90.0) / 180.0
        shares = lowest + (highest - lowest) * torch.rand(count, generator=generator)
        return torch.rad2deg(torch.asin(2.0 * shares - 1.0))
    return low + (high - low) * torch.rand(count, generator=generator)


def jittered(cameras: CameraBatch, jitter: JitterConfig, generator: torch.Generator) -> CameraBatch:
    """Return the cameras at shifted places, towards points near the origin, and slightly tilted (threestudio).

    Their angles stay those before the shift, by which prompts name the view; ``generator`` is on the host.
    """
    poses, count = cameras.world_from_camera.clone(), len(cameras)
    position = poses[:, :3, 3] + jitter.position * (2.0 * torch.rand(count, 3, generator=generator) - 1.0)
    target = jitter.look_at * torch.randn(count, 3, generator=generator)
    up = torch.tensor([0.0, 0.0, 1.0]) + jitter.up * torch.randn(count, 3, generator=generator)
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    poses[:, :3] = torch.stack([right, down, forward, position], dim=-1)
    return replace(cameras, world_from_camera=poses)


def towards_word_middles(
    azimuth_deg: Tensor,  # [B]
    spread: float,
) -> Tensor:  # [B] degrees
    """Return azimuths with their distances from the nearest of 0, 90, 180 and 270 degrees scaled by ``spread``."""
    middle = WORD_SECTOR_DEG * (azimuth_deg / WORD_SECTOR_DEG).round()
    return middle + spread * (azimuth_deg - middle)


@dataclass(frozen=True, kw_only=True)
class Rays:
    """Half-lines through the centres of pixels, camera by camera and row by row."""

    origins: Tensor  # [R, 3] world
    directions: Tensor  # [R, 3] world, unit
    cosines: Tensor  # [R] between the ray and the camera's axis: z depth per distance

    def __len__(self) -> int:
        return len(self.origins)

    def part(self, begin: int, end: int) -> Rays:
        """Return rays ``begin`` to ``end``."""
        chosen = slice(begin, end)
        return Rays(origins=self.origins[chosen], directions=self.directions[chosen], cosines=self.cosines[chosen])


def camera_rays(cameras: CameraBatch) -> Rays:
    """Return one ray per pixel, R = B H W; ``origins.view(B, H, W, 3)`` are those of the images."""
    device, dtype = cameras.intrinsics.device, cameras.intrinsics.dtype
    columns = torch.arange(cameras.width, device=device, dtype=dtype) + 0.5
    rows = torch.arange(cameras.height, device=device, dtype=dtype) + 0.5
    focal_x, focal_y = cameras.intrinsics[:, 0, 0, None], cameras.intrinsics[:, 1, 1, None]
    center_x, center_y = cameras.intrinsics[:, 0, 2, None], cameras.intrinsics[:, 1, 2, None]
    shape = (len(cameras), cameras.height, cameras.width)
    x = ((columns - center_x) / focal_x)[:, None, :].expand(shape)
    y = ((rows - center_y) / focal_y)[:, :, None].expand(shape)
    in_camera = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    lengths = in_camera.norm(dim=-1, keepdim=True)
    directions = torch.einsum("bij,bhwj->bhwi", cameras.world_from_camera[:, :3, :3], in_camera / lengths)
    origins = cameras.world_from_camera[:, None, None, :3, 3].expand(*shape, 3)
    return Rays(
        origins=origins.reshape(-1, 3), directions=directions.reshape(-1, 3), cosines=(1.0 / lengths).reshape(-1)
    )
