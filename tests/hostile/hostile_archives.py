"""Hostile and broken archives: a function from a path to the file there, and what is said of it.

Beside these, `test_archives.py` has downloads, checksums and a full disk. `test_hostile.py` runs
them.
"""

import io
import tarfile
import zipfile
from pathlib import Path

from hostile import HTML, LFS, noise

GOOD = ("set/a.txt", b"one")


def tar(path: Path, *entries, mode: str = "w:gz") -> Path:
    """A tar archive of (name, content) or of TarInfo; content None is a folder."""
    with tarfile.open(path, mode) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.type, info.mode = (
                (tarfile.DIRTYPE, 0o755) if entry[1] is None else (tarfile.REGTYPE, 0o644)
            )
            info.size = len(entry[1] or b"")
            archive.addfile(info, io.BytesIO(entry[1] or b""))
    return path


def zipped(path: Path, *entries) -> Path:
    """A zip archive of (name or ZipInfo, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def special(name: str, kind: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, linkname
    return info


def link_in_zip() -> tuple[zipfile.ZipInfo, str]:
    info = zipfile.ZipInfo("set/link")
    info.external_attr = 0o120777 << 16
    return info, "/etc/hostname"


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def locked_zip(path: Path) -> Path:
    """A zip archive whose member says that it is encrypted."""
    content = bytearray(zipped(path, GOOD).read_bytes())
    for place in (content.find(b"PK\x03\x04") + 6, content.find(b"PK\x01\x02") + 8):
        content[place] |= 1
    return written(path, bytes(content))


def two_names_zip(path: Path) -> Path:
    """A zip archive whose member is called otherwise in the list than where it lies."""
    content = zipped(path, ("set/a.txt", b"one")).read_bytes()
    first = content.find(b"set/a.txt")
    return written(path, content[:first] + b"../../etc" + content[first + 9 :])


ARCHIVES = {  # name: (how it is made, what is said)
    "up and out": (
        lambda path: tar(path, GOOD, ("../evil.txt", b"x")),
        r"'\.\./evil.txt' would land outside",
    ),
    "in, up and out": (
        lambda path: tar(path, GOOD, ("set/../../evil.txt", b"x")),
        "would land outside",
    ),
    "an absolute path": (
        lambda path: tar(path, GOOD, ("/evil.txt", b"x")),
        "'/evil.txt' would land outside",
    ),
    "a path of Windows": (
        lambda path: tar(path, GOOD, ("C:\\evil.txt", b"x")),
        "would land outside",
    ),
    "a link to a file elsewhere": (
        lambda path: tar(path, GOOD, special("set/link", tarfile.SYMTYPE, "/etc/hostname")),
        "link to '/etc/hostname'",
    ),
    "a link up and out": (
        lambda path: tar(path, GOOD, special("set/link", tarfile.SYMTYPE, "../../evil")),
        r"link to '\.\./\.\./evil'",
    ),
    "a hard link out": (
        lambda path: tar(path, GOOD, special("set/link", tarfile.LNKTYPE, "../evil")),
        r"a link to '\.\./evil'",
    ),
    "a pipe": (
        lambda path: tar(path, GOOD, special("set/pipe", tarfile.FIFOTYPE)),
        "'set/pipe' is something special",
    ),
    "a disk": (
        lambda path: tar(path, GOOD, special("set/disk", tarfile.BLKTYPE)),
        "'set/disk' is something special",
    ),
    "a device": (
        lambda path: tar(path, GOOD, special("set/tty", tarfile.CHRTYPE)),
        "'set/tty' is something special",
    ),
    "a member twice": (lambda path: tar(path, GOOD, GOOD), "'set/a.txt' stands in it twice"),
    "a member twice, written otherwise": (
        lambda path: tar(path, GOOD, ("set/./a.txt", b"other")),
        "stands in it twice",
    ),
    "a file that is a folder": (
        lambda path: tar(path, ("set", b"x"), GOOD),
        "'set' is a file and a folder",
    ),
    "folders without files": (lambda path: tar(path, ("set", None)), "holds no files"),
    "nothing in it": (lambda path: tar(path), "holds no files"),
    "zip: up and out": (
        lambda path: zipped(path, GOOD, ("../evil.txt", b"x")),
        r"'\.\./evil.txt' would land outside",
    ),
    "zip: an absolute path": (
        lambda path: zipped(path, GOOD, ("/evil.txt", b"x")),
        "'/evil.txt' would land outside",
    ),
    "zip: a link": (lambda path: zipped(path, GOOD, link_in_zip()), "'set/link' is a link"),
    "zip: encrypted": (locked_zip, "'set/a.txt' is encrypted"),
    "zip: two names": (two_names_zip, "is damaged, or no archive"),
    "an HTML page": (lambda path: written(path, HTML), "is damaged, or no archive"),
    "a Git LFS pointer": (lambda path: written(path, LFS), "is damaged, or no archive"),
    "random bytes": (lambda path: written(path, noise(4000)), "is damaged, or no archive"),
    "an empty file": (lambda path: written(path, b""), "is damaged, or no archive"),
    "a hundred thousand empty files": (
        lambda path: tar(path, *((f"set/{i}", b"") for i in range(140)), mode="w:xz"),
        "would fill more than",
    ),
    "more than it claims to hold": (
        lambda path: tar(path, GOOD, ("set/zeros", bytes(1 << 22))),
        "would fill more than",
    ),
    "zip: more than it claims to hold": (
        lambda path: zipped(path, GOOD, ("set/zeros", bytes(1 << 22))),
        "would fill more than",
    ),
}
