"""Property tests without a time limit for each example: others may be using the machine."""

from hypothesis import settings

settings.register_profile("busy-machine", deadline=None)
settings.load_profile("busy-machine")
