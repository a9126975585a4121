from viewer.resolution import *  # noqa: F403
