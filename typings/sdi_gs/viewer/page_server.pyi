from viewer.page_server import *  # noqa: F403
