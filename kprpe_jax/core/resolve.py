"""Objects by their path as text, so that tables of names import nothing."""

import importlib
from typing import Any


def resolve(path: str) -> Any:
    """Import "module:attribute", or "module:attribute.key" of a dict."""
    module, _, attribute = path.partition(":")
    attribute, _, key = attribute.partition(".")
    found = getattr(importlib.import_module(module), attribute)
    return found[key] if key else found
