from viewer.labels import *  # noqa: F403
