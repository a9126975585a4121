from viewer.pictures import *  # noqa: F403
