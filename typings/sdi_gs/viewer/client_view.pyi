from viewer.client_view import *  # noqa: F403
