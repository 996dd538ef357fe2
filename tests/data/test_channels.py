"""Coloured images in grey and back, in memory and streamed."""

import numpy as np
import pytest
import torch
from PIL import Image

from catchup import data
from catchup.data import Images
from catchup.data.channels import luma


def test_the_grey_of_a_colour_is_pillows():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal(luma(*pixels.astype(np.int32).transpose(2, 0, 1)), expected)


def test_images_change_their_channels():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8, generator=generator)
    coloured = Images(pixels, torch.arange(5) % 2, ("a", "b"))
    grey = coloured.with_channels(1)
    assert (
        grey.pixels.shape == (5, 1, 4, 4)
        and grey.pixels.dtype == torch.uint8
        and grey.classes == ("a", "b")
    )
    expected = np.stack(
        [
            np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
            for image in coloured.pixels
        ]
    )
    assert np.array_equal(grey.pixels[:, 0].numpy(), expected)
    again = grey.with_channels(3)
    assert torch.equal(again.pixels, grey.pixels.expand(5, 3, 4, 4)) and torch.equal(
        again.labels, coloured.labels
    )
    assert coloured.with_channels(3) is coloured
    with pytest.raises(ValueError, match="images of 3 channels cannot be brought to 2"):
        coloured.with_channels(2)


def test_streamed_images_are_turned_grey_as_those_in_memory(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a/x", "a/y", "b/z"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    read = {
        loader: data.load_images(f"folder:{tmp_path}", loader=loader, workers=0, progress=False)
        for loader in ("resident", "stream")
    }
    assert type(read["stream"]) is not type(read["resident"])
    grey = {
        loader: next(iter(images.with_channels(1).chunks(3))).pixels
        for loader, images in read.items()
    }
    assert torch.equal(grey["stream"], grey["resident"]) and grey["stream"].shape == (3, 1, 8, 8)
    back = next(iter(read["stream"].with_channels(1).with_channels(3).chunks(3))).pixels
    assert torch.equal(back, grey["resident"].expand(3, 3, 8, 8))
