"""The cases of surface.py, by what they call."""
from . import beginnings, data, ends, memory, options, sandboxes, streams, waits    # noqa: F401
from .cases import CASES                                                      # noqa: F401
