from viewer.render_worker import *  # noqa: F403
