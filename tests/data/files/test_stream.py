"""Streamed images against resident ones: the same pixels, the same training, in a memory that does
not grow.
"""

import gc
import io
import os
import shutil
import subprocess
from contextlib import closing, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data import picture, small_folder, small_tiny
from test_finegrained import small_cub
from test_imagenet import small_imagenet
from test_training import digest

import catchup.data as data
from benchmarks import streaming as stream_bench
from benchmarks.streaming import footprint, make_pictures
from catchup import Settings, train
from catchup.data import Images, StreamedImages
from catchup.data.augment import centre_crops
from catchup.data.files import decode, stream, survey
from catchup.data.images import subset
from catchup.experiments.evaluation import USUAL, evaluation_of
from catchup.mixers import make
from catchup.models.inference import PixelModel, predict
from catchup.training.trainer import dataset_of, fit, model_of


def mixed_folder(root, count=20):
    """Two classes of files that differ in size and kind: JPEG, grey, with a palette, with alpha."""
    kinds = (("RGB", "jpg"), ("L", "png"), ("P", "gif"), ("RGBA", "png"))
    for split, amount in (("train", count), ("test", 6)):
        for i in range(amount):
            mode, suffix = kinds[i % 4]
            file = root / split / ("cat", "dog")[i % 2] / f"{i:02}.{suffix}"
            picture(file.with_suffix(".bmp"), seed=i, size=(14 + i % 3, 12))
            with Image.open(file.with_suffix(".bmp")) as opened:
                opened.convert(mode).save(file)
            file.with_suffix(".bmp").unlink()


def assert_same(streamed, resident):
    assert isinstance(streamed, StreamedImages) and isinstance(resident, Images)
    assert len(streamed) == len(resident) and streamed.shape == resident.shape == tuple(
        resident.pixels.shape[1:]
    )
    assert torch.equal(streamed.labels, resident.labels) and streamed.classes == resident.classes
    chunks = list(streamed.chunks(7))
    assert torch.equal(torch.cat([chunk.pixels for chunk in chunks]), resident.pixels)
    assert torch.equal(torch.cat([chunk.labels for chunk in chunks]), resident.labels)


def limit_memory(monkeypatch, root, size):
    """As if the container had so many bytes."""
    monkeypatch.setattr("catchup.data.files.memory.available_bytes.__defaults__", (root,))
    for name, text in (("memory.max", str(size)), ("memory.current", "0")):
        (root / name).write_text(text)


# The same images


def mixed_sizes(root):
    mixed_folder(root)
    return f"folder:{root}", 9


def one_size(root):
    small_folder(root)
    return f"folder:{root}", None


def all_grey(root):
    small_folder(root, grey=True)
    return f"folder:{root}", None


def tiny(root):
    small_tiny(root)
    return f"tiny-imagenet:{root}", None


def tiny_resized(root):
    small_tiny(root)
    return f"tiny-imagenet:{root}", 6


def imagenet(root):
    small_imagenet(root)
    return f"imagenet:{root}", None


def cub(root):
    small_cub(root)
    return f"cub200:{root}", 16


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "made", [mixed_sizes, one_size, all_grey, tiny, tiny_resized, imagenet, cub]
)
def test_the_data_sets_are_the_same(tmp_path, made, workers, monkeypatch):
    name, size = made(tmp_path)
    monkeypatch.setattr(stream, "PIECE", 2)  # several pieces, and so workers, for a few images too
    resident = data.load(name, image_size=size, loader="resident", progress=False)
    streamed = data.load(name, image_size=size, loader="stream", workers=workers, progress=False)
    for part in ("train", "test"):
        assert_same(getattr(streamed, part), getattr(resident, part))
    assert (streamed.mean, streamed.std, streamed.augmentation) == (
        resident.mean,
        resident.std,
        resident.augmentation,
    )
    if resident.boxes is None:
        assert streamed.boxes is None
    else:
        assert (
            torch.equal(streamed.boxes.edges, resident.boxes.edges)
            and streamed.boxes.size == resident.boxes.size
        )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """(streamed, resident) training images."""
    root = tmp_path_factory.mktemp("mixed")
    mixed_folder(root)
    return tuple(
        data.load(f"folder:{root}", image_size=11, loader=loader, workers=0, progress=False).train
        for loader in ("stream", "resident")
    )


@pytest.mark.parametrize(("workers", "shared"), [(0, True), (2, True), (0, False), (2, False)])
def test_batches_hold_what_was_asked_for(pair, workers, shared, monkeypatch):
    monkeypatch.setattr(stream, "PIECE", 3)
    if not shared:  # as where processes are not forked
        monkeypatch.setattr(stream, "can_share", lambda workers: False)
    streamed, resident = replace(pair[0], workers=workers), pair[1]
    order = [torch.tensor(batch) for batch in ([3, 1, 3], [0], [7, 6, 5, 4, 3, 2, 1], [19, -1])]
    for got, asked in zip(streamed.batches(order), order, strict=True):
        assert type(got) is Images and torch.equal(got.pixels, resident.pixels[asked])
        assert torch.equal(got.labels, resident.labels[asked]) and got.classes == resident.classes
    assert torch.equal(streamed.take([5, 5, 0]).pixels, resident.pixels[[5, 5, 0]])
    assert list(streamed.batches([])) == []


def test_a_batch_is_not_written_over_by_a_later_one(pair, monkeypatch):
    monkeypatch.setattr(stream, "PIECE", 2)
    kept = list(replace(pair[0], workers=2).chunks(3))
    assert torch.equal(torch.cat([one.pixels for one in kept]), pair[1].pixels)


@pytest.mark.parametrize(
    ("indices", "error"),
    [([], ValueError), ([0.5], ValueError), ([[1]], ValueError), ([20], IndexError)],
)
def test_indices_are_checked_alike(pair, indices, error):
    for images in pair:
        with pytest.raises(error):
            images.take(indices)


@pytest.mark.parametrize(
    "sizes", [[(8, 8)], [(7, 5)], [(10, 10), (7, 7)], [(9, 10), (8, 7), (3, 4)]]
)
def test_the_middle_is_the_same(pair, sizes):
    streamed, pixels = pair[0], pair[1].pixels
    for size in sizes:
        streamed, pixels = streamed.centre_crop(size), centre_crops(pixels, size)
    assert streamed.shape == tuple(pixels.shape[1:]) and torch.equal(
        streamed.take(range(20)).pixels, pixels
    )


def test_subsets_and_parts_stay_on_the_disk(pair):
    for amount in (0.3, 4):
        assert_same(subset(pair[0], amount, seed=3), subset(pair[1], amount, seed=3))
    assert_same(pair[0].part([4, 2]), pair[1].part([4, 2]))


def test_resident_images_in_chunks_are_not_copied(pair):
    images = pair[1]
    chunks = list(images.chunks(6))
    assert [len(chunk) for chunk in chunks] == [6, 6, 6, 2]
    assert chunks[1].pixels.data_ptr() == images.pixels[6:].data_ptr()


def test_nothing_is_drawn_from_the_global_generators(pair, monkeypatch):
    monkeypatch.setattr(stream, "PIECE", 2)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    list(replace(pair[0], workers=2).chunks(5))
    assert (
        torch.equal(torch.get_rng_state(), before[0])
        and (np.random.get_state()[1] == before[1]).all()
    )


def test_images_without_a_training_part(tmp_path):
    small_imagenet(tmp_path)
    for classes in (None, ["n01443537"]):
        assert_same(
            *(
                data.load_images(
                    f"imagenet:{tmp_path}",
                    image_size=10,
                    window=7,
                    classes=classes,
                    loader=loader,
                    workers=0,
                    progress=False,
                )
                for loader in ("stream", "resident")
            )
        )


def test_a_predictions_logits_are_the_same_bits(pair):
    torch.manual_seed(0)
    model = PixelModel(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(324, 2)),
        (0.5,) * 3,
        (0.25,) * 3,
    )
    streamed, resident = (predict(model, images, batch_size=6) for images in pair)
    with torch.no_grad():
        plain = torch.cat([model(pixels.float() / 255) for pixels in pair[1].pixels.split(6)])
    assert torch.equal(streamed, resident) and torch.equal(resident, plain)


# Which loader


def test_auto_streams_what_does_not_fit(tmp_path, monkeypatch):
    small_folder(tmp_path)  # 10 images of 192 bytes
    for size, image_size, kind in (
        (2560, None, Images),
        (2559, None, StreamedImages),
        (640, 4, Images),
        (639, 4, StreamedImages),
    ):
        limit_memory(monkeypatch, tmp_path, size)
        if kind is Images:
            loaded = data.load(f"folder:{tmp_path}", image_size=image_size)
        else:
            with pytest.warns(
                UserWarning,
                match="10 images of . x . do not fit into memory: folder:.* is streamed",
            ):
                loaded = data.load(f"folder:{tmp_path}", image_size=image_size)
        assert type(loaded.train) is type(loaded.test) is kind
    with pytest.raises(ValueError, match="10 images of 4 x 4 .*stream them"):
        data.load(f"folder:{tmp_path}", image_size=4, loader="resident")


def test_what_lies_in_no_files_is_not_streamed():
    with pytest.raises(
        ValueError,
        match="the images of digits are no files.*tiny-imagenet, folder.*auto or resident",
    ):
        data.load("digits", loader="stream")
    with pytest.raises(ValueError, match="unknown loader 'streem'. Did you mean 'stream'"):
        data.load("digits", loader="streem")
    with pytest.raises(
        ValueError, match="workers must be an integer of at least 0, or None, got -1"
    ):
        data.load("digits", workers=-1)


def test_all_pixels_at_once_where_they_fit(pair, tmp_path, monkeypatch):
    assert torch.equal(replace(pair[0]).pixels, pair[1].pixels)
    limit_memory(monkeypatch, tmp_path, 1000)
    with pytest.raises(ValueError, match="20 images of 11 x 11 .* a part of the images"):
        replace(pair[0]).pixels  # noqa: B018
    assert len(replace(pair[0]).part([1, 2]).pixels) == 2


# Files that cannot be read


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_spoilt_in_mid_training_is_named(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(stream, "PIECE", 2)
    mixed_folder(tmp_path)
    images = data.load(f"folder:{tmp_path}", image_size=9, loader="stream", workers=workers).train
    (tmp_path / "train/dog/05.png").write_bytes(b"no image")
    seen = 0
    with pytest.raises(
        ValueError, match=r"train/dog/05\.png cannot be read as an image .*mend or remove it"
    ):
        for batch in images.chunks(4):
            seen += len(batch)
    assert seen == 12  # the ten cats and dogs 1 and 3 come before


def test_a_file_that_changed_is_named(tmp_path):
    small_folder(tmp_path, grey=True)
    images = data.load(f"folder:{tmp_path}", loader="stream", workers=0).train
    picture(tmp_path / "train/cat/1.png", size=(8, 7), grey=True)
    with pytest.raises(ValueError, match=r"cat/1\.png has 8 x 7; give image_size"):
        images.take(range(6))
    picture(tmp_path / "train/cat/1.png")
    with pytest.raises(
        ValueError, match=r"cat/1\.png has colours, and when the folder was looked through no"
    ):
        images.take(range(6))


@pytest.mark.parametrize("made", [mixed_folder, small_folder])
def test_what_is_unreadable_is_skipped_alike(tmp_path, made):
    made(tmp_path)
    for name in ("train/cat/00.jpg", "train/cat/0.png", "test/dog/1.png", "test/dog/01.png"):
        if (tmp_path / name).exists():
            (tmp_path / name).write_bytes(b"no image")
    loaded = []
    with pytest.raises(ValueError, match="cannot be read as an image"):
        data.load(f"folder:{tmp_path}", image_size=8, loader="stream", workers=0)
    for loader in ("stream", "resident", "stream"):  # the last one finds the survey
        with pytest.warns(UserWarning, match="skipped 2 unreadable images"):
            loaded.append(
                data.load(
                    f"folder:{tmp_path}",
                    image_size=8,
                    loader=loader,
                    workers=0,
                    skip_unreadable=True,
                )
            )
    for streamed in loaded[::2]:
        assert_same(streamed.train, loaded[1].train)
        assert_same(streamed.test, loaded[1].test)
        assert (streamed.mean, streamed.std) == (loaded[1].mean, loaded[1].std)


def test_images_of_several_sizes_need_an_image_size(tmp_path):
    mixed_folder(tmp_path)
    said = []
    for loader in ("resident", "stream"):
        with pytest.raises(ValueError, match="images differ in size: .* give image_size") as found:
            data.load(f"folder:{tmp_path}", loader=loader, workers=0)
        said.append(str(found.value))
    assert said[0] == said[1]


def test_the_survey_is_kept_checked_and_renewed(tmp_path, monkeypatch):
    small_folder(tmp_path)
    looked, read = [], survey.read_image
    monkeypatch.setattr(
        survey, "read_image", lambda file, *how: looked.append(file) or read(file, *how)
    )

    def load():
        looked.clear()
        return data.load(f"folder:{tmp_path}", loader="stream", workers=0)

    first = load()
    kept = [path for path in tmp_path.iterdir() if path.name.startswith(".catchup-survey-full-")]
    assert len(looked) == 10 and len(kept) == 1
    assert load().mean == first.mean and not looked
    whole = kept[0].read_bytes()
    middle = len(whole) // 2  # among the counts
    kept[0].write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert load().mean == first.mean and len(looked) == 10
    picture(tmp_path / "train/cat/0.png", seed=77)
    os.utime(tmp_path / "train/cat/0.png", (1, 1))
    assert load().mean != first.mean and len(looked) == 10
    assert (
        len([path for path in tmp_path.iterdir() if path.name.startswith(".catchup-survey-")]) == 1
    )


# Training


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    mixed_folder(root, count=60)
    return root


def settings_of(photos, **given):
    usual = {
        "data": f"folder:{photos}",
        "image_size": 12,
        "width": 4,
        "epochs": 2,
        "batch_size": 20,
        "lr": 0.05,
        "jitter": 0.2,
        "precision": "fp32",
        "device": "cpu",
    }
    return Settings(**{**usual, **given})


HOW = (
    {"loader": "resident"},
    {"loader": "stream", "workers": 0},
    {"loader": "stream", "workers": 2},
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"method": "catchup", "window": 10},
        {"augment": False},
        {"method": "recursivemix", "subset": 20, "batch_size": 10},
    ],
)
def test_the_weights_do_not_depend_on_the_loader(photos, tmp_path, given):
    results = [
        train(settings_of(photos, **given, **how), tmp_path / str(i), progress=False)
        for i, how in enumerate(HOW)
    ]
    assert len({digest(result.model) for result in results}) == 1
    measured = [
        [
            {key: row[key] for key in row if key not in ("time_s", "images_per_s")}
            for row in result.rows
        ]
        for result in results
    ]
    assert measured[0] == measured[1] == measured[2]


@pytest.mark.slow
def test_a_run_goes_on_with_another_loader_and_decodes_what_is_left(photos, tmp_path, monkeypatch):
    settings, decoded = settings_of(photos, method="recursivemix", epochs=3), []
    whole = train(settings, tmp_path / "whole", progress=False)
    read = stream.read_image
    monkeypatch.setattr(
        stream,
        "read_image",
        lambda file, *how: decoded.append(file.parent.parent.name) or read(file, *how),
    )
    for stop, how in ((2, HOW[2]), (4, HOW[0]), (5, HOW[1]), (None, HOW[1])):
        decoded.clear()
        chosen = replace(settings, **how)
        dataset = dataset_of(chosen, progress=False)
        result = fit(
            model_of(chosen, dataset),
            make("recursivemix", seed=0),
            dataset,
            chosen,
            out=tmp_path / "parts",
            resume=True,
            progress=False,
            on_step=lambda at, stop=stop: at.step == stop,
        )
    assert result.finished and digest(result.model) == digest(whole.model)
    # In the last part: the probe, the last of three steps of the second epoch, the third epoch, two
    # validations.
    assert decoded.count("train") == 60 + 20 + 60 and decoded.count("test") == 2 * 6


@pytest.mark.slow
def test_a_folder_with_a_run_takes_another_loader(photos, tmp_path):
    settings = settings_of(photos, epochs=1, batch_size=50)
    train(replace(settings, **HOW[1]), tmp_path / "run", progress=False)
    again = train(replace(settings, workers=1), tmp_path / "run", resume=True, progress=False)
    assert again.finished and len(again.rows) == 1


@pytest.mark.slow
def test_training_never_asks_for_all_pixels(photos, tmp_path, monkeypatch):
    def refuse(self):
        raise AssertionError("all pixels")

    monkeypatch.setattr(StreamedImages, "pixels", property(refuse))
    result = train(
        settings_of(photos, epochs=1, window=10, subset=0.5, **HOW[1]),
        tmp_path / "run",
        progress=False,
    )
    assert result.finished


@pytest.mark.slow
def test_the_usual_measurements_are_the_same(photos):
    found = []
    for how in HOW[:2]:
        settings = settings_of(photos, **how)
        dataset = dataset_of(settings, progress=False)
        found.append(evaluation_of(model_of(settings, dataset), dataset, USUAL))
    assert found[0] == found[1] and found[0]["pgd_error"] is not None


# The footprint


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """2 000 names of 10 pictures of 256 x 256 pixels: 375 MiB decoded, little on the disk, and
    quick to read.
    """
    root = tmp_path_factory.mktemp("large")
    for i in range(10):
        picture(root / f"{i}.bmp", seed=i, size=(256, 256))
        for j in range(200):
            os.link(root / f"{i}.bmp", root / f"{i}-{j:03}.bmp")
    yield root
    shutil.rmtree(root)


def grown_mib(images, workers, count):
    """How much larger this process and its workers become in one pass."""
    part = replace(images, workers=workers).part(range(count))
    gc.collect()
    gc.disable()  # after a fork a collection copies what this large process had before
    try:
        before = peak = stream_bench._tree_mib()
        with closing(part.chunks(64)) as chunks:
            for i, _ in enumerate(chunks):
                peak = peak if i % 4 else max(peak, stream_bench._tree_mib())
        return peak - before
    finally:
        gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_footprint_stays_below_a_budget_that_the_images_exceed_several_times(large, workers):
    decoder = stream.Decoder.whole(large, None, 0, (3, 256, 256))
    files = sorted(large.glob("*-*.bmp"))
    images = StreamedImages(
        decoder,
        survey.names_below(large, files),
        torch.zeros(len(files), dtype=torch.int64),
        ("one",),
    )
    budget_mib, decoded_mib = 90, len(images) * 3 * 256**2 / 2**20
    assert decoded_mib >= 4 * budget_mib
    half, whole = grown_mib(images, workers, 1000), grown_mib(images, workers, 2000)
    assert half < budget_mib and whole < budget_mib and whole < half + 15
    if not workers:  # the measure would have seen it
        before = stream_bench._tree_mib()
        held = images.part(range(1000)).pixels
        assert stream_bench._tree_mib() - before > 1.5 * budget_mib and len(held) == 1000


def test_the_bench_gives_a_row_for_each_size(tmp_path, monkeypatch):
    def here(command, **_):
        """The command in this process: to import torch again would take longer than all else."""
        said = io.StringIO()
        try:
            with redirect_stdout(said):
                stream_bench.main(command[3:])
        except ValueError as error:
            return subprocess.CompletedProcess(command, 1, "", f"ValueError: {error}\n")
        return subprocess.CompletedProcess(command, 0, said.getvalue(), "")

    monkeypatch.setattr(stream_bench.subprocess, "run", here)
    root = make_pictures(tmp_path / "made", 8, 16)
    rows = footprint(root, [6, 3], workers=[0, 2], loaders=["stream", "resident"], batch_size=4)
    assert [(row["loader"], row["workers"], row["images"]) for row in rows] == [
        (loader, workers, n)
        for loader in ("stream", "resident")
        for workers in (0, 2)
        for n in (6, 3)
    ]
    for row in rows:
        assert (
            row["peak_mib"] >= row["base_mib"] > 10
            and row["images_per_s"] > 0
            and row["shape"] == [3, 16, 16]
        )
        assert row["decoded_mib"] == row["images"] * 3 * 16 * 16 / 2**20
    with pytest.raises(ValueError, match="failed: .*has 8 training images, asked for 9"):
        footprint(root, [9])


def test_the_caches_of_the_two_loaders_do_not_mix(tmp_path):
    small_folder(tmp_path)
    for loader in ("resident", "stream", "resident"):
        data.load(f"folder:{tmp_path}", loader=loader, workers=0)
    names = sorted(
        path.name.rsplit("-", 1)[0]
        for path in Path(tmp_path).iterdir()
        if path.name.startswith(".")
    )
    assert names == [".catchup-cache-full", ".catchup-survey-full"] and decode.FORMAT == 1
