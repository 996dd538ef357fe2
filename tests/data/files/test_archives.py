"""Archives and downloads: what is refused, what is left behind, over a real server on this machine;
and the memory.

Bad archives of every kind are in `hostile_archives.py`, and run in `test_hostile.py`.
"""

import functools
import hashlib
import http.server
import os
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hostile_archives import GOOD, special, tar, zipped

from catchup.data import fetch
from catchup.data.files import archives, decode, memory
from catchup.data.files.archives import Archive, members, obtain, unpack
from catchup.data.sources import SOURCES


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# Unpacking


@pytest.mark.parametrize(
    "make",
    [
        lambda path: tar(path, ("set", None), ("set/a.txt", b"one"), ("set/deep/b.txt", b"two")),
        lambda path: tar(path, ("./set/a.txt", b"one"), ("./set/deep/b.txt", b"two"), mode="w"),
        lambda path: tar(path, ("set/a.txt", b"one"), ("set/deep/b.txt", b"two"), mode="w:xz"),
        lambda path: zipped(path, ("set/", ""), ("set/a.txt", b"one"), ("set/deep/b.txt", b"two")),
    ],
)
def test_every_kind_of_archive_is_unpacked(tmp_path, make):
    unpack(make(tmp_path / "archive"), tmp_path / "out")
    assert everything(tmp_path / "out") == ["set", "set/a.txt", "set/deep", "set/deep/b.txt"]
    assert (tmp_path / "out/set/deep/b.txt").read_bytes() == b"two"


def test_a_link_inside_is_passed_over(tmp_path):
    archive = tar(tmp_path / "archive", GOOD, special("set/link", tarfile.SYMTYPE, "a.txt"))
    unpack(archive, tmp_path / "out")
    assert everything(tmp_path / "out") == ["set", "set/a.txt"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("make", [tar, zipped, functools.partial(tar, mode="w")])
def test_an_archive_that_is_cut_is_refused_whole(tmp_path, make, share):
    chance = np.random.default_rng(0)
    whole = make(
        tmp_path / "whole", *((f"set/{i}.bin", chance.bytes(5000)) for i in range(4))
    ).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(min(len(whole), 22000) * share)])
    with pytest.raises(ValueError, match="cut is damaged, or no archive.*get it again"):
        unpack(tmp_path / "cut", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damage_that_shows_while_writing_leaves_nothing(tmp_path):
    noise = np.random.default_rng(0).bytes(5000)
    content = bytearray(zipped(tmp_path / "zip", GOOD, ("set/noise", noise)).read_bytes())
    content[content.find(noise[1000:1010])] ^= 1
    (tmp_path / "zip").write_bytes(content)
    with pytest.raises(ValueError, match="zip is damaged, or no archive.*CRC"):
        unpack(tmp_path / "zip", tmp_path / "out")
    assert everything(tmp_path) == ["zip"]


@pytest.mark.parametrize("make", [tar, zipped])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path, monkeypatch, make):
    monkeypatch.setattr(archives, "FLOOR_BYTES", 1000)
    archive = make(tmp_path / "bomb", GOOD, ("set/zeros", bytes(1 << 22)))
    assert archive.stat().st_size < 10_000
    with pytest.raises(ValueError, match="would fill more than 0.0 MB, 4 times its own size"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    unpack(
        make(tmp_path / "honest", ("set/noise", np.random.default_rng(0).bytes(5000))),
        tmp_path / "out",
    )


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(
        archives.shutil, "disk_usage", lambda _: archives.shutil._ntuple_diskusage(10, 8, 2)
    )
    with pytest.raises(OSError, match="needs 0.0 MB free, and has 0.0 MB"):
        unpack(tar(tmp_path / "archive", GOOD), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_members_are_counted_and_reading_stops_at_the_first_bad_one(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "BLOCK", 0)
    assert members([("a", 3, "file"), ("b", 0, "folder"), ("b/c", 4, "file")], tmp_path, 7) == 7

    def endless():
        yield "set/big", 8, "file"
        raise AssertionError("read on")

    with pytest.raises(ValueError, match="would fill more"):
        members(endless(), tmp_path, 7)


# Downloading, from a server in this process


@pytest.fixture
def server(tmp_path):
    """Serves `served/`; returns its address, and `answers`: how often each path was asked for."""
    (tmp_path / "served").mkdir()
    answers = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            answers.append(self.path)
            if self.path != "/short":
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only so much")

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "served"))
    )
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", answers
    running.shutdown()
    running.server_close()


@pytest.fixture
def published(tmp_path, server):
    """An archive on the server, with its true MD5."""
    file = tar(tmp_path / "served/set.tgz", GOOD, ("set/b.txt", b"two"))
    return Archive(
        f"{server[0]}/set.tgz", hashlib.md5(file.read_bytes()).hexdigest(), "set.tgz", "set"
    )


def test_a_download_leaves_the_folder_and_nothing_else(tmp_path, published, server):
    place = obtain(published, tmp_path / "my/store", progress=False)
    assert place == tmp_path / "my/store/set"
    assert everything(tmp_path / "my/store") == ["set", "set/a.txt", "set/b.txt"]
    assert obtain(published, tmp_path / "my/store", progress=False) == place and server[1] == [
        "/set.tgz"
    ]


def test_the_archive_that_lies_there_is_taken_and_kept(tmp_path, published, server):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/set.tgz").write_bytes((tmp_path / "served/set.tgz").read_bytes())
    obtain(published, tmp_path / "store", progress=False)
    assert (
        everything(tmp_path / "store") == ["set", "set.tgz", "set/a.txt", "set/b.txt"]
        and server[1] == []
    )


def test_half_an_archive_that_lies_there_is_not_taken(tmp_path, published, server):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/set.tgz").write_bytes(b"half")
    obtain(published, tmp_path / "store", progress=False)
    assert server[1] == ["/set.tgz"]
    (tmp_path / "served/set.tgz").unlink()
    archives.shutil.rmtree(tmp_path / "store/set")
    with pytest.raises(
        FileNotFoundError,
        match="404.* put the file set.tgz, or the folder set .*its MD5 is .*, not ",
    ):
        obtain(published, tmp_path / "store", progress=False)
    assert everything(tmp_path / "store") == ["set.tgz"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"md5": "0" * 32}, f"has the MD5 .*, not {'0' * 32}"),
        ({"url": "{}/none.tgz"}, "404"),
        ({"url": "{}/short"}, "only 12 of 1000 bytes arrived"),
        ({"url": "nonsense:set"}, "unknown url type"),
        ({"url": "http://127.0.0.1:1/set.tgz"}, "refused"),
    ],
)
def test_a_download_that_fails_says_what_to_put_where(tmp_path, published, server, change, says):
    change = {key: value.format(server[0]) for key, value in change.items()}
    with pytest.raises(
        FileNotFoundError, match=f"{says}.* put the file set.tgz, or the folder set .*store"
    ):
        obtain(
            archives.Archive(**{**vars(published), **change}), tmp_path / "my/store", progress=False
        )
    assert not (tmp_path / "my").exists()


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([GOOD, ("../evil", b"x")], "would land outside"),
        ([("other/a.txt", b"x")], "holds no folder set"),
    ],
)
def test_a_bad_archive_off_the_net_leaves_nothing(tmp_path, published, entries, says):
    content = tar(tmp_path / "served/set.tgz", *entries).read_bytes()
    wrong = archives.Archive(**{**vars(published), "md5": hashlib.md5(content).hexdigest()})
    with pytest.raises(ValueError, match=says):
        obtain(wrong, tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists() and not (tmp_path / "evil").exists()


def test_without_a_published_checksum_what_arrives_is_checked_as_an_archive(
    tmp_path, published, server
):
    unknown = archives.Archive(**{**vars(published), "md5": None})
    assert obtain(unknown, tmp_path / "a", progress=False).is_dir()
    (tmp_path / "served/page.tgz").write_bytes(b"<html>please log in</html>")
    with pytest.raises(ValueError, match="damaged, or no archive"):
        obtain(
            archives.Archive(f"{server[0]}/page.tgz", None, "page.tgz", "set"),
            tmp_path / "b",
            progress=False,
        )


def test_four_at_once_all_find_the_whole_folder(tmp_path, published):
    with ThreadPoolExecutor(4) as pool:
        places = list(
            pool.map(lambda _: obtain(published, tmp_path / "store", progress=False), range(4))
        )
    assert set(places) == {tmp_path / "store/set"}
    assert everything(tmp_path / "store") == ["set", "set/a.txt", "set/b.txt"]


@pytest.mark.parametrize("step", ["_copy", "_check", "_put"])
def test_an_interruption_at_any_step_leaves_nothing(tmp_path, published, monkeypatch, step):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(archives, step, stop)
    with pytest.raises(KeyboardInterrupt):
        obtain(published, tmp_path / "store", progress=False)
    assert not (tmp_path / "store").exists()


def test_what_killed_processes_left_goes_after_a_day(tmp_path, published):
    for name, age in (("old", 2 * archives.DAY_S), ("new", 60)):
        (tmp_path / f"store/{archives.WORK}{name}").mkdir(parents=True)
        (tmp_path / f"store/{archives.WORK}{name}/half.tgz").write_bytes(b"half")
        os.utime(tmp_path / f"store/{archives.WORK}{name}", (time.time() - age,) * 2)
    obtain(published, tmp_path / "store", progress=False)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == [
        f"{archives.WORK}new",
        "set",
    ]


def test_fetch_gets_what_is_published_and_names_what_is_not(tmp_path, published, monkeypatch):
    source = SOURCES["cifar100-c"]
    monkeypatch.setitem(
        SOURCES, "cifar100-c", type(source)(**{**vars(source), "archive": published})
    )
    assert fetch("cifar100-c", tmp_path / "store", progress=False) == tmp_path / "store/set"
    with pytest.raises(
        ValueError, match="cars196 is not fetched alone .*its server is gone.*: cub200, aircraft"
    ):
        fetch("cars196", tmp_path / "store")


def test_every_address_has_a_checksum_and_its_own_place():
    found = [source.archive for source in SOURCES.values() if source.archive]
    assert len({one.file for one in found}) == len({one.folder for one in found}) == len(found) == 4
    assert all(
        one.url.startswith("https://") and len(bytes.fromhex(one.md5)) == 16 for one in found
    )


# Memory


def test_images_that_do_not_fit_are_refused_with_a_size_that_would():
    memory.check_memory(1000, 10, 10, "here", available=lambda: 400_000)  # exactly three quarters
    with pytest.raises(
        ValueError, match="1000 images of 11 x 11 out of here need .*an image_size of at most 10, "
    ):
        memory.check_memory(1000, 11, 11, "here", available=lambda: 400_000)
    memory.check_memory(10**12, 500, 500, "here", available=lambda: None)
    with pytest.raises(
        ValueError, match=r"1281167 images of 224 x 224 .* need 179.6 GiB .*at most 57, or .*fewer"
    ):
        memory.check_memory(1281167, 224, 224, "train", available=lambda: 16 * 2**30)


def test_a_containers_limit_counts_and_what_it_can_give_back(tmp_path):
    assert memory._bytes_left(tmp_path) is None
    for name, text in (
        ("memory.max", "1000"),
        ("memory.current", "700"),
        ("memory.stat", "anon 1\ninactive_file 200\n"),
    ):
        (tmp_path / name).write_text(text)
    assert memory._bytes_left(tmp_path) == memory.available_bytes(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._bytes_left(tmp_path) is None
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("900")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("1000")
    assert memory._bytes_left(tmp_path) == 0


@pytest.mark.parametrize("image_size", [None, 8])
def test_decoding_asks_first(tmp_path, monkeypatch, image_size):
    from PIL import Image

    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file in files:
        Image.new("RGB", (8, 8)).save(file)
    asked = []
    monkeypatch.setattr(decode, "check_memory", lambda *size: asked.append(size[:3]))
    decode.decode_images(tmp_path, files, image_size=image_size, progress=False)
    assert set(asked) == {(3, 8, 8)}

    def refuse(*_):
        raise ValueError("too much")

    monkeypatch.setattr(decode, "check_memory", refuse)
    files[0].touch()
    os.utime(files[0], (1, 1))  # another fingerprint: the cache is not taken
    with pytest.raises(ValueError, match="too much"):
        decode.decode_images(tmp_path, files, image_size=image_size, progress=False)
