"""ImageNet and ImageNet-O by folder, and images without a training part: small folders, and the
real DTD if there.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import catchup.data as data
from catchup.data import sources
from catchup.data.sets.imagenet import list_picture_folder

DTD = Path(__file__).resolve().parents[3] / "data/dtd-32"


def picture(path, shade, size=(12, 9)):
    """One even colour, so that no resizing changes it; JPEG as the real ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade,) * 3).save(path, quality=95)


def shades(images):
    """The colour of every image."""
    return images.pixels.float().mean((1, 2, 3)).round().int().tolist()


WNIDS = ("n01440764", "n01443537", "n02123045")


def small_imagenet(root):
    """Three classes; image i of class c has the shade 40 c + 10 i in train/, 5 more in val/."""
    for c, wnid in enumerate(WNIDS):
        for i in range(2):
            picture(root / f"train/{wnid}/{wnid}_{i}.JPEG", 40 * c + 10 * i)
            picture(
                root / f"val/{wnid}/ILSVRC2012_val_{2 * c + i + 1:08}.JPEG", 40 * c + 10 * i + 5
            )


def flattened(root, order=(3, 0, 5, 1, 4, 2)):
    """`val/` as published: flat, in another order than the classes', with the devkit; returns the
    labels in order.
    """
    from scipy.io import savemat

    files = sorted((root / "val").rglob("*.JPEG"))
    labels = [order[place] // 2 for place in range(6)]
    for place, i in enumerate(order):
        os.replace(files[i], root / f"val/flat_{place + 1:08}.JPEG")
    for wnid in WNIDS:
        (root / "val" / wnid).rmdir()
    # not the order of the wnids, as in the real devkit
    ids = {WNIDS[0]: 2, WNIDS[1]: 9, WNIDS[2]: 1}
    kind = [(name, "O") for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    synsets = np.array(
        [[(ids[wnid], wnid, "a word", "a gloss", 0)] for wnid in WNIDS]
        + [[(1001, "n00001740", "entity", "a gloss", 3)]],
        dtype=kind,
    )
    devkit = root / "ILSVRC2012_devkit_t12/data"
    devkit.mkdir(parents=True)
    savemat(devkit / "meta.mat", {"synsets": synsets})
    truth = "".join(f"{ids[WNIDS[label]]}\n" for label in labels)
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    return labels


def caches(root):
    return [path.name for path in root.rglob(".catchup-cache-*")]


# ImageNet


@pytest.mark.parametrize("place", ["path", "data_dir"])
def test_imagenet_is_read_by_folder(tmp_path, place):
    small_imagenet(tmp_path / "imagenet")
    name = "imagenet" if place == "data_dir" else f"imagenet:{tmp_path / 'imagenet'}"
    read = data.load(name, tmp_path, image_size=16, progress=False)
    assert read.train.classes == WNIDS and read.test.classes == WNIDS
    assert shades(read.train) == [0, 10, 40, 50, 80, 90] and read.train.labels.tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert shades(read.test) == [5, 15, 45, 55, 85, 95] and read.test.labels.tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert read.train.pixels.shape[2:] == (16, 16) and read.test.pixels.shape[2:] == (14, 14)
    assert read.augmentation == data.Augmentation(window=14, flip=True) and read.boxes is None
    assert read.mean == (0.485, 0.456, 0.406) and read.std == (0.229, 0.224, 0.225)


def test_the_protocol_stands_where_no_size_is_named(tmp_path):
    small_imagenet(tmp_path)
    read = data.load(f"imagenet:{tmp_path}", progress=False)
    assert read.train.pixels.shape[2:] == (256, 256) and read.test.pixels.shape[2:] == (224, 224)


def test_a_flat_val_takes_its_classes_from_the_devkit(tmp_path):
    small_imagenet(tmp_path)
    labels = flattened(tmp_path)
    read = data.load(f"imagenet:{tmp_path}", image_size=16, progress=False)
    assert read.test.labels.tolist() == labels == [1, 0, 2, 0, 2, 1]
    assert [shade // 40 for shade in shades(read.test)] == labels


def test_validation_images_need_no_training_images(tmp_path):
    small_imagenet(tmp_path)
    both = data.load(f"imagenet:{tmp_path}", image_size=16, progress=False)
    for path in sorted((tmp_path / "train").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "train").rmdir()
    alone = data.load_images(f"imagenet:{tmp_path}", image_size=16, window=14, progress=False)
    assert torch.equal(alone.pixels, both.test.pixels) and torch.equal(
        alone.labels, both.test.labels
    )
    some = data.load_images(
        f"imagenet:{tmp_path}", image_size=16, classes=WNIDS[1:], progress=False
    )
    assert (
        some.classes == WNIDS
        and some.labels.tolist() == [1, 1, 2, 2]
        and shades(some) == [45, 55, 85, 95]
    )
    flattened(tmp_path)
    some = data.load_images(
        f"imagenet:{tmp_path}", image_size=16, classes=(WNIDS[2],), progress=False
    )
    assert some.labels.tolist() == [2, 2] and sorted(shades(some)) == [85, 95]


def remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


@pytest.mark.parametrize(
    ("flat", "spoil", "error", "says"),
    [
        (
            False,
            lambda root: remove(root / "train"),
            FileNotFoundError,
            "no folder .*train. ImageNet may not be down",
        ),
        (
            False,
            lambda root: remove(root / "val"),
            FileNotFoundError,
            "no folder .*val. ImageNet .*ILSVRC2012_img_val.tar",
        ),
        (
            False,
            lambda root: remove(root / "train" / WNIDS[0]),
            ValueError,
            f"val holds the class '{WNIDS[0]}', which",
        ),
        (
            False,
            lambda root: [remove(root / "train" / wnid) for wnid in WNIDS[1:]],
            ValueError,
            "at least 2 classes",
        ),
        (
            False,
            lambda root: [path.unlink() for path in (root / "train" / WNIDS[1]).iterdir()],
            ValueError,
            f"class folder .*{WNIDS[1]} holds no images",
        ),
        (
            False,
            lambda root: [remove(root / "val" / wnid) for wnid in WNIDS],
            FileNotFoundError,
            "val holds no images: ",
        ),
        (
            True,
            lambda root: (root / TRUTH).unlink(),
            FileNotFoundError,
            "no folder for each class: sort them .*devkit_t12",
        ),
        (
            True,
            lambda root: (root / TRUTH).write_text("2\n"),
            ValueError,
            "not tell the class of .*val/flat_00000002.JPEG",
        ),
        (
            True,
            lambda root: (root / TRUTH).write_text("1001\n" * 6),
            ValueError,
            "not tell the class of .*flat_00000001",
        ),
        (
            True,
            lambda root: picture(root / "val/mine.jpg", 0),
            ValueError,
            "not tell the class of .*val/mine.jpg",
        ),
        (
            True,
            lambda root: (root / TRUTH).with_name("meta.mat").write_bytes(b"<html>"),
            ValueError,
            "meta.mat is not the",
        ),
        (
            True,
            lambda root: remove(root / "train" / WNIDS[2]),
            ValueError,
            f"holds the class '{WNIDS[2]}', which",
        ),
    ],
)
def test_an_imagenet_that_is_not_as_it_should_be(tmp_path, flat, spoil, error, says):
    small_imagenet(tmp_path)
    if flat:
        flattened(tmp_path)
    spoil(tmp_path)
    with pytest.raises(error, match=says):
        data.load(f"imagenet:{tmp_path}", progress=False)
    assert caches(tmp_path) == []


def test_a_training_set_that_does_not_fit_is_refused_before_a_file_is_opened(tmp_path, monkeypatch):
    small_imagenet(tmp_path)
    for path in (tmp_path / "train").rglob("*.JPEG"):
        path.write_bytes(b"")
    monkeypatch.setattr("catchup.data.files.memory.available_bytes.__defaults__", (tmp_path,))
    for name, text in (("memory.max", "1000000"), ("memory.current", "0")):
        (tmp_path / name).write_text(text)
    with pytest.raises(
        ValueError,
        match=r"12 images of 256 x 256 out of .* need 0.0 GiB .*image_size of at most 144",
    ):
        data.load(f"imagenet:{tmp_path}", progress=False, loader="resident")


# ImageNet-O


def test_imagenet_o_chooses_the_classes_of_imagenet(tmp_path, monkeypatch):
    monkeypatch.setattr("catchup.data.sets.imagenet.IMAGES_O", 2)
    small_imagenet(tmp_path / "imagenet")
    for c in (1, 2):
        picture(tmp_path / f"imagenet-o/{WNIDS[c]}/x.JPEG", 200 + c)
    (tmp_path / "imagenet-o/README.txt").write_text("terms")
    outside = data.load_images("imagenet-o", tmp_path, image_size=16, progress=False)
    assert outside.classes == WNIDS[1:] and shades(outside) == [201, 202]
    inside = data.load_images(
        "imagenet", tmp_path, image_size=16, classes=outside.classes, progress=False
    )
    assert (
        set(inside.labels.tolist()) == {1, 2}
        and inside.pixels.shape[1:] == outside.pixels.shape[1:]
    )
    for where in (tmp_path, tmp_path / "imagenet-o"):
        again = data.load_images(f"imagenet-o:{where}", image_size=16, progress=False)
        assert torch.equal(again.pixels, outside.pixels)


def test_imagenet_o_is_downloaded_where_it_is_absent(tmp_path, monkeypatch):
    def made_up(archive, data_dir, _):
        assert archive.file == "imagenet-o.tar"
        picture(data_dir / f"imagenet-o/{WNIDS[0]}/x.JPEG", 7)
        return data_dir / "imagenet-o"

    monkeypatch.setattr("catchup.data.sets.imagenet.obtain", made_up)
    with pytest.raises(
        ValueError, match="holds 1 of ImageNet-O's 2000 images: remove the folder .*imagenet-o:/"
    ):
        data.load_images("imagenet-o", tmp_path, image_size=8, progress=False)
    monkeypatch.setattr("catchup.data.sets.imagenet.IMAGES_O", 1)
    assert shades(data.load_images("imagenet-o", tmp_path, image_size=8, progress=False)) == [7]


def test_validation_images_of_every_class_are_wanted(tmp_path):
    small_imagenet(tmp_path)
    shutil.rmtree(tmp_path / "val" / WNIDS[1])
    with pytest.raises(
        ValueError, match=f"no images of 1 of the 3 classes, .*'{WNIDS[1]}' among them: unpack"
    ):
        data.load(f"imagenet:{tmp_path}", progress=False)
    # alone they tell the classes
    assert len(data.load_images(f"imagenet:{tmp_path}", progress=False).classes) == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("imagenet-o", "imagenet-o has no training images: it is for catchup.data.load_images"),
        (
            "cifar100-c",
            "cifar100-c has no training images: its folder is for evaluate --tests corruption",
        ),
    ],
)
def test_what_cannot_be_trained_on_says_what_it_is_for(tmp_path, name, says):
    with pytest.raises(ValueError, match=says):
        data.load(name, tmp_path)


# Images without a training part


def test_folders_of_images_are_classes(tmp_path):
    picture(tmp_path / "zebra/deep/er/1.png", 30)
    picture(tmp_path / "zebra/0.png", 20)
    picture(tmp_path / "ant/0.png", 10)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("passed over")
    read = data.load_images(f"folder:{tmp_path}", progress=False)
    assert (
        read.classes == ("ant", "zebra")
        and read.labels.tolist() == [0, 1, 1]
        and shades(read) == [10, 20, 30]
    )
    assert read.pixels.shape[2:] == (9, 12)
    assert data.load_images(
        f"folder:{tmp_path}", image_size=6, window=4, progress=False
    ).pixels.shape[2:] == (4, 4)
    assert shades(data.load_images(f"folder:{tmp_path}", classes=["ant"], progress=False)) == [10]


def test_a_flat_folder_is_one_class_of_its_name(tmp_path):
    for i in range(3):
        picture(tmp_path / f"textures/{i}.png", 10 * i)
    read = data.load_images(f"folder:{tmp_path / 'textures'}", progress=False)
    assert read.classes == ("textures",) and shades(read) == [0, 10, 20]


def test_of_class_folders_with_a_split_the_test_images_are_taken(tmp_path):
    for part, shade in (("train", 100), ("test", 50)):
        for c, name in enumerate(("ant", "bee")):
            picture(tmp_path / f"{part}/{name}/0.png", shade + c)
    assert shades(data.load_images(f"folder:{tmp_path}", progress=False)) == [50, 51]
    # that of the whole is not displaced
    assert caches(tmp_path) and not list(tmp_path.glob(".catchup-cache-*"))
    assert list_picture_folder(tmp_path / "train").classes == ("ant", "bee")


def test_of_any_data_set_the_test_images_are_taken():
    assert torch.equal(data.load_images("digits").pixels, data.load("digits").test.pixels)
    assert data.load_images("digits", image_size=20, window=16).pixels.shape == (500, 1, 16, 16)
    whole, middle = (data.load_images("digits", window=window).pixels for window in (None, 4))
    assert torch.equal(middle, whole[:, :, 2:6, 2:6])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"name": "folder"}, "needs the folder to read"),
        ({"name": "nowhere"}, "unknown data set 'nowhere'"),
        ({"name": "digits", "window": 9}, "a window of 9 pixels does not fit into images of 8 x 8"),
        ({"name": "digits", "window": 0}, "window must be"),
        ({"name": "digits", "window": True}, "window must be"),
        (
            {"name": "digits", "classes": ["0"]},
            "the classes of digits cannot be chosen; they can for: folder, imagenet",
        ),
        ({"name": "folder:{}/both"}, "both images and folders of images"),
        ({"name": "folder:{}/none"}, "holds no images, nor folders"),
        ({"name": "folder:{}/good", "classes": ["b"]}, "good has no class 'b'"),
        ({"name": "folder:{}/good", "classes": []}, "no images of the 0 classes"),
    ],
)
def test_images_that_cannot_be_read_as_asked(tmp_path, how, says):
    picture(tmp_path / "both/0.png", 0)
    picture(tmp_path / "both/a/0.png", 0)
    picture(tmp_path / "good/a/0.png", 0)
    (tmp_path / "none/a").mkdir(parents=True)
    with pytest.raises(ValueError, match=says):
        data.load_images(**{**how, "name": how["name"].format(tmp_path)}, progress=False)


def test_a_missing_folder_is_named(tmp_path):
    for name in ("folder", "imagenet-o", "imagenet"):
        with pytest.raises(FileNotFoundError, match="there is no folder .*none"):
            data.load_images(f"{name}:{tmp_path / 'none'}", progress=False)


def test_every_source_can_be_read_in_some_way():
    for name, source in sources.SOURCES.items():
        assert source.read or source.images_of or source.archive, name


def test_the_real_textures_fit_beside_cifar():
    if not DTD.is_dir():
        pytest.skip("the real textures do not lie beside the repository")
    textures = data.load_images(f"folder:{DTD}", progress=False)
    folders = sorted(path for path in DTD.iterdir() if path.is_dir())
    files = [file for folder in folders for file in sorted(folder.glob("*.png"))]
    assert textures.classes == tuple(folder.name for folder in folders)
    assert textures.pixels.shape == (len(files), 3, 32, 32)
    last = np.asarray(Image.open(files[-1]).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(textures.pixels[-1].numpy(), last)
