"""Packages that only some functions need: imported when called, with a sentence where they are not
installed.
"""

from importlib import import_module
from types import ModuleType


def require(package: str, extra: str = "notebooks") -> ModuleType:
    """The module `package`, imported now.

    Args:
        package: what to import, such as "captum.attr".
        extra: the optional part of this project that installs it.
    Raises:
        ImportError: if it is not installed; the message gives the command that installs it.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as missing:
        # something inside the package is broken: that is another matter
        if missing.name != package.partition(".")[0]:
            raise
        raise ImportError(
            f"this needs the package {missing.name}: from a clone, pip install -e '.[{extra}]'"
        ) from None
