from configs.presets import *  # noqa: F403
