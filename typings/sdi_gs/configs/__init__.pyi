from configs import *  # noqa: F403
