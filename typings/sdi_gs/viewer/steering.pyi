from viewer.steering import *  # noqa: F403
