from viewer.scene import *  # noqa: F403
