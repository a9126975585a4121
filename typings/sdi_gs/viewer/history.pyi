from viewer.history import *  # noqa: F403
