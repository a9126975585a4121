from viewer.standpoint import *  # noqa: F403
