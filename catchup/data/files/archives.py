"""Archives of data sets: fetched, checked against their published checksum, unpacked whole or not
at all.

Everything happens in a hidden folder beside the place where the data belong; the finished folder is
moved there as the last step, so a broken line, a full disk or a killed process leaves nothing that
could be taken for data.

Where it misleads: an MD5 tells a damaged file from a whole one, not an honest server from another.
So the members are
checked as well: none may leave the folder, be anything but a file or a folder, or fill the disk.
"""

import errno
import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath
from posixpath import dirname, join, normpath

from ...utils.progress import counter

BROKEN = (
    OSError,
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    RuntimeError,
    ValueError,
)
# images barely compress: more than this, and more than 64 MiB, is a bomb
EXPANSION, FLOOR_BYTES = (4, 1 << 26)
BLOCK = 512  # bytes that a member takes at least, in a tar archive and on most disks
WORK = (  # how the hidden folders begin; those of killed processes go after a day
    ".catchup-download-"
)
DAY_S = 86400


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Args:
        url: where it is fetched.
        md5: its published checksum, 32 hex digits; None where none is known.
        file: its name; one that already lies in the data folder is taken instead of fetching it.
        folder: the folder in it that is the data set.
    """

    url: str
    md5: str | None
    file: str
    folder: str


CUB200 = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
    "97eceeb196236b17998738112f37df78",
    "CUB_200_2011.tgz",
    "CUB_200_2011",
)
AIRCRAFT = Archive(
    "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
    "d4acdd33327262359767eeaa97a4f732",
    "fgvc-aircraft-2013b.tar.gz",
    "fgvc-aircraft-2013b",
)
IMAGENET_O = Archive(
    "https://people.eecs.berkeley.edu/~hendrycks/imagenet-o.tar",
    "86bd7a50c1c4074fb18fc5f219d6d50b",
    "imagenet-o.tar",
    "imagenet-o",
)
CIFAR100_C = Archive(
    "https://zenodo.org/records/3555552/files/CIFAR-100-C.tar",
    "11f0ed0f1191edbf9fa23466ae6021d3",
    "CIFAR-100-C.tar",
    "CIFAR-100-C",
)
TINY = Archive(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "90528d7ca1a48142e341f4ef8d21d0de",
    "tiny-imagenet-200.zip",
    "tiny-imagenet-200",
)


def obtain(archive: Archive, data_dir: Path, progress: bool = True) -> Path:
    """`data_dir/archive.folder`, made whole or not at all where it is not there: from the archive
    that lies in `data_dir`, or else from its address.

    Args:
        progress: show a bar while fetching, if standard error is a terminal.
    Raises:
        FileNotFoundError: if the archive cannot be fetched, or what arrives has another checksum;
            the message says what to put where.
        ValueError: if the archive is damaged, holds what it should not (see `members`), or lacks
            the folder.
    """
    place = data_dir / archive.folder
    if place.is_dir():
        return place
    made = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(data_dir)
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=WORK) as work:
            _fetch_and_unpack(archive, data_dir, Path(work), progress)
            _put(Path(work) / "unpacked" / archive.folder, place)
    finally:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    return place


def _fetch_and_unpack(archive: Archive, data_dir: Path, work: Path, progress: bool) -> None:
    """Leave the contents of the archive in `work/unpacked`."""
    local = data_dir / archive.file
    md5 = md5_of(local) if local.is_file() and archive.md5 else None
    if not local.is_file() or md5 not in (None, archive.md5):
        wrong = (
            f" ({local} is there, but its MD5 is {md5}, not {archive.md5}: it is incomplete or"
            " another file)"
        )
        try:
            local = fetch(archive.url, work / archive.file, archive.md5, progress)
        except (OSError, HTTPException, ValueError) as error:
            raise FileNotFoundError(
                f"{archive.url} could not be downloaded ({error}); put the file {archive.file}, or"
                f" the folder {archive.folder} out of it, into {data_dir}{wrong if md5 else ''}"
            ) from error
    unpack(local, work / "unpacked")
    if not (work / "unpacked" / archive.folder).is_dir():
        raise ValueError(
            f"{archive.file} holds no folder {archive.folder}: it is another archive than that of "
            f"{archive.url}; remove it from {data_dir}"
        )


def _put(made: Path, place: Path) -> None:
    """Move the finished folder to its place, unless another process was quicker."""
    try:
        os.replace(made, place)
    except OSError:
        if not place.is_dir():
            raise


def _clear_leftovers(data_dir: Path) -> None:
    """Remove the hidden folders that processes killed long ago have left."""
    for path in data_dir.glob(f"{WORK}*"):
        if path.is_dir() and time.time() - path.stat().st_mtime > DAY_S:
            shutil.rmtree(path, ignore_errors=True)


def fetch(url: str, file: Path, md5: str | None, progress: bool = True) -> Path:
    """The file at `url`, written to `file`, which is returned.

    Raises:
        OSError: if it cannot be reached, less arrives than announced, the disk has no room for it
            (twice: packed and unpacked), or its checksum is not `md5`. What was written is then
            removed.
    """
    from urllib.request import Request, urlopen

    try:
        with (
            urlopen(Request(url, headers={"User-Agent": "catchup"}), timeout=60) as answer,
            open(file, "xb") as out,
        ):
            announced = int(answer.headers.get("Content-Length") or 0)
            _check_room(file.parent, 2 * announced)
            arrived, arrived_md5 = _copy(answer, out, announced, file.name, progress)
        if arrived < announced:
            raise OSError(f"only {arrived} of {announced} bytes arrived")
        if md5 is not None and arrived_md5 != md5:
            raise OSError(
                f"what arrived has the MD5 {arrived_md5}, not {md5}: it is damaged, or a page"
                " instead of the file"
            )
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return file


def _copy(answer, out, announced: int, name: str, progress: bool) -> tuple[int, str]:
    """How many bytes went from `answer` to `out`, and their MD5."""
    digest, arrived = hashlib.md5(usedforsecurity=False), 0
    with counter(announced or None, name, "B", progress, unit_scale=True, terminal=True) as update:
        while part := answer.read(1 << 20):
            out.write(part)
            digest.update(part)
            arrived += len(part)
            update(len(part))
    return arrived, digest.hexdigest()


def md5_of(file: Path) -> str:
    """The MD5 of a file, 32 hex digits."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpack(archive: Path, into: Path) -> None:
    """Everything in a tar (plain or compressed) or zip archive, below the new folder `into`.

    All members are checked before the first is written (see `members`).

    Raises:
        ValueError: if the archive is damaged or no archive, or holds what it should not; `into` is
            then not there.
        OSError: if the disk has no room for it.
    """
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as opened:
                listed = ((member.name, member.size, _tar_kind(member)) for member in opened)
                how = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                _check(listed, archive, into)
                wanted = [member for member in opened if _tar_kind(member) != "link"]
                opened.extractall(into, wanted, **how)
        else:
            with zipfile.ZipFile(archive) as opened:
                entries = opened.infolist()
                listed = ((each.filename, each.file_size, _zip_kind(each)) for each in entries)
                _check(listed, archive, into)
                opened.extractall(into)
    except BaseException as error:
        shutil.rmtree(into, ignore_errors=True)
        from_disk = isinstance(error, OSError) and error.errno is not None
        if isinstance(error, _RefusedArchive) or from_disk or not isinstance(error, BROKEN):
            raise
        raise ValueError(
            f"{archive} is damaged, or no archive ({type(error).__name__}: {error}): "
            "remove it and get it again"
        ) from error


class _RefusedArchive(ValueError):
    """An archive whose list of members is refused."""


def _check(listed: Iterable[tuple[str, int, str]], archive: Path, into: Path) -> None:
    """Check what `found` lists and make the folder for it."""
    total = members(listed, archive, max(FLOOR_BYTES, EXPANSION * archive.stat().st_size))
    _check_room(into.parent, total)
    into.mkdir()


def members(listed: Iterable[tuple[str, int, str]], archive: Path, limit: int) -> int:
    """How many bytes the members of an archive hold, after checking each.

    Args:
        found: (name, bytes, kind) of each; the kind is "file", "folder", "link" (inside the
            archive; it is passed over) or what else it is, in words. Read no further than the first
            that is refused.
        archive: for the message.
        limit: bytes that all files may hold together.
    Raises:
        ValueError: if a name is empty, absolute, leaves the folder or stands twice, a member is
            neither file nor folder (a device, a link that leaves the folder), a file is also a
            folder, the files hold more than `limit`, or there is no file.
    """
    total, files = 0, set()
    for count, (name, size, kind) in enumerate(listed, start=1):
        parts = PurePosixPath(name).parts
        if kind not in ("file", "folder", "link"):
            raise _refusal(archive, f"the member {name!r} is {kind}, not a file or a folder")
        if _leaves(name):
            raise _refusal(archive, f"the member {name!r} would land outside its folder")
        if kind == "file":
            if parts in files:
                raise _refusal(archive, f"the member {name!r} stands in it twice")
            files.add(parts)
            total += size
        if size < 0:
            raise _refusal(archive, f"the member {name!r} claims {size} bytes")
        if max(total, BLOCK * count) > limit:  # a million empty files fill a disk too
            why = f"its files would fill more than {_amount(limit)}, {EXPANSION} times its own size"
            raise _refusal(archive, why)
    if not files:
        raise _refusal(archive, "it holds no files")
    folders = {parts[:end] for parts in files for end in range(1, len(parts))}
    if both := folders & files:
        raise _refusal(archive, f"the member {'/'.join(min(both))!r} is a file and a folder")
    return total


def _leaves(name: str) -> bool:
    """Whether a member of that name would, on some system, land outside the folder, or is no name
    at all.
    """
    parts = PurePosixPath(name).parts
    if not parts:
        return name not in (".", "./")
    outside = name.startswith("/") or ".." in parts or bool(PureWindowsPath(name).drive)
    return outside or "\\" in name or "\0" in name


def _refusal(archive: Path, why: str) -> _RefusedArchive:
    return _RefusedArchive(
        f"{archive} was not unpacked: {why}; remove it and get it from where it is published"
    )


def _tar_kind(member: tarfile.TarInfo) -> str:
    """What a member of a tar archive is, in a word."""
    if member.issym() or member.islnk():
        inside = normpath(join(dirname(member.name) if member.issym() else "", member.linkname))
        return f"a link to {member.linkname!r}" if _leaves(inside) else "link"
    if member.isdir():
        return "folder"
    return "file" if member.isreg() and not member.issparse() else "something special"


def _zip_kind(member: zipfile.ZipInfo) -> str:
    """What a member of a zip archive is, in a word."""
    mode = member.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "a link"
    if member.is_dir():
        return "folder"
    if member.flag_bits & 1:
        return "encrypted"
    return "file" if not stat.S_IFMT(mode) or stat.S_ISREG(mode) else "something special"


def _check_room(folder: Path, needed: int) -> None:
    """Raise OSError unless the disk of `folder` has room for that many bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{folder} needs {_amount(needed)} free, and has {_amount(free)}"
        )


def _amount(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.1f} MB"
