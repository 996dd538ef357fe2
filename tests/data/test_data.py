"""Data sets in their true layouts, made small in a temporary folder; the real files where they lie
beside the code.
"""

import hashlib
import pickle
import subprocess
import sys
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import catchup.data as data
from catchup.data import Images
from catchup.data.files import decode
from catchup.data.images import Dataset, subset_indices
from catchup.data.sets.readers import channel_statistics

UNPACK = Path(__file__).resolve().parents[3] / "shared/data/unpack.py"


def picture(path, seed=0, size=(8, 8), grey=False):
    """Write random pixels of (width, height) `size` to `path` and return them."""
    shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def small_folder(root, test="test", **options):
    """Two classes, 3 training images each and 2 for testing; returns the pixels in reading
    order.
    """
    return [
        picture(root / split / name / f"{i}.png", seed=100 * s + 10 * c + i, **options)
        for s, (split, count) in enumerate((("train", 3), (test, 2)))
        for c, name in enumerate(("cat", "dog"))
        for i in range(count)
    ]


def small_tiny(root):
    """Two classes in the official layout, in another order than the alphabet's; returns the
    training pixels.
    """
    (root / "val/images").mkdir(parents=True)
    (root / "wnids.txt").write_text("n02\nn01\n")
    kept = [
        picture(root / f"train/{wnid}/images/{wnid}_{i}.png", seed=10 * c + i)
        for c, wnid in enumerate(("n02", "n01"))
        for i in range(2)
    ]
    for i in range(3):
        picture(root / f"val/images/val_{i}.png", seed=50 + i)
    rows = [f"val_{i}.png\t{wnid}\t0\t0\t7\t7" for i, wnid in ((2, "n01"), (0, "n02"), (1, "n01"))]
    (root / "val/val_annotations.txt").write_text("\n".join(rows) + "\n")
    return kept


def caches(root):
    return sorted(path.name for path in root.iterdir() if path.name.startswith(".catchup-cache-"))


def some_images(per_class=(6, 10)):
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(per_class)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))]
    pixels = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    return Images(pixels, labels, tuple(f"c{i}" for i in range(len(per_class))))


# Images and subsets


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pixels": torch.zeros(2, 1, 4, 4)}, "pixels must be uint8"),
        ({"pixels": torch.zeros(2, 4, 4, dtype=torch.uint8)}, "pixels must be uint8"),
        ({"pixels": torch.zeros(0, 1, 4, 4, dtype=torch.uint8)}, "not empty"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels must be int64 \(2,\)"),
        ({"labels": torch.zeros(2, dtype=torch.int32)}, "labels must be int64"),
        ({"labels": torch.tensor([0, 2])}, r"labels must lie in \[0, 1\], got 0 to 2"),
        ({"labels": torch.tensor([-1, 0])}, r"labels must lie in \[0, 1\], got -1 to 0"),
        ({"classes": ("a", "a")}, "different names"),
        ({"classes": ()}, "different names"),
    ],
)
def test_images_refuse(change, says):
    good = {
        "pixels": torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        "labels": torch.tensor([0, 1]),
        "classes": ("a", "b"),
    }
    with pytest.raises(ValueError, match=says):
        Images(**{**good, **change})


def test_take_follows_the_indices():
    images = some_images()
    taken = images.take([3, 0, 3])
    assert len(taken) == 3 and taken.classes == images.classes
    assert taken.pixels.flatten().tolist() == [3, 0, 3]
    assert taken.labels.tolist() == [images.labels[i].item() for i in (3, 0, 3)]
    assert torch.equal(images.to("cpu").pixels, images.pixels)


@pytest.mark.parametrize(
    "indices", [[], torch.ones(16, dtype=torch.bool), [0.5], torch.zeros(1, 1, dtype=torch.int64)]
)
def test_take_refuses(indices):
    with pytest.raises(ValueError, match="indices must be"):
        some_images().take(indices)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(1, [1, 1]), (6, [6, 6]), (1.0, [6, 10]), (0.5, [3, 5]), (0.25, [2, 3]), (0.1, [1, 1])],
)
def test_subset_keeps_the_share_of_each_class(amount, expected):
    part = data.subset(some_images(), amount, seed=0)
    assert part.labels.bincount().tolist() == expected
    values = part.pixels.flatten().tolist()
    assert values == sorted(set(values))


def test_subset_depends_on_the_seed_alone_and_grows_by_adding():
    images = some_images((50, 50))
    small, again, large, other = (
        set(subset_indices(images, amount, seed).tolist())
        for amount, seed in ((5, 0), (5, 0), (0.2, 0), (5, 1))
    )
    assert small == again and small < large and small != other


def test_every_image_is_as_likely_to_be_kept():
    images = some_images((5, 5))
    times = sum(
        torch.zeros(10).index_fill(0, subset_indices(images, 1, seed), 1) for seed in range(2000)
    )
    assert (times / 2000 - 0.2).abs().max() < 0.045  # 5 standard deviations


@pytest.mark.parametrize(
    ("amount", "says"),
    [
        (0, "got 0; class 'c0' has 6"),
        (-2, "got -2"),
        (7, "no more than there are, got 7; class 'c0' has 6"),
        (0.0, r"a share must lie in \(0, 1\], got 0.0"),
        (-0.5, "got -0.5"),
        (1.5, "got 1.5"),
        (float("nan"), "got nan"),
        (0.05, "share of 0.05 would leave a class without images; class 'c0' has 6"),
        (True, "got True"),
        ("0.5", "got '0.5'"),
    ],
)
def test_subset_refuses(amount, says):
    with pytest.raises(ValueError, match=says):
        data.subset(some_images(), amount, seed=0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mean": (0.5, 0.5)}, "each of 1 channels"),
        ({"std": (0.0,)}, "std must be greater than 0"),
        (
            {
                "test": Images(
                    torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([0, 1]), ("x", "y")
                )
            },
            "same classes",
        ),
        (
            {
                "test": Images(
                    torch.zeros(2, 1, 1, 2, dtype=torch.uint8), torch.tensor([0, 1]), ("c0", "c1")
                )
            },
            "one shape",
        ),
    ],
)
def test_dataset_refuses_parts_that_do_not_fit(change, says):
    good = {
        "name": "n",
        "train": some_images(),
        "test": some_images(),
        "mean": (0.5,),
        "std": (0.5,),
        "augmentation": data.Augmentation(),
    }
    with pytest.raises(ValueError, match=says):
        Dataset(**{**good, **change})


@pytest.mark.parametrize("channels", [1, 3])
def test_channel_statistics_equal_numpy(channels):
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 200, (1500, channels, 3, 5), dtype=torch.uint8, generator=chance)
    scaled = pixels.numpy() / 255
    mean, std = channel_statistics(pixels)
    np.testing.assert_allclose(mean, scaled.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std(axis=(0, 2, 3)), rtol=1e-12)


# Names


def test_unknown_names_are_answered_with_the_list_and_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown data set 'cifar'\. Did you mean 'cifar10.*tiny-imagenet"
    ):
        data.load("cifar")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("folder", "needs the folder to read"),
        ("folder:", "needs a path after the colon"),
        ("digits:here", "takes no path"),
        ("tiny-imagenet:", "needs a path after the colon"),
    ],
)
def test_paths_go_where_they_belong(name, says):
    with pytest.raises(ValueError, match=says):
        data.load(name)


@pytest.mark.parametrize("image_size", [0, -3, 2.5, True])
def test_image_size_is_a_number_of_pixels(image_size):
    with pytest.raises(ValueError, match="image_size must be"):
        data.load("digits", image_size=image_size)


def test_describe_names_every_source_and_touches_nothing(tmp_path):
    rows = data.describe(tmp_path / "none")
    assert tuple(row.name for row in rows) == data.names()
    assert {row.name: row.present for row in rows} == {
        "digits": True,
        "shapes": True,
        "cifar10": False,
        "cifar100": False,
        "tiny-imagenet": False,
        "folder": None,
        "cub200": False,
        "cars196": False,
        "aircraft": False,
        "imagenet": False,
        "imagenet-o": False,
        "cifar100-c": False,
    }
    assert not (tmp_path / "none").exists()
    small_tiny(tmp_path / "tiny-imagenet-200")
    (tmp_path / "cifar-100-python").mkdir()
    assert [row.present for row in data.describe(tmp_path)] == [
        True,
        True,
        False,
        True,
        True,
        None,
        *[False] * 6,
    ]


# digits


def test_digits_are_scikit_learns_split_once_and_for_all():
    from sklearn.datasets import load_digits

    digits = data.load("digits", "nowhere")
    assert (
        digits.train.pixels.shape == (1297, 1, 8, 8)
        and digits.test.labels.bincount().tolist() == [50] * 10
    )
    assert digits.augmentation == data.Augmentation(pad=1)
    stored = load_digits()
    labels = torch.cat([digits.train.labels, digits.test.labels])
    ours = (
        torch.cat([digits.train.pixels, digits.test.pixels]).flatten(1).numpy() / 255 * 16
    ).round()
    assert sorted(zip(labels.tolist(), ours.tolist())) == sorted(
        zip(stored.target.tolist(), stored.data.tolist())
    )
    assert torch.equal(data.load("digits").test.pixels, digits.test.pixels)
    assert digits.train.pixels.unique().tolist() == [round(ink * 255 / 16) for ink in range(17)]
    np.testing.assert_allclose(digits.mean[0], digits.train.pixels.numpy().mean() / 255)


def test_digits_at_another_size():
    digits = data.load("digits", image_size=32)
    assert digits.train.pixels.shape[1:] == (1, 32, 32) and digits.augmentation.pad == 4
    assert abs(digits.mean[0] - data.load("digits").mean[0]) < 0.01


# CIFAR


def small_cifar(folder, monkeypatch, kind, key, names_key):
    """Python pickles as published, three images each; the checksums torchvision knows are replaced
    by theirs.
    """
    chance, files = np.random.default_rng(0), {}
    folder.mkdir(parents=True)
    for name, _ in kind.train_list + kind.test_list:
        files[name] = {"data": chance.integers(0, 256, (3, 3072), dtype=np.uint8), key: [2, 0, 1]}
    files[kind.meta["filename"]] = {names_key: ["x", "y", "z"]}
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content))
    md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in files}
    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(
            kind, attribute, [[name, md5[name]] for name, _ in getattr(kind, attribute)]
        )
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5[kind.meta["filename"]]})
    return files


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, monkeypatch):
    """Name, torchvision class, and the pickle keys of one of the two."""
    from torchvision import datasets

    kind = getattr(datasets, request.param.upper())
    keys = {"cifar10": ("labels", "label_names"), "cifar100": ("fine_labels", "fine_label_names")}[
        request.param
    ]
    return request.param, kind, lambda folder: small_cifar(folder, monkeypatch, kind, *keys)


def test_cifar_reads_the_published_layout(tmp_path, cifar):
    name, kind, write = cifar
    files = write(tmp_path / kind.base_folder)
    read = data.load(name, tmp_path)
    expected = np.concatenate([files[file]["data"] for file, _ in kind.train_list]).reshape(
        -1, 3, 32, 32
    )
    np.testing.assert_array_equal(read.train.pixels.numpy(), expected)
    assert read.test.labels.tolist() == [2, 0, 1] and read.test.classes == ("x", "y", "z")
    assert read.augmentation == data.Augmentation(pad=4, flip=True) and read.mean == (
        0.4914,
        0.4822,
        0.4465,
    )
    assert read.std == (0.2023, 0.1994, 0.2010)


def test_cifar_out_of_an_archive_that_lies_there(tmp_path, cifar, monkeypatch):
    name, kind, write = cifar
    write(tmp_path / "elsewhere" / kind.base_folder)
    with tarfile.open(tmp_path / kind.filename, "w:gz") as archive:
        archive.add(tmp_path / "elsewhere" / kind.base_folder, kind.base_folder)
    monkeypatch.setattr(
        kind, "tgz_md5", hashlib.md5((tmp_path / kind.filename).read_bytes()).hexdigest()
    )
    assert len(data.load(name, tmp_path).test) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["elsewhere", kind.base_folder, kind.filename]
    )


def test_a_damaged_cifar_folder_is_named(tmp_path, cifar):
    name, kind, write = cifar
    write(tmp_path / kind.base_folder)
    (tmp_path / kind.base_folder / kind.test_list[0][0]).write_bytes(b"cut off")
    with pytest.raises(ValueError, match=f"{kind.base_folder} is damaged"):
        data.load(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "archive"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("tiny-imagenet", "tiny-imagenet-200.zip"),
    ],
)
def test_a_failed_download_says_what_to_put_where_and_leaves_nothing(
    tmp_path, monkeypatch, name, archive
):
    def refuse(url, file, *_):
        assert file.name == archive
        file.write_bytes(b"the first half")
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("catchup.data.files.archives.fetch", refuse)
    with pytest.raises(
        FileNotFoundError, match=f"no route to host.* put the file {archive}, .* into .*store"
    ):
        data.load(name, tmp_path / "my/store")
    assert list(tmp_path.iterdir()) == []


# Class folders


@pytest.mark.parametrize("test", ["test", "val"])
def test_folder_reads_every_pixel(tmp_path, test):
    pixels = np.stack(small_folder(tmp_path, test)).transpose(0, 3, 1, 2)
    read = data.load(f"folder:{tmp_path}")
    np.testing.assert_array_equal(torch.cat([read.train.pixels, read.test.pixels]).numpy(), pixels)
    assert read.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and read.test.labels.tolist() == [
        0,
        0,
        1,
        1,
    ]
    assert read.train.classes == ("cat", "dog") and read.augmentation == data.Augmentation(
        pad=1, flip=True
    )
    np.testing.assert_allclose(read.mean, pixels[:6].mean(axis=(0, 2, 3)) / 255)


def test_folder_passes_over_other_files(tmp_path):
    small_folder(tmp_path)
    (tmp_path / "train/cat/notes.txt").write_text("not an image")
    (tmp_path / "train/cat/.hidden.png").write_text("not an image")
    (tmp_path / "train/.git").mkdir()
    assert len(data.load(f"folder:{tmp_path}").train) == 6


def test_grey_images_keep_one_channel_only_where_all_are_grey(tmp_path):
    grey = np.stack(small_folder(tmp_path / "a", grey=True))
    np.testing.assert_array_equal(
        data.load(f"folder:{tmp_path / 'a'}").train.pixels.numpy(), grey[:6, None]
    )
    small_folder(tmp_path / "b")
    one = picture(tmp_path / "b/train/cat/0.png", seed=7, grey=True)
    first = data.load(f"folder:{tmp_path / 'b'}").train.pixels[0].numpy()
    np.testing.assert_array_equal(first, np.stack([one] * 3))


def test_image_size_brings_the_shorter_side_to_it_and_keeps_the_centre(tmp_path):
    from torchvision.transforms import functional as tv

    small_folder(tmp_path, size=(8, 12))
    wide = Image.fromarray(picture(tmp_path / "train/cat/0.png", size=(30, 17)))
    first = data.load(f"folder:{tmp_path}", image_size=5).train.pixels[0]
    np.testing.assert_array_equal(
        first, np.asarray(tv.center_crop(tv.resize(wide, [5, 9]), [5, 5])).transpose(2, 0, 1)
    )


def test_different_sizes_are_named(tmp_path):
    small_folder(tmp_path)
    picture(tmp_path / "test/dog/0.png", size=(9, 8))
    with pytest.raises(
        ValueError, match="cat/0.png has 8 x 8 pixels, .*test/dog/0.png has 9 x 8; give image_size"
    ):
        data.load(f"folder:{tmp_path}")
    assert caches(tmp_path) == []


def remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def empty(folder):
    remove(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda root: remove(root), FileNotFoundError, "there is no folder"),
        (lambda root: remove(root / "train"), FileNotFoundError, "has no folder train/"),
        (
            lambda root: remove(root / "test"),
            FileNotFoundError,
            "neither a folder test/ nor a folder val/",
        ),
        (
            lambda root: empty(root / "train/cat"),
            ValueError,
            "class folder .*train/cat holds no images",
        ),
        (
            lambda root: empty(root / "test/dog"),
            ValueError,
            "class folder .*test/dog holds no images",
        ),
        (lambda root: remove(root / "train/cat"), ValueError, "at least 2 classes, got dog"),
        (lambda root: empty(root / "train"), ValueError, "at least 2 classes, got none"),
        (lambda root: empty(root / "test"), ValueError, "test holds no class folders"),
        (
            lambda root: picture(root / "test/owl/0.png"),
            ValueError,
            "the class 'owl', which .*train lacks",
        ),
    ],
)
def test_a_folder_that_is_not_as_it_should_be(tmp_path, spoil, error, says):
    root = tmp_path / "set"
    small_folder(root)
    spoil(root)
    with pytest.raises(error, match=says):
        data.load(f"folder:{root}")
    assert not root.exists() or caches(root) == []


@pytest.mark.parametrize("damage", ["text", "cut off", "sixteen bits", "nothing"])
def test_an_unreadable_image_is_named_or_skipped_when_told(tmp_path, damage):
    small_folder(tmp_path)
    bad = tmp_path / "train/dog/1.png"
    good = data.load(f"folder:{tmp_path}").train.take([0, 1, 2, 3, 5])
    if damage == "sixteen bits":
        Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(bad)
    else:
        bad.write_bytes(
            {"text": b"hello", "cut off": bad.read_bytes()[:120], "nothing": b""}[damage]
        )
    # the second time from the cache that skipping has left
    for reason in ("(?!as when)", "as when"):
        with pytest.raises(
            ValueError, match=rf"train/dog/1.png cannot be read as an image \({reason}"
        ):
            data.load(f"folder:{tmp_path}")
        with pytest.warns(UserWarning, match="skipped 1 unreadable images in .*: train/dog/1.png"):
            rest = data.load(f"folder:{tmp_path}", skip_unreadable=True)
        assert torch.equal(rest.train.pixels, good.pixels) and rest.train.labels.tolist() == [
            0,
            0,
            0,
            1,
            1,
        ]
        assert len(rest.test) == 4


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ("train/dog", "class 'dog' has no readable training image"),
        ("test", "no readable test image"),
    ],
)
@pytest.mark.filterwarnings("ignore:skipped")
def test_skipping_never_empties_a_class_or_the_test(tmp_path, spoilt, says):
    small_folder(tmp_path)
    for path in (tmp_path / spoilt).rglob("*.png"):
        path.write_bytes(b"hello")
    with pytest.raises(ValueError, match=says):
        data.load(f"folder:{tmp_path}", skip_unreadable=True)


# Tiny-ImageNet


@pytest.mark.parametrize("place", ["path", "path above", "data_dir", "data_dir above"])
def test_tiny_imagenet_is_read_in_the_order_of_its_lists(tmp_path, place):
    root = tmp_path / "tiny-imagenet-200"
    kept = small_tiny(root)
    where = root if "above" not in place else tmp_path
    read = (
        data.load(f"tiny-imagenet:{where}")
        if "path" in place
        else data.load("tiny-imagenet", where)
    )
    assert read.train.classes == ("n02", "n01") and read.train.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(read.train.pixels.numpy(), np.stack(kept).transpose(0, 3, 1, 2))
    assert read.test.labels.tolist() == [1, 0, 1]
    third = np.asarray(Image.open(root / "val/images/val_2.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read.test.pixels[0].numpy(), third)
    assert read.augmentation == data.Augmentation(pad=4, flip=True)


def cut(path, lines):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))


def again(path):
    lines = path.read_text()
    path.write_text(lines + lines.splitlines(keepends=True)[0])


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (
            lambda root: (root / "val/images/val_0.png").unlink(),
            ValueError,
            "names 'val_0.png' in line 2, which is not in",
        ),
        (
            lambda root: (root / "wnids.txt").unlink(),
            FileNotFoundError,
            "it has no wnids.txt. .* remove the folder",
        ),
        (
            lambda root: (root / "val/val_annotations.txt").unlink(),
            FileNotFoundError,
            "it has no val/val_annotations.txt",
        ),
        (
            lambda root: (root / "val/val_annotations.txt").write_text(""),
            ValueError,
            "lists no images",
        ),
        (
            lambda root: (root / "val/val_annotations.txt").write_text("val_1.png"),
            ValueError,
            "the class '' in line 1",
        ),
        (
            lambda root: cut(root / "val/val_annotations.txt", 2),
            ValueError,
            "no line for 1 images .* 'val_1.png' .* cut",
        ),
        (
            lambda root: again(root / "val/val_annotations.txt"),
            ValueError,
            "names 'val_2.png' in 2 lines: mend the line",
        ),
        (
            lambda root: remove(root / "train/n01"),
            FileNotFoundError,
            "no folder for the class 'n01'",
        ),
        (lambda root: empty(root / "train/n01"), ValueError, "train/n01 holds no images"),
        (
            lambda root: (root / "wnids.txt").write_text("n02\n"),
            ValueError,
            "at least 2 classes, got 1",
        ),
        (
            lambda root: (root / "wnids.txt").write_text("n02\nn01\nn02\n"),
            ValueError,
            "names 'n02' more than once",
        ),
    ],
)
def test_a_tiny_imagenet_that_is_not_as_it_should_be(tmp_path, spoil, error, says):
    small_tiny(tmp_path)
    spoil(tmp_path)
    with pytest.raises(error, match=says):
        data.load(f"tiny-imagenet:{tmp_path}")
    assert caches(tmp_path) == []


# The cache


@pytest.fixture
def decodings(monkeypatch):
    """The files that were decoded, one entry for each time."""
    seen, read = [], decode.read_image
    monkeypatch.setattr(
        decode, "read_image", lambda file, *how: seen.append(file) or read(file, *how)
    )
    return seen


def test_the_second_load_decodes_nothing_and_gives_the_same(tmp_path, decodings):
    small_folder(tmp_path)
    first, second = (data.load(f"folder:{tmp_path}") for _ in range(2))
    assert len(decodings) == 10 and len(caches(tmp_path)) == 1
    for split in ("train", "test"):
        assert torch.equal(getattr(first, split).pixels, getattr(second, split).pixels)
        assert torch.equal(getattr(first, split).labels, getattr(second, split).labels)


def test_each_image_size_has_its_own_cache(tmp_path, decodings):
    small_folder(tmp_path)
    for size in (None, 4, None, 4):
        assert data.load(f"folder:{tmp_path}", image_size=size).train.pixels.shape[2] == (size or 8)
    assert len(decodings) == 20 and len(caches(tmp_path)) == 2


@pytest.mark.parametrize("change", ["more", "fewer", "renamed", "rewritten"])
def test_a_changed_folder_is_decoded_anew_and_the_old_cache_goes(tmp_path, decodings, change):
    small_folder(tmp_path)
    data.load(f"folder:{tmp_path}")
    before, file = caches(tmp_path), tmp_path / "train/cat/2.png"
    {
        "more": lambda: picture(tmp_path / "train/cat/9.png"),
        "fewer": file.unlink,
        "renamed": lambda: file.rename(file.with_name("3.png")),
        "rewritten": lambda: picture(file, seed=999),
    }[change]()
    decodings.clear()
    data.load(f"folder:{tmp_path}")
    assert decodings and len(caches(tmp_path)) == 1 and caches(tmp_path) != before


@pytest.mark.parametrize(
    "damage", ["empty", "cut off", "one byte", "pickled", "one array", "other arrays"]
)
def test_a_damaged_cache_is_made_again(tmp_path, decodings, damage):
    small_folder(tmp_path)
    good = data.load(f"folder:{tmp_path}").train.pixels
    cache = tmp_path / caches(tmp_path)[0]
    content = bytearray(cache.read_bytes())
    content[len(content) // 2] ^= 255
    if damage == "pickled":
        np.savez(cache, pixels=np.array([{"a": 1}], dtype=object), skipped=np.array([]))
    elif damage == "one array":
        with open(cache, "wb") as file:
            np.save(file, np.zeros((10, 3, 8, 8), dtype=np.uint8))
    elif damage == "other arrays":
        np.savez(
            cache,
            pixels=np.zeros((4, 3, 8, 8), dtype=np.uint8),
            skipped=np.zeros(0, dtype=np.int64),
        )
    else:
        cache.write_bytes(
            {"empty": b"", "cut off": content[:-200], "one byte": bytes(content)}[damage]
        )
    decodings.clear()
    assert torch.equal(data.load(f"folder:{tmp_path}").train.pixels, good) and len(decodings) == 10
    decodings.clear()
    assert torch.equal(data.load(f"folder:{tmp_path}").train.pixels, good) and decodings == []


@pytest.mark.parametrize("call", ["open", "os.replace"])
def test_a_folder_that_cannot_be_written_does_without(tmp_path, monkeypatch, decodings, call):
    def refuse(*_args, **_options):
        raise PermissionError("read-only file system")

    small_folder(tmp_path)
    (
        monkeypatch.setattr(decode.os, "replace", refuse)
        if call == "os.replace"
        else monkeypatch.setattr(decode, "open", refuse, raising=False)
    )
    for _ in range(2):
        assert len(data.load(f"folder:{tmp_path}").train) == 6
    assert len(decodings) == 20 and caches(tmp_path) == []


# The real files


@pytest.fixture(scope="session", params=["cifar100", "tiny-imagenet"])
def real(request, tmp_path_factory):
    """Two training images and one for testing of every class, unpacked into the layout of their own
    loader.
    """
    if not UNPACK.is_file():
        pytest.skip("the real images do not lie beside the repository")
    folder = tmp_path_factory.mktemp("real") / request.param
    subprocess.run(
        [
            sys.executable,
            UNPACK,
            request.param,
            folder,
            "--per-class",
            "2",
            "--per-class-test",
            "1",
        ],
        check=True,
        capture_output=True,
    )
    return request.param, folder


def test_real_images_equal_pillows(real):
    name, folder = real
    read = data.load(f"{'folder' if name == 'cifar100' else name}:{folder}")
    n_classes, side = {"cifar100": (100, 32), "tiny-imagenet": (50, 64)}[name]
    assert read.train.labels.bincount().tolist() == [2] * n_classes
    assert read.test.labels.bincount().tolist() == [1] * n_classes
    assert read.train.pixels.shape[1:] == (3, side, side)
    last = read.train.classes[-1]
    images = [
        np.asarray(Image.open(path).convert("RGB"))
        for path in sorted((folder / "train" / last).rglob("*.*"))
        if path.suffix in (".png", ".JPEG")
    ]
    np.testing.assert_array_equal(
        read.train.pixels[-2:].numpy(), np.stack(images).transpose(0, 3, 1, 2)
    )
    assert all(0.3 < value < 0.6 for value in channel_statistics(read.train.pixels)[0])
