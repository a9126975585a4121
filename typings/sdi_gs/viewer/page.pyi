from viewer.page import *  # noqa: F403
