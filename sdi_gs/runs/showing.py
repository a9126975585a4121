"""What ``render``, ``view`` and ``eval`` show of a saved scene, and from where."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sdi_gs.contracts import Representation
from sdi_gs.pictures.framing import Framing, framing_of_cloud, in_sight_of, looked_at, training_framing
from sdi_gs.pictures.views import shows_nothing
from sdi_gs.representations.gaussians import gaussians_from_splats
from sdi_gs.runs.loading import SavedScene
from sdi_gs.settings.cameras import CameraConfig, LookConfig

OPTIONS = "--camera.look-at and --camera.distance"


@dataclass(frozen=True, kw_only=True)
class ShownScene:
    """A representation and the cameras' sphere that shows it."""

    representation: Representation
    framing: Framing
    remarks: tuple[str, ...] = ()
    """Lines about cameras that are not the usual ones, and about an empty sight."""


def framing_of(scene: SavedScene, look: LookConfig) -> tuple[Framing, tuple[str, ...]]:
    """Return from where a scene is seen, and lines for the user; a file that training would not see is fitted."""
    if scene.run is not None:
        return looked_at(training_framing(scene.run.config.cameras), look), ()
    usual = training_framing(CameraConfig())
    fitted = framing_of_cloud(scene.splats(), usual)
    framing = looked_at(fitted, look)
    if fitted == usual or (look.look_at is not None and look.distance is not None):
        return framing, ()
    return framing, (
        f"{scene.path} does not fill the training cameras' sight: it is seen {_from(framing)} ({OPTIONS} change it)",
    )


def shown_scene(scene: SavedScene, look: LookConfig) -> ShownScene:
    """Return a scene as it is shown.

    A file that the usual cameras would not show well is moved and scaled into their sight, so that their near plane,
    and scores against truth, hold for any size and place.
    """
    framing, remarks = framing_of(scene, look)
    representation = scene.representation
    if scene.run is None:
        usual = replace(training_framing(CameraConfig()), fov_y_deg=framing.fov_y_deg)
        if framing != usual:
            moved = in_sight_of(scene.splats(), framing, usual)
            representation = gaussians_from_splats(moved, device=representation.device)
        shown = usual
    else:
        shown = framing
    if shows_nothing(representation, shown):
        remarks += (f"nothing of {scene.path} is in sight {_from(framing)}: {OPTIONS} move the cameras",)
    return ShownScene(representation=representation, framing=shown, remarks=remarks)


def _from(framing: Framing) -> str:
    x, y, z = framing.middle
    return f"from distance {framing.distance:.4g}, looking at {x:.4g} {y:.4g} {z:.4g}"
