"""The command line: thin. Every command calls one function of the package and prints what it
returns.
"""

from .commands import main

__all__ = ["main"]
