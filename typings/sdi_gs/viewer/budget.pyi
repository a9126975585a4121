from viewer.budget import *  # noqa: F403
