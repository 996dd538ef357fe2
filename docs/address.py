"""The project's address, in one place: `python docs/address.py https://github.com/NAME/catchup`.

The address stands in pyproject.toml under `[project.urls]`; this script writes the one given there
and replaces the old one wherever it is shown.
"""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOKS = tuple(f"notebooks/{path.name}" for path in sorted(ROOT.glob("notebooks/*.ipynb")))
SHOWN = ("pyproject.toml", "README.md", "CITATION.cff", "docs/howto.md", *NOTEBOOKS)
# before OWNER/NAME where a notebook can be opened elsewhere
ELSEWHERE = ("https://colab.research.google.com/github/", "https://mybinder.org/v2/gh/")


def read_address() -> str:
    """The address in pyproject.toml."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    return urls["Repository"]


def move(address: str) -> None:
    """Writes another address in place of today's, in every file that shows it, and in the links
    that open a notebook in Colab or Binder, which know projects on GitHub.

    Args:
        address: of a repository that git can clone, `https://…`, no slash at its end.
    Raises:
        ValueError: for anything else; nothing is written.
    """
    if not address.startswith("https://") or address.endswith("/") or len(address.split()) != 1:
        raise ValueError(
            f"an address is https://HOST/OWNER/NAME, no slash at its end; got {address!r}"
        )
    old = read_address()
    for name in SHOWN:
        path = ROOT / name
        text = path.read_text().replace(old, address)
        for place in ELSEWHERE:
            text = text.replace(place + _project(old) + "/", place + _project(address) + "/")
        path.write_text(text)


def _project(address: str) -> str:
    """OWNER/NAME of an address."""
    return address.split("/", 3)[3]


if __name__ == "__main__":
    move(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__)
