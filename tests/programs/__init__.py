"""Real programs under the shim: one module for each, and what they share (stage.py, table.py)."""
import importlib
import pkgutil

from . import stage

SHARED = ("stage", "table")


def load():
    """All cases, by name, in the order of their modules."""
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        if module not in SHARED:
            importlib.import_module(f"{__name__}.{module}")
    return stage.CASES
