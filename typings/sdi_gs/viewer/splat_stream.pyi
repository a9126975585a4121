from viewer.splat_stream import *  # noqa: F403
