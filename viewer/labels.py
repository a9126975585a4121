"""Names on the page, for the page itself and for tests in a browser; settings have theirs in ``STEERED_*``."""

from __future__ import annotations

from typing import Literal, get_args

Picture = Literal["splats", "render"]
PICTURES: tuple[Picture, ...] = get_args(Picture)
Mode = Literal["rgb", "depth", "normal", "alpha", "denoised target"]
MODES: tuple[Mode, ...] = get_args(Mode)
Side = Literal["front", "side", "back", "top"]
SIDES: tuple[Side, ...] = get_args(Side)

TITLE = "sdi-gs"

PICTURE = "Picture"
MODE = "Mode"
BACKGROUND = "Background"
LOOK_FROM = "Look from"
RESET_CAMERA = "Reset camera"
SPLATS_NOTE = "**splats**: preview by your browser"
RENDER_NOTE = "**render**: what training sees"
VIEWING_RENDER_NOTE = "**render**: our rasteriser"
NO_SPLATS_NOTE = "**render**: pictures that this machine makes; this scene has no splats for your browser to draw"

PAUSE = "Pause"
RESUME = "Resume"
STEP_ONCE = "One step"
STOP_AND_SAVE = "Stop and save"
TRAINING_SHARE = "Training's share"
MORE_STEPS = "More steps"
TRAIN_ON = "Train on"
ENDED_NOTE = "Training has ended, so these controls are off."
TRAIN_ON_NOTE = "*Train on* takes more steps of the same run, with timestep and learning rates as they ended."

APPLY = "Apply from the next step"

SPLAT_SCALE = "Splat scale"
CROP = "Crop to a box"
CROP_MIN = "Box from"
CROP_MAX = "Box to"
SHOW_CAMERAS = "Training cameras"

DOWNLOAD_PLY = "Download .ply"
DOWNLOAD_HTML = "Download HTML snapshot"
SCREENSHOT = "Screenshot"

FOLDER_VIEW = "View"
FOLDER_TRAINING = "Training"
FOLDER_STEERING = "Steering"
FOLDER_SCENE = "Scene"
FOLDER_PLOTS = "Plots"
FOLDER_TAKE_AWAY = "Take away"

PLOT_LOSS = "loss"
PLOT_TIMESTEP = "t"
PLOT_COUNT = "Gaussians"
PLOT_RATE = "steps/s"

SPLATS_NODE = "/splats"
CAMERAS_NODE = "/training_cameras"
"""Its children are numbered: /training_cameras/0 and so on."""

ENDED_TITLE = "The server has ended"
APPLIED_TITLE = "Applied"
REJECTED_TITLE = "Not applied"
ERROR_TITLE = "The viewer met an error"
