from viewer.downloads import *  # noqa: F403
