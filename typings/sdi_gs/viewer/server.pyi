from viewer.server import *  # noqa: F403
