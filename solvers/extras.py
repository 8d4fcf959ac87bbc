"""Libraries that only exact solving needs: the extra ``hexopt[exact]``."""

from __future__ import annotations

import importlib
from typing import Any


class MissingExtraError(ImportError, ValueError):
    """A library of the extra is not there; the message says how to install it."""


def extra(module: str) -> Any:
    """The library ``module``.

    Raises
    ------
    MissingExtraError
        If it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"this solver needs {module} ({error}): pip install 'hexopt[exact]'") from error
