"""The walk over folders of images, through every loader that uses it; what is read at a later
try.
"""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

import catchup.data as data
from catchup.data.files import decode, survey
from catchup.data.files.walk import HIDDEN, LOOP, OTHER, walk_images


def picture(path, level=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, level, level // 2)).save(path)


def folders(root):
    """Class folders with two training and two test images."""
    for i, part in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        picture(root / part / "a.png", 40 * i)
    return root


def load(root, **options):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = data.load(f"folder:{root}", progress=False, **options)
    return found, " | ".join(str(one.message) for one in seen)


@pytest.mark.parametrize("loader", ["resident", "stream"])
def test_hidden_folders_and_files_are_passed_over_and_said(tmp_path, loader):
    root = folders(tmp_path)
    picture(root / "train/cat/.ipynb_checkpoints/a.png")
    picture(root / "train/cat/deep/.trash/b.png")
    picture(root / "train/dog/._c.png")
    picture(root / "train/dog/deep/d.png")
    found, said = load(root, loader=loader)
    assert len(found.train) == 3 and "passed over in" in said and "3 hidden" in said
    assert load(folders(tmp_path / "clean"))[1] == ""


def test_linked_folders_and_files_count_as_what_they_lead_to_and_loops_end(tmp_path):
    root = folders(tmp_path / "set")
    picture(tmp_path / "elsewhere/deep/e.png")
    os.symlink(tmp_path / "elsewhere", root / "train/cat/more")
    os.symlink(tmp_path / "elsewhere/deep/e.png", root / "train/dog/linked.png")
    os.symlink(root / "train/dog", root / "train/dog/again")
    os.symlink(root / "train/cat/more", root / "train/cat/twice")
    found, said = load(root)
    assert len(found.train) == 4 and f"2 {LOOP}" in said


@pytest.mark.parametrize("leads_to", ["..", "../..", "../../.."])
def test_a_link_upwards_brings_in_no_image_of_another_class(tmp_path, leads_to):
    for part in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (folder := tmp_path / "pics" / part).mkdir(parents=True)
        (folder / "a.png").touch()
    dog = tmp_path / "pics" / "train" / "dog"
    (dog / "up").symlink_to(leads_to)
    found = walk_images(dog)
    assert found.images == (dog / "a.png",) and found.passed_over[LOOP] == 1


def test_a_link_to_nowhere_is_an_image_that_cannot_be_read(tmp_path):
    root = folders(tmp_path)
    os.symlink(tmp_path / "gone.png", root / "train/cat/z.png")
    with pytest.raises(ValueError, match="z.png cannot be read"):
        data.load(f"folder:{root}", progress=False)
    for loader in ("resident", "stream"):
        found, said = load(root, loader=loader, skip_unreadable=True)
        assert len(found.train) == 2 and "skipped 1 unreadable" in said


def test_every_loader_walks_alike(tmp_path):
    """Tiny-ImageNet's layout and `load_images` read what class folders read."""
    root = tmp_path / "tiny"
    for wnid in ("n01", "n02"):
        picture(root / f"train/{wnid}/images/{wnid}_0.png")
        picture(root / f"train/{wnid}/images/.thumbs/{wnid}_0.png")
        picture(root / f"val/images/{wnid}.png")
    (root / "wnids.txt").write_text("n01\nn02\n")
    (root / "val/val_annotations.txt").write_text(
        "n01.png\tn01\t1\t2\t6\t7\nn02.png\tn02\t1\t2\t6\t7\n"
    )
    with pytest.warns(UserWarning, match="2 hidden"):
        assert len(data.load(f"tiny-imagenet:{root}", progress=False).train) == 2
    other = tmp_path / "other"
    picture(other / "stripes/a.png")
    picture(other / "stripes/.cache/b.png")
    with pytest.warns(UserWarning, match="1 hidden"):
        assert len(data.load_images(f"folder:{other}", progress=False)) == 1


def test_the_walk_by_hand(tmp_path):
    for name in ("b.PNG", "a.jpg", "c/d.tiff", "c/.e.png", "readme.txt", ".catchup-cache-8.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    images, passed = walk_images(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in images] == [
        "a.jpg",
        "b.PNG",
        "c/d.tiff",
    ]
    assert passed == {HIDDEN: 1, OTHER: 2}
    assert len(walk_images(tmp_path, deep=False).images) == 2


@pytest.mark.parametrize("loader", ["resident", "stream"])
def test_an_error_of_the_system_is_not_remembered(tmp_path, loader, monkeypatch):
    root, read = folders(tmp_path), decode.read_image
    picture(root / "train/cat/b.png")

    def fails(file, *rest):
        if file.name == "b.png":
            raise OSError(5, "Input/output error")
        return read(file, *rest)

    for module in (decode, survey):
        monkeypatch.setattr(module, "read_image", fails)
    options = {"loader": loader, "skip_unreadable": True, "workers": 0}
    assert len(load(root, **options)[0].train) == 2
    monkeypatch.undo()
    found, said = load(root, **options)
    assert len(found.train) == 3 and said == ""


def png(path, colour_type, channels, depth=16):
    def chunk(tag, body):
        checksum = struct.pack(">I", zlib.crc32(tag + body))
        return struct.pack(">I", len(body)) + tag + body + checksum

    values = np.random.default_rng(0).integers(0, 4096, (8, 8, channels)).astype(">u2")
    head = struct.pack(">IIBBBBB", 8, 8, depth, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_a_channel_are_refused_not_halved(tmp_path, colour_type, channels):
    root = folders(tmp_path)
    png(root / "train/cat/deep.png", colour_type, channels)
    with pytest.raises(ValueError, match="deep.png .*more than 8 bits a channel"):
        data.load(f"folder:{root}", progress=False)


@pytest.mark.parametrize(
    ("most", "size", "fine"), [(255, 1, True), (100, 1, True), (4095, 2, False)]
)
def test_portable_pixmaps_by_their_largest_value(tmp_path, most, size, fine):
    root = folders(tmp_path)
    (root / "train/cat/b.ppm").write_bytes(f"P6 8 8 {most}\n".encode() + bytes(8 * 8 * 3 * size))
    if fine:
        assert len(load(root)[0].train) == 3
    else:
        with pytest.raises(ValueError, match="more than 8 bits"):
            data.load(f"folder:{root}", progress=False)
