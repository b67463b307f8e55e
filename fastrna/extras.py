"""Packages that come as extras, imported when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str, why: str) -> ModuleType:
    """Return a module of an extra.

    Parameters
    ----------
    module : str
        Its name.
    extra : str
        The extra of fastrna that it comes with.
    why : str
        What needs it, for the error.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If it is not installed.

    Examples
    --------
    >>> from fastrna.extras import require
    >>> require("json", "scipy", "This example needs JSON").loads("1")
    1
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{why}: pip install 'fastrna[{extra}]'.") from error
