from viewer.bridge import *  # noqa: F403
