from viewer import *  # noqa: F403
