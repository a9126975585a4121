from viewer.guard import *  # noqa: F403
