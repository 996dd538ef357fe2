"""What the data page says of orientation tags and of files with several frames."""

import numpy as np
import pytest
from PIL import Image

from catchup.data.files.decode import read_image

PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 6)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
def test_an_orientation_tag_turns_tiff_alone(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(PIXELS).convert("RGB").save(tmp_path / f"a.{kind}", exif=exif, **lossless)
    with Image.open(tmp_path / f"a.{kind}") as image:
        assert image.getexif()[0x0112] == orientation  # the tag is there
    turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation] if kind == "tiff" else 0
    expected = np.rot90(PIXELS, turns)[:, :, None].repeat(3, axis=2)
    assert np.array_equal(read_image(tmp_path / f"a.{kind}", None), expected)


@pytest.mark.parametrize("kind", ["gif", "tiff", "png", "webp"])
def test_of_several_frames_the_first_is_read(tmp_path, kind):
    first, *others = (Image.new("RGB", (6, 4), (shade,) * 3) for shade in (0, 255, 102))
    lossless = {"lossless": True} if kind == "webp" else {}
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=others, **lossless)
    with Image.open(tmp_path / f"a.{kind}") as image:
        assert image.n_frames == 3
    assert (read_image(tmp_path / f"a.{kind}", None) == 0).all()
