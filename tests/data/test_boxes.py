"""Boxes of images: their checks, their overlap, and those of Tiny-ImageNet as its own files give
them.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from catchup import data
from catchup.data import Boxes
from catchup.data.boxes import iou_of
from catchup.data.files import folders

REAL = Path(__file__).parents[2] / "data/tiny-imagenet-50"


def some_boxes(count, size=(20, 30), images=6, seed=0):
    """Random whole-pixel boxes; images have none, one or several."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, (size[1] - 1, size[0] - 1), (count, 2))
    high = low + 1 + rng.integers(0, (size[1], size[0]) - low)
    edges = torch.from_numpy(
        np.concatenate([low, high.clip(max=(size[1], size[0]))], 1).astype(np.float32)
    )
    return Boxes(edges, torch.from_numpy(np.sort(rng.integers(0, images, count))), size)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"edges": torch.zeros(2, 4, dtype=torch.float64)}, r"float32 \(K, 4\), got torch.float64"),
        ({"edges": torch.ones(2, 3)}, r"got torch.float32 \(2, 3\)"),
        ({"image": torch.tensor([0])}, r"int64 \(2,\), got torch.int64 \(1,\)"),
        ({"image": torch.tensor([1, 0])}, "ascending"),
        ({"image": torch.tensor([-1, 0])}, "from 0 on"),
        (
            {"edges": torch.tensor([[0.0, 0, 5, 5], [4, 1, 4, 3]])},
            r"box 1 is empty: \[4.0, 1.0, 4.0, 3.0\]",
        ),
        ({"edges": torch.tensor([[0.0, 0, 5, 5], [4, 1, float("nan"), 3]])}, "box 1 is empty"),
        (
            {"edges": torch.tensor([[0.0, 0, 7, 5], [0, 0, 1, 1]])},
            "box 0 leaves the image of 6 x 5 pixels",
        ),
        ({"edges": torch.tensor([[0.0, 0, 6, 5], [0, -1, 1, 1]])}, "box 1 leaves the image"),
    ],
)
def test_boxes_that_are_none_are_refused(change, says):
    right = {
        "edges": torch.tensor([[0.0, 0, 6, 5], [1, 1, 2, 2]]),
        "image": torch.tensor([0, 3]),
        "size": (5, 6),
    }
    assert len(Boxes(**right)) == 2
    with pytest.raises(ValueError, match=says):
        Boxes(**right | change)


@pytest.mark.parametrize("indices", [[0, 1, 2, 3, 4, 5], [5, 2, 2], [4], [3, 0, 0, 5, 1]])
def test_boxes_follow_their_images(indices):
    boxes = some_boxes(11)
    taken = boxes.take(torch.tensor(indices))
    expected = [
        (place, edges.tolist())
        for place, image in enumerate(indices)
        for edges, owner in zip(boxes.edges, boxes.image.tolist())
        if owner == image
    ]
    assert [(int(i), e.tolist()) for i, e in zip(taken.image, taken.edges)] == expected
    assert taken.size == boxes.size


def test_images_without_a_box_take_none():
    boxes = Boxes(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([3]), (4, 4))
    assert len(boxes.take(torch.tensor([0, 1, 4]))) == 0
    assert boxes.take(torch.tensor([0, 3])).image.tolist() == [1]


def test_overlap_is_torchvisions():
    from torchvision.ops import box_iou

    first, second = some_boxes(40, seed=1).edges, some_boxes(30, seed=2).edges
    torch.testing.assert_close(
        iou_of(first[:, None], second[None]), box_iou(first.double(), second.double())
    )


def test_overlap_at_its_ends():
    unit = torch.tensor([0.0, 0, 10, 1])
    # a float32 quotient would miss 0.7
    for right, expected in ((3, 0.3), (5, 0.5), (7, 0.7), (10, 1.0)):
        assert float(iou_of(unit, torch.tensor([0.0, 0, right, 1]))) == expected
    assert float(iou_of(unit, torch.tensor([10.0, 0, 12, 1]))) == 0  # they touch
    assert float(iou_of(unit, torch.zeros(4))) == 0 == float(iou_of(torch.zeros(4), torch.zeros(4)))


# Tiny-ImageNet, in its official layout


ABSENT = "val_9.png"


def small_tiny(root, rows, size=(8, 8)):
    """Two classes; `rows` are the lines of val_annotations.txt, images are of `size` (W, H)."""
    rng = np.random.default_rng(0)
    for name in (
        *(f"train/{wnid}/images/{wnid}_0.png" for wnid in ("n02", "n01")),
        *(f"val/images/{name}" for name in sorted({row.split("\t")[0] for row in rows} - {ABSENT})),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(
            root / name
        )
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "val/val_annotations.txt").write_text("".join(f"{row}\n" for row in rows))
    return f"tiny-imagenet:{root}"


ROWS = ["val_2.png\tn01\t1\t2\t4\t6", "val_0.png\tn02\t0\t0\t7\t7", "val_1.png\tn01\t3\t3\t4\t4"]


def test_corners_are_inclusive(tmp_path):
    read = data.load(small_tiny(tmp_path, ROWS))
    assert read.boxes.size == (8, 8) and read.boxes.image.tolist() == [0, 1, 2]
    assert read.boxes.edges.tolist() == [[1, 2, 5, 7], [0, 0, 8, 8], [3, 3, 5, 5]]


def test_boxes_grow_with_the_images(tmp_path):
    read = data.load(small_tiny(tmp_path, ROWS), image_size=16)
    assert read.boxes.size == (16, 16)
    assert read.boxes.edges.tolist() == [[2, 4, 10, 14], [0, 0, 16, 16], [6, 6, 10, 10]]


def test_boxes_are_cut_as_the_images_are(tmp_path):
    """Images of 16 x 8 lose four pixels on the left and right: one box is clipped, one falls
    outside.
    """
    rows = [
        "val_2.png\tn01\t1\t2\t4\t6",
        "val_0.png\tn02\t0\t0\t3\t7",
        "val_1.png\tn01\t5\t1\t15\t4",
    ]
    read = data.load(small_tiny(tmp_path, rows, size=(16, 8)), image_size=8)
    assert len(read.test) == 3 and read.boxes.image.tolist() == [0, 2]
    assert read.boxes.edges.tolist() == [[0, 2, 1, 7], [1, 1, 8, 5]]
    whole = data.load(f"tiny-imagenet:{tmp_path}")
    assert whole.boxes.size == (8, 16) and whole.boxes.edges[2].tolist() == [5, 1, 16, 5]


def test_a_box_covers_the_pixels_it_covered(tmp_path):
    """What is white in the stored image and nothing else lies in the box, in any size."""
    name = small_tiny(tmp_path, ["val_3.png\tn01\t4\t8\t15\t19"], size=(32, 24))
    picture = np.zeros((24, 32, 3), dtype=np.uint8)
    picture[8:20, 4:16] = 255
    Image.fromarray(picture).save(tmp_path / "val/images/val_3.png")
    for image_size in (24, 12, 48):
        read = data.load(name, image_size=image_size)
        left, top, right, bottom = (int(edge) for edge in read.boxes.edges[0])
        bright = read.test.pixels[0, 0] > 127
        expected = torch.zeros_like(bright)
        expected[top:bottom, left:right] = True
        assert torch.equal(bright, expected)


def test_corners_that_coincide_are_dropped_with_one_warning(tmp_path):
    rows = [*ROWS, "val_3.png\tn01\t7\t1\t7\t5", "val_4.png\tn02\t2\t0\t6\t0"]
    with pytest.warns(
        UserWarning, match=r"2 of 5 boxes in .*val_annotations.txt have corners that coincide"
    ) as seen:
        read = data.load(small_tiny(tmp_path, rows))
    assert len(seen) == 1 and len(read.test) == 5 and read.boxes.image.tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:.*corners that coincide")
def test_no_box_is_left(tmp_path):
    for image_size in (None, 4):
        read = data.load(
            small_tiny(tmp_path, ["val_3.png\tn01\t7\t1\t7\t5"]), image_size=image_size
        )
        assert len(read.boxes) == 0 and len(read.test) == 1


@pytest.mark.filterwarnings("ignore:skipped 1 unreadable")
@pytest.mark.parametrize("image_size", [None, 8])
def test_boxes_stay_with_their_images_where_one_is_unreadable(tmp_path, image_size):
    name = small_tiny(tmp_path, ROWS)
    (tmp_path / "val/images/val_2.png").write_bytes(b"no picture")
    read = data.load(name, skip_unreadable=True, image_size=image_size)
    assert len(read.test) == 2 and read.boxes.edges.tolist() == [[0, 0, 8, 8], [3, 3, 5, 5]]
    assert read.boxes.image.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            "val_1.png\tn01",
            r"line 2 of .*val_annotations.txt gives no box: .*got \[\]; mend the line",
        ),
        ("val_1.png\tn01\t1\t2\t3", r"line 2 of .*got \['1', '2', '3'\]"),
        ("val_1.png\tn01\t1\t2\t3\t4\t5", "line 2 of .*gives no box"),
        ("val_1.png\tn01\t1\t2\tx\t4", r"line 2 of .*got \['1', '2', 'x', '4'\]"),
        ("val_1.png\tn01\t1\t2\t3.5\t4", "line 2 of .*gives no box: after name and class"),
        (
            "val_1.png\tn01\t5\t2\t3\t4",
            "line 2 of .*is empty or begins outside the image: left 5, top 2, right 3",
        ),
        ("val_1.png\tn01\t1\t-2\t3\t4", "line 2 of .*begins outside the image: left 1, top -2"),
        (
            "val_1.png\tn01\t1\t2\t8\t4",
            r"line 2 of .*leaves the image of 8 x 8 pixels: \(1, 2, 9, 5\)",
        ),
        ("val_1.png\tn01\t1\t20\t4\t29", "line 2 of .*leaves the image of 8 x 8 pixels"),
        ("val_9.png\tn01\t1\t2\t3\t4", "names 'val_9.png' in line 2, which is not in"),
    ],
)
@pytest.mark.parametrize("image_size", [None, 5])
def test_lines_that_give_no_box_are_named(tmp_path, row, says, image_size):
    with pytest.raises(ValueError, match=says):
        data.load(small_tiny(tmp_path, [ROWS[0], row]), image_size=image_size)


@pytest.mark.skipif(
    not (REAL / "wnids.txt").is_file(), reason="the real images do not lie in the repository"
)
def test_the_real_boxes():
    """All 2 500 lines are read by the words of the file; 16 of them have corners that coincide."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        listing = folders.list_tiny_imagenet(REAL)
    lines = [
        line.split("\t") for line in (REAL / "val/val_annotations.txt").read_text().splitlines()
    ]
    flat = [place for place, (_, _, x0, y0, x1, y1) in enumerate(lines) if x0 == x1 or y0 == y1]
    assert len(lines) == 2500 and len(flat) == 16 and "16 of 2500 boxes" in str(seen[0].message)
    assert all(set(lines[place][2:]) & {"0", "63"} for place in flat)  # all of them on the border
    assert len(listing.test.boxes) == 2484
    for box in listing.test.boxes[::100]:
        x0, y0, x1, y1 = (int(field) for field in lines[box.file][2:])
        assert (
            box.edges == (x0, y0, x1 + 1, y1 + 1)
            and listing.test.files[box.file].name == lines[box.file][0]
        )
