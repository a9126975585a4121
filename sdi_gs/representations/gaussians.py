"""3D Gaussians in gsplat's conventions: parameters, their optimisers, and rendering.

Stored values are raw: log scales, logit opacities, unnormalised wxyz quaternions and the degree-0 spherical
harmonic ``sh0``, so that an export is a copy.

Letters: B cameras, N Gaussians, H W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import DensityField, RenderOutput
from sdi_gs.errors import UserError
from sdi_gs.rasterize import rasterization
from sdi_gs.representations.adam import RunAdam
from sdi_gs.representations.optimizers import Optimizers
from sdi_gs.settings.gaussians import GaussiansConfig
from sdi_gs.splats.splat_cloud import SplatCloud

SH_C0 = 0.28209479177387814
"""Value of the constant spherical harmonic, 1 / (2 sqrt(pi))."""


class Gaussians:
    """N Gaussians; ``params`` is the only owner of its tensors, since densification replaces them."""

    def __init__(self, params: dict[str, Tensor]) -> None:
        _require_shapes(params)
        self.params = nn.ParameterDict({name: nn.Parameter(value) for name, value in params.items()})

    def __len__(self) -> int:
        return len(self.params["means"])

    @property
    def device(self) -> torch.device:
        """Device of its tensors."""
        return self.params["means"].device

    @property
    def num_points(self) -> int:
        """N."""
        return len(self)

    def describe(self) -> str:
        """Return "N Gaussians"."""
        return f"{len(self)} Gaussians"

    def detached_copy(self) -> Gaussians:
        """Copy the Gaussians as they are now."""
        return Gaussians({name: value.detach().clone() for name, value in self.params.items()})

    def splats(self) -> SplatCloud:
        """Return the same raw values, detached and not copied."""
        params = {name: value.detach() for name, value in self.params.items()}
        means = params["means"]
        return SplatCloud(
            means=means,
            log_scales=params["scales"],
            quats=params["quats"],
            opacity_logit=params["opacities"],
            sh_dc=params["sh0"][:, 0],
            sh_rest=params.get("shN", means.new_zeros(len(means), 0, 3)),
        )

    def density(self, *, resolution: int | None = None) -> DensityField:
        """Return the Gaussians as a medium (``sdi_gs.representations.gaussian_density``).

        Raises UserError if no Gaussian is visible.
        """
        # Compiles numba kernels.
        from sdi_gs.representations.gaussian_density import density_field

        return density_field(self, resolution=resolution)

    def sh_coefficients(self) -> Tensor:  # [N, K, 3]
        """Return the spherical harmonics of the colours, the constant one first."""
        rest = self.params.get("shN")
        return self.params["sh0"] if rest is None else torch.cat([self.params["sh0"], rest], dim=1)

    def render(
        self,
        cameras: CameraBatch,
        background: Tensor,  # [B, 3] in [0, 1]
        *,
        with_depth: bool = False,
    ) -> RenderOutput:
        """Rasterise all cameras; ``meta`` carries the screen-space means whose gradients densification reads."""
        coefficients = self.sh_coefficients()
        view_dependent = coefficients.shape[1] > 1
        # gsplat's own rule for spherical harmonics, without its per-camera copy where there is only one colour.
        constant = torch.clamp_min(0.5 + SH_C0 * coefficients[:, 0], 0.0)
        colours, alpha, meta = rasterization(
            means=self.params["means"],
            quats=self.params["quats"],
            scales=torch.exp(self.params["scales"]),
            opacities=torch.sigmoid(self.params["opacities"]),
            colors=coefficients if view_dependent else constant,
            sh_degree=math.isqrt(coefficients.shape[1]) - 1 if view_dependent else None,
            viewmats=cameras.camera_from_world,
            Ks=cameras.intrinsics,
            width=cameras.width,
            height=cameras.height,
            packed=False,
            render_mode="RGB+ED" if with_depth else "RGB",
        )
        # Composited here and not in the rasteriser, whose background would touch the depth channel.
        rgb = colours[..., :3] + (1.0 - alpha) * background[:, None, None, :]
        return RenderOutput(rgb=rgb, alpha=alpha, depth=colours[..., 3:] if with_depth else None, meta=meta)


def gaussians_from_splats(cloud: SplatCloud, *, device: torch.device | str = "cpu") -> Gaussians:
    """Return Gaussians that render the splats of a file."""
    params = {
        "means": cloud.means,
        "scales": cloud.log_scales,
        "quats": cloud.quats,
        "opacities": cloud.opacity_logit,
        "sh0": cloud.sh_dc[:, None],
    }
    if cloud.sh_rest.shape[1]:
        params["shN"] = cloud.sh_rest
    return Gaussians({name: value.to(device, torch.float32) for name, value in params.items()})


def _require_shapes(params: dict[str, Tensor]) -> None:
    """Raise UserError that names the tensor whose shape does not fit the others."""
    if "means" not in params:
        raise UserError(f"a cloud of Gaussians needs means [N, 3]; there are only {', '.join(params) or 'no tensors'}")
    count = len(params["means"])
    expected = {"means": (count, 3), "scales": (count, 3), "quats": (count, 4), "opacities": (count,)}
    expected["sh0"] = (count, 1, 3)
    for name, shape in expected.items():
        found = tuple(params[name].shape) if name in params else "nothing"
        if found != shape:
            raise UserError(f"{name} has the wrong shape: expected {shape}, found {found}; means have {count} rows")
    rest = params.get("shN")
    if rest is not None and (rest.dim() != 3 or rest.shape[0] != count or rest.shape[2] != 3):
        raise UserError(f"shN has the wrong shape: expected ({count}, K, 3), found {tuple(rest.shape)}")


def gaussian_optimizers(gaussians: Gaussians, config: GaussiansConfig, *, fused: bool = False) -> Optimizers:
    """Return one Adam per parameter, as gsplat's strategies require; ``fused`` updates each in one kernel."""
    return {
        name: RunAdam(
            [{"params": [parameter], "lr": getattr(config, f"{name}_lr")}],
            eps=1e-15,
            betas=config.adam_betas,
            # Not False, which would rule out torch's own choice for the device.
            fused=fused or None,
        )
        for name, parameter in gaussians.params.items()
    }


def set_learning_rates(
    optimizers: Optimizers, config: GaussiansConfig, progress: float, *, factor: float = 1.0
) -> None:
    """Set the learning rates of optimisers made by ``gaussian_optimizers`` to those of a share of the run, scaled."""
    for name, optimizer in optimizers.items():
        optimizer.param_groups[0]["lr"] = factor * learning_rate(config, name, progress)


def learning_rate(config: GaussiansConfig, name: str, progress: float) -> float:
    """Return a parameter's learning rate at a share of the run, exponential from its first to its last."""
    first, last = getattr(config, f"{name}_lr"), getattr(config, f"{name}_lr_final")
    return first if last is None else first * (last / first) ** progress
