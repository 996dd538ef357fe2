"""CUB-200-2011, Stanford Cars and FGVC-Aircraft: the official layouts, made small; the boxes
against a drawn mark.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import catchup.data as data
from catchup.data.files import decode
from catchup.data.files.archives import AIRCRAFT, CUB200
from catchup.data.files.placement import place_boxes

SIZE = (40, 30)  # width, height of the images that are made


def marked(path, edges, size=SIZE, shade=255):
    """An image, black but for the rectangle at left, top, right, bottom (the last two
    exclusive).
    """
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    left, top, right, bottom = edges
    pixels[top:bottom, left:right] = shade
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=100, subsampling=0)
    return pixels


# (class from 0, for training, edges of the box) of each image; the data sets below all hold these
ROWS = [
    (0, True, (4, 4, 20, 20)),
    (1, True, (8, 2, 30, 28)),
    (1, False, (10, 5, 30, 25)),
    (0, True, (0, 0, 40, 30)),
    (0, False, (16, 10, 24, 20)),
]


def small_cub(root, rows=ROWS, size=SIZE):
    """Numbers of images and classes do not begin at 1 or stand in order: they are names."""
    lists = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes")
    }
    for i, (label, training, (left, top, right, bottom)) in enumerate(rows):
        number, name = 7 * i + 3, f"{label + 9:03}.Bird_{label}/Bird_{label}_{i}.png"
        marked(root / "images" / name, (left, top, right, bottom), size)
        lists["images"].append(f"{number} {name}")
        lists["image_class_labels"].append(f"{number} {label + 9}")
        lists["train_test_split"].append(f"{number} {int(training)}")
        lists["bounding_boxes"].append(
            f"{number} {left}.0 {top}.0 {right - left}.0 {bottom - top}.0"
        )
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "classes.txt").write_text("10 010.Bird_1\n9 009.Bird_0\n")
    return "cub200", ("009.Bird_0", "010.Bird_1")


def small_cars(root, rows=ROWS, size=SIZE):
    """`cars_test_annos.mat` has no classes, as published; file names begin at 00001 in both
    folders.
    """
    from numpy.lib.recfunctions import repack_fields
    from scipy.io import savemat

    (root / "devkit").mkdir(parents=True)
    kind = [(f"bbox_{corner}", "O") for corner in ("x1", "y1", "x2", "y2")] + [
        ("class", "O"),
        ("fname", "O"),
    ]
    for part in ("train", "test"):
        chosen = [row for row in rows if row[1] == (part == "train")]
        table = np.empty((1, len(chosen)), dtype=kind)
        for i, (label, _, (left, top, right, bottom)) in enumerate(chosen):
            marked(root / f"cars_{part}/{i + 1:05}.png", (left, top, right, bottom), size)
            table[0, i] = (left + 1, top + 1, right, bottom, label + 1, f"{i + 1:05}.png")
        if part == "train":
            savemat(root / "devkit/cars_train_annos.mat", {"annotations": table})
        else:
            savemat(root / "cars_test_annos_withlabels.mat", {"annotations": table})
            bare = repack_fields(table[[name for name, _ in kind if name != "class"]])
            savemat(root / "devkit/cars_test_annos.mat", {"annotations": bare})
    names = np.array([["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]], dtype=object)
    savemat(root / "devkit/cars_meta.mat", {"class_names": names})
    return "cars196", ("AM General Hummer SUV 2000", "Acura RL Sedan 2012")


def small_aircraft(root, rows=ROWS, size=SIZE):
    """With a white banner of 20 rows below every image, which must not be seen again."""
    lists = {"trainval": [], "test": []}
    boxes, variants = [], ("Boeing 737-700", "A340")
    for i, (label, training, (left, top, right, bottom)) in enumerate(rows):
        path = root / f"data/images/{1000000 + i}.jpg"
        pixels = marked(path, (left, top, right, bottom), size)
        banner = np.full((20, size[0], 3), 255, dtype=np.uint8)
        Image.fromarray(np.concatenate([pixels, banner])).save(path, quality=100)
        lists["trainval" if training else "test"].append(f"{path.stem} {variants[label]}")
        boxes.append(f"{path.stem} {left + 1} {top + 1} {right} {bottom}")
    for part, lines in lists.items():
        (root / f"data/images_variant_{part}.txt").write_text("\n".join(lines) + "\n")
    (root / "data/variants.txt").write_text("\n".join(variants) + "\n")
    (root / "data/images_box.txt").write_text("\n".join(boxes) + "\n")
    return "aircraft", variants


MAKERS = {
    "cub200": (small_cub, CUB200.folder),
    "cars196": (small_cars, "stanford_cars"),
    "aircraft": (small_aircraft, AIRCRAFT.folder),
}


@pytest.fixture(params=list(MAKERS))
def made(request, tmp_path):
    """Name, class names and folder of one of the three, small."""
    make, folder = MAKERS[request.param]
    name, classes = make(tmp_path / folder)
    return name, classes, tmp_path / folder


def caches(root):
    return [path.name for path in root.rglob(".catchup-cache-*")]


# What is read


@pytest.mark.parametrize("place", ["path", "path above", "data_dir"])
def test_the_official_layout_is_read_from_wherever_it_lies(made, place):
    name, classes, root = made
    where = {"path": f"{name}:{root}", "path above": f"{name}:{root.parent}", "data_dir": name}[
        place
    ]
    read = data.load(where, root.parent, image_size=32, progress=False)
    assert read.train.classes == read.test.classes == classes
    assert read.train.labels.tolist() == [0, 1, 0] and read.test.labels.tolist() == [1, 0]
    assert read.train.pixels.shape == (3, 3, 32, 32) and read.test.pixels.shape == (2, 3, 28, 28)
    assert read.augmentation == data.Augmentation(window=28, flip=True)
    assert read.mean == (0.485, 0.456, 0.406) and read.std == (0.229, 0.224, 0.225)
    assert data.load_images(
        where, root.parent, image_size=32, window=20, progress=False
    ).pixels.shape == (2, 3, 20, 20)


def test_the_protocols_sizes_stand_where_none_is_named(made):
    name, _, root = made
    read = data.load(name, root.parent, progress=False)
    assert read.train.pixels.shape[2:] == (256, 256) and read.test.pixels.shape[2:] == (224, 224)
    assert read.boxes.size == (224, 224)


def test_boxes_lie_around_the_marks_that_were_drawn(made):
    """The bright part of every resized and cut image has to end where its box does, within the blur
    of the resizing.
    """
    name, _, root = made
    # four times larger: the blur is 2 pixels wide
    read = data.load(name, root.parent, image_size=120, progress=False)
    assert read.boxes.image.tolist() == [0, 1]
    for image, edges in zip(read.test.pixels, read.boxes.edges):
        rows, columns = ((image.float().mean(0) > 127).any(axis).nonzero()[:, 0] for axis in (1, 0))
        seen = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (seen - edges).abs().max() <= 1


def test_the_banner_of_aircraft_is_gone(tmp_path):
    small_aircraft(
        tmp_path, [(0, True, (0, 0, 1, 1)), (1, True, (0, 0, 1, 1)), (1, False, (0, 0, 1, 1))]
    )
    read = data.load(f"aircraft:{tmp_path}", image_size=30, progress=False)
    assert read.train.pixels[:, :, 15:].max() < 60 and read.train.pixels.shape[2] == 30
    other = decode.decode_images(
        tmp_path, sorted((tmp_path / "data/images").iterdir()), image_size=30, progress=False
    )[0]
    # uncut it is there, and the cache of the one is not that of the other
    assert other[:, :, 25:].min() > 200


def test_a_test_subset_of_cars_may_label_its_images_inside_the_devkit(tmp_path):
    small_cars(tmp_path)
    (tmp_path / "cars_test_annos_withlabels.mat").rename(
        tmp_path / "devkit/cars_test_annos_withlabels.mat"
    )
    assert data.load(f"cars196:{tmp_path}", image_size=16, progress=False).test.labels.tolist() == [
        1,
        0,
    ]


def test_one_test_image_is_enough(made, tmp_path):
    make, _ = MAKERS[made[0]]
    make(tmp_path / "one", ROWS[:3])
    read = data.load(f"{made[0]}:{tmp_path / 'one'}", image_size=16, progress=False)
    assert len(read.test) == len(read.boxes) == 1


def test_grey_images_become_three_channels(tmp_path):
    small_cub(tmp_path)
    for path in (tmp_path / "images").rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert data.load(f"cub200:{tmp_path}", image_size=16, progress=False).train.pixels.shape == (
        3,
        3,
        16,
        16,
    )


def test_torchvision_reads_the_same_files(tmp_path):
    from torchvision import datasets

    small_cars(tmp_path / "stanford_cars")
    small_aircraft(tmp_path / AIRCRAFT.folder)
    for name, kind, parts in (
        ("cars196", datasets.StanfordCars, ("train", "test")),
        ("aircraft", datasets.FGVCAircraft, ("trainval", "test")),
    ):
        read = data.load(name, tmp_path, image_size=16, progress=False)
        for ours, part in zip((read.train, read.test), parts):
            theirs = kind(tmp_path, split=part)
            assert ours.labels.tolist() == [theirs[i][1] for i in range(len(theirs))]
            assert list(ours.classes) == list(theirs.classes)


# Boxes


def naive_box(edges, size, image_size):
    """One box after the rule in words: shorter side to image_size, the other rounded, the centre
    kept, clipped.
    """
    width, height = size
    wide, high = (max(image_size, round(side * (image_size / min(size)))) for side in size)
    left, top, right, bottom = edges
    moved = [
        left * wide / width - (wide - image_size) // 2,
        top * high / height - (high - image_size) // 2,
        right * wide / width - (wide - image_size) // 2,
        bottom * high / height - (high - image_size) // 2,
    ]
    return [min(max(value, 0), image_size) for value in moved]


def test_placed_boxes_equal_the_rule_in_words():
    chance = np.random.default_rng(0)
    sizes = chance.integers(5, 200, (200, 2))
    corners = np.sort(chance.random((200, 2, 2)), axis=1) * sizes[:, None]
    edges = corners.reshape(200, 4)
    found = place_boxes(edges, sizes, 33)
    expected = [naive_box(box, size, 33) for box, size in zip(edges.tolist(), sizes.tolist())]
    kept = [
        i
        for i, (left, top, right, bottom) in enumerate(expected)
        if right - left > 1e-6 and bottom - top > 1e-6
    ]
    assert found.image.tolist() == kept and 100 < len(kept) < 200 and found.size == (33, 33)
    np.testing.assert_allclose(found.edges.numpy(), [expected[i] for i in kept], atol=1e-4)


def test_a_whole_image_stays_whole_and_what_the_square_cuts_away_has_no_box():
    whole = place_boxes(
        np.array([[0, 0, 60, 40], [0, 0, 9, 40]], dtype=float), np.array([[60, 40]] * 2), 20
    )
    assert whole.edges.tolist() == [[0, 0, 20, 20]] and whole.image.tolist() == [0]
    assert len(place_boxes(np.zeros((0, 4)), np.zeros((0, 2)), 20)) == 0


def test_a_box_that_hangs_over_is_clipped(tmp_path):
    small_cub(tmp_path, size=(30, 30))  # row 3 is (0, 0, 40, 30) in an image of 30 x 30
    text = (
        (tmp_path / "bounding_boxes.txt")
        .read_text()
        .replace("17 10.0 5.0 20.0 20.0", "17 -3.0 5.0 90.0 20.0")
    )
    (tmp_path / "bounding_boxes.txt").write_text(text)
    read = data.load(f"cub200:{tmp_path}", image_size=32, progress=False)
    assert read.boxes.edges[0].tolist() == pytest.approx(
        [0, 5 * 32 / 30 - 2, 28, 25 * 32 / 30 - 2], abs=1e-4
    )


@pytest.mark.parametrize(
    "box", ["17 5.0 5.0 0.0 9.0", "17 5.0 5.0 9.0 -2.0", "17 40.0 5.0 9.0 9.0", "17 5 -9 9 9"]
)
def test_a_box_that_is_empty_or_outside_is_named_or_left_out_when_told(tmp_path, box):
    small_cub(tmp_path)
    text = (tmp_path / "bounding_boxes.txt").read_text().replace("17 10.0 5.0 20.0 20.0", box)
    (tmp_path / "bounding_boxes.txt").write_text(text)
    with pytest.raises(
        ValueError, match=r"boxes.txt gives Bird_1_2.png the box .* empty or outside its 40 x 30"
    ):
        data.load(f"cub200:{tmp_path}", image_size=16, progress=False)
    read = data.load(f"cub200:{tmp_path}", image_size=16, skip_unreadable=True, progress=False)
    assert read.boxes.image.tolist() == [1]


def test_boxes_follow_the_images_that_could_be_read(made):
    name, _, root = made
    first = {
        "cub200": "images/010.Bird_1/Bird_1_2.png",
        "cars196": "cars_test/00001.png",
        "aircraft": "data/images/1000002.jpg",
    }[name]
    before = data.load(name, root.parent, image_size=32, progress=False)
    (root / first).write_bytes(b"not an image")
    with pytest.raises(ValueError, match=f"{Path(first).name} cannot be read as an image"):
        data.load(name, root.parent, image_size=32, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = data.load(name, root.parent, image_size=32, skip_unreadable=True, progress=False)
    assert len(read.test) == 1 and read.boxes.image.tolist() == [0]
    assert torch.equal(read.boxes.edges[0], before.boxes.edges[1]) and torch.equal(
        read.test.pixels[0], before.test.pixels[1]
    )


# What is not as it should be


def drop(path, start):
    """Remove the line that begins so."""
    path.write_text(
        "".join(line for line in path.read_text().splitlines(True) if not line.startswith(start))
    )


def swap(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (
            lambda root: (root / "bounding_boxes.txt").unlink(),
            FileNotFoundError,
            "it has no bounding_boxes.txt; remove",
        ),
        (
            lambda root: (root / "images/009.Bird_0/Bird_0_0.png").unlink(),
            ValueError,
            r"names '009.Bird_0/Bird_0_0.png', which is not in .*images \(1 such images\)",
        ),
        (
            lambda root: drop(root / "bounding_boxes.txt", "17 "),
            ValueError,
            "boxes.txt has no line for the image '17'",
        ),
        (
            lambda root: drop(root / "train_test_split.txt", "3 "),
            ValueError,
            "split.txt has no line for the image '3'",
        ),
        (
            lambda root: drop(root / "classes.txt", "9 "),
            ValueError,
            "labels.txt names the class '9', which is not among",
        ),
        (
            lambda root: swap(root / "classes.txt", "10 ", "ten "),
            ValueError,
            "must number the classes, got 'ten'",
        ),
        (
            lambda root: swap(root / "train_test_split.txt", "3 1", "3 2"),
            ValueError,
            "must say 0 or 1",
        ),
        (
            lambda root: swap(root / "bounding_boxes.txt", "17 10.0 ", "17 wide "),
            ValueError,
            "4 numbers, got 'wide 5.0",
        ),
        (
            lambda root: swap(root / "bounding_boxes.txt", "17 10.0 ", "17 nan "),
            ValueError,
            "4 numbers, got 'nan 5.0",
        ),
        (
            lambda root: swap(root / "bounding_boxes.txt", "17 10.0 ", "17 "),
            ValueError,
            "4 numbers, got '5.0 20.0 20.0'",
        ),
        (
            lambda root: swap(root / "images.txt", "10 ", "3 "),
            ValueError,
            "images.txt, line 2: a second one for '3'",
        ),
        (
            lambda root: swap(root / "images.txt", "3 009.Bird_0/Bird_0_0.png", "3"),
            ValueError,
            "no value for '3'",
        ),
        (
            lambda root: swap(root / "images.txt", "009.Bird_0/Bird_0_0", "../../x"),
            ValueError,
            r"'\.\./\.\./x.png', w",
        ),
        (lambda root: (root / "images.txt").write_text(""), ValueError, "images.txt is empty"),
        (
            lambda root: (root / "images.txt").write_bytes(b"\xff\xfe\x00"),
            ValueError,
            "is no text file",
        ),
    ],
)
def test_a_cub_that_is_not_as_it_should_be(tmp_path, spoil, error, says):
    small_cub(tmp_path)
    spoil(tmp_path)
    with pytest.raises(error, match=says):
        data.load(f"cub200:{tmp_path}", progress=False)
    assert caches(tmp_path) == []


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (
            lambda root: (root / "cars_test_annos_withlabels.mat").unlink(),
            FileNotFoundError,
            "server of Stanford Cars is gone.*cars_test_annos_withlabels.mat into",
        ),
        (
            lambda root: (root / "devkit/cars_test_annos.mat").replace(
                root / "cars_test_annos_withlabels.mat"
            ),
            ValueError,
            "does not tell the 'class' of its images",
        ),
        (
            lambda root: (root / "cars_train/00001.png").unlink(),
            ValueError,
            "names '00001.png', which is not in .*train",
        ),
        (
            lambda root: (root / "devkit/cars_meta.mat").write_bytes(b"<html>"),
            ValueError,
            "cars_meta.mat is no MATLAB",
        ),
        (
            lambda root: (root / "devkit/cars_meta.mat").replace(
                root / "devkit/cars_train_annos.mat"
            ),
            FileNotFoundError,
            "there is no .*cars_meta.mat",
        ),
    ],
)
def test_cars_that_are_not_as_they_should_be(tmp_path, spoil, error, says):
    small_cars(tmp_path)
    spoil(tmp_path)
    with pytest.raises(error, match=says):
        data.load(f"cars196:{tmp_path}", progress=False)
    assert caches(tmp_path) == []


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (
            lambda root: (root / "data/images_box.txt").unlink(),
            FileNotFoundError,
            "it has no data/images_box.txt",
        ),
        (
            lambda root: (root / "data/images/1000000.jpg").unlink(),
            ValueError,
            "trainval.txt names '1000000.jpg', which",
        ),
        (
            lambda root: drop(root / "data/images_box.txt", "1000002"),
            ValueError,
            "no line for the image '1000002'",
        ),
        (
            lambda root: swap(root / "data/variants.txt", "A340", "A380"),
            ValueError,
            "names the class 'A340', which is",
        ),
        (
            lambda root: marked(root / "data/images/1000000.jpg", (0, 0, 1, 1), (40, 20)),
            ValueError,
            "20 rows, of which",
        ),
    ],
)
def test_an_aircraft_that_is_not_as_it_should_be(tmp_path, spoil, error, says):
    small_aircraft(tmp_path)
    spoil(tmp_path)
    with pytest.raises(error, match=says):
        data.load(f"aircraft:{tmp_path}", progress=False)
    assert caches(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cub200:{}/none", "there is no folder .*none with CUB-200-2011"),
        ("aircraft:{}/none", "there is no folder .*none with FGVC-Aircraft"),
        ("cars196:{}/none", "there is no .*none/.*cars_meta.mat.* into .*none"),
        ("cars196", "there is no .*stanford_cars/devkit/cars_meta.mat.*into .*stanford_cars"),
    ],
)
def test_absent_folders_are_named_and_not_made(tmp_path, name, says):
    with pytest.raises(FileNotFoundError, match=says):
        data.load(name.format(tmp_path), tmp_path / "store", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "archive"), [("cub200", CUB200), ("aircraft", AIRCRAFT)])
def test_what_is_absent_is_downloaded(tmp_path, monkeypatch, name, archive):
    def made_up(asked, data_dir, _):
        assert asked == archive
        MAKERS[name][0](data_dir / archive.folder)
        return data_dir / archive.folder

    monkeypatch.setattr("catchup.data.sets.finegrained.obtain", made_up)
    assert len(data.load(name, tmp_path, image_size=16, progress=False).test) == 2
