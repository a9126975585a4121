"""``sdi-gs view``: a finished scene in a browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sdi_gs.commands.common import LOCAL_HOST, PORTS, VIEWER_PORT, pick_device, print_address
from sdi_gs.console import say
from sdi_gs.settings.bounds import check_settings
from sdi_gs.settings.cameras import LookConfig
from sdi_gs.settings.frames import Frame


@dataclass(frozen=True, kw_only=True)
class View:
    """Show an object in a browser until Ctrl-C."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|FILE")]
    """A run folder (its latest checkpoint is shown), a checkpoint, or a splat file."""
    host: str = LOCAL_HOST
    """Address to listen on; 0.0.0.0 lets every machine in, without a password."""
    port: Annotated[int, PORTS] = VIEWER_PORT
    """Port to listen on, or the next free one; 0 for any."""
    viewer_origin: tuple[str, ...] = ()
    """Names of sites whose pages may use the viewer, such as a proxy's: my-box.example.org (docs/viewer.md)."""
    camera: LookConfig = LookConfig()
    frame: Frame = "viewer"
    """Axes that a file has: those of splat viewers, or those of training."""
    device: str | None = None
    """Where to render: cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        check_settings(self)


def view(options: View) -> int:
    """Serve the page of a scene until Ctrl-C."""
    from sdi_gs.runs.interrupts import Interrupts
    from sdi_gs.runs.loading import load
    from sdi_gs.runs.showing import framing_of, shown_scene
    from sdi_gs.viewer.server import FinishedViewer

    device = pick_device(options.device)
    scene = load(options.source, device=device, frame=options.frame)
    framing, _ = framing_of(scene, options.camera)
    # The page's cameras are a file's own; what ``render`` would remark holds for them too.
    for remark in shown_scene(scene, options.camera).remarks:
        say(remark)
    viewer_of_scene = FinishedViewer(
        scene, framing, host=options.host, port=options.port, origins=options.viewer_origin, device=device
    )
    with Interrupts("closing the viewer") as interrupts, viewer_of_scene as viewer:
        print_address(viewer.address)
        viewer.serve_until(lambda: interrupts.requested)
    return 0
