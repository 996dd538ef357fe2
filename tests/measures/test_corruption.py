"""Mean corruption error: its arithmetic, the cache and its damages, the published layout and what
does not fit it.
"""

import os

import numpy as np
import pytest
import torch

from catchup.data import Images
from catchup.measures import corruption
from catchup.measures.corruption import corrupt, corruption_errors, corruption_tiles
from catchup.measures.corruptions import CORRUPTIONS, SEVERITIES
from catchup.models.inference import PixelModel
from catchup.plots.corruption import plot_corruption_errors, plot_corruption_grid
from conftest import TinyNet

TWO = ("contrast", "impulse_noise")


def some(count=12, side=16, seed=0):
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=rng)
    return Images(pixels, torch.arange(count) % 5, tuple("abcde"))


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PixelModel(TinyNet(), (0.5,) * 3, (0.2,) * 3).train()


class Counting(torch.nn.Module):
    """Says class 1 of an image with an odd number of odd values, else 0: every single level
    counts.
    """

    def forward(self, images):
        levels = (255 * images).round().long()
        return torch.nn.functional.one_hot((levels % 2).sum(dim=(1, 2, 3)) % 2, 5).float()


def published_folder(folder, images, names, pixels=None):
    """A folder in the layout of CIFAR-100-C; severity s of every corruption is `images` turned by s
    rows.
    """
    stack = (
        [images.pixels.roll(severity, 2) for severity in SEVERITIES] if pixels is None else pixels
    )
    array = torch.cat(stack).permute(0, 2, 3, 1).numpy()
    for name in names:
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "labels.npy", images.labels.repeat(5).numpy().astype(np.uint8))
    return folder


def test_all_ninety_five_and_their_plain_mean(model):
    images = some(6)
    found = corruption_errors(model, images)
    assert list(found["corruptions"]) == list(CORRUPTIONS) and found["source"] == "generated"
    assert all(len(row) == 5 for row in found["corruptions"].values()) and found["severities"] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert found["mce"] == pytest.approx(np.mean(list(found["corruptions"].values())))
    assert model.training  # as it was


def test_errors_are_those_of_the_corrupted_images_one_by_one():
    images = some()
    found = corruption_errors(Counting(), images, corruptions=TWO, severities=(5, 2), batch_size=5)
    assert list(found["corruptions"]) == ["impulse_noise", "contrast"] and found["severities"] == [
        2,
        5,
    ]
    for name in TWO:
        for severity, error in zip((2, 5), found["corruptions"][name]):
            pixels = corrupt(images.pixels, name, severity)
            wrong = [
                int((one.long() % 2).sum()) % 2 != label
                for one, label in zip(pixels, images.labels.tolist())
            ]
            assert error == pytest.approx(100 * np.mean(wrong))


def test_the_same_seed_gives_the_same_images_and_another_one_others():
    pixels = some().pixels
    for name in ("fog", "glass_blur", "gaussian_noise", "frost", "snow"):
        first = corrupt(pixels, name, 3)
        before = torch.get_rng_state()
        assert torch.equal(first, corrupt(pixels, name, 3)) and torch.equal(
            before, torch.get_rng_state()
        )
        assert (
            not torch.equal(first, corrupt(pixels, name, 3, seed=1)) and first.dtype == torch.uint8
        )
        assert first.shape == pixels.shape


def test_parts_have_their_own_noise_and_do_not_depend_on_what_follows(monkeypatch):
    monkeypatch.setattr(corruption, "AT_ONCE", 4 * 16 * 16)
    flat = torch.full((10, 3, 16, 16), 128, dtype=torch.uint8)
    whole = corrupt(flat, "gaussian_noise", 5)
    assert torch.equal(whole[:8], corrupt(flat[:8], "gaussian_noise", 5))
    assert len({one.numpy().tobytes() for one in whole}) == 10
    other = corrupt(flat, "speckle_noise", 5)  # normal noise of another kind
    assert abs(np.corrcoef(whole.flatten().numpy(), other.flatten().numpy())[0, 1]) < 0.1


def test_the_cache_is_read_and_made_again_when_damaged(tmp_path, monkeypatch):
    images, calls = some(), []

    def counted(pixels, name, severity, seed=0):
        calls.append((name, severity))
        return corrupt(pixels, name, severity, seed)

    monkeypatch.setattr(corruption, "corrupt", counted)

    def again(seed=0, of=images):
        calls.clear()
        found = corruption_errors(
            Counting(),
            of,
            corruptions=TWO,
            severities=(1, 5),
            seed=seed,
            cache=tmp_path / "kept" / "here",
        )
        return found, len(calls)

    first, made = again()
    assert made == 4 and first == corruption_errors(
        Counting(), images, corruptions=TWO, severities=(1, 5)
    )
    files = sorted((tmp_path / "kept" / "here").iterdir())
    assert [file.name.rsplit("-", 1)[0] for file in files] == [
        "contrast-1",
        "contrast-5",
        "impulse_noise-1",
        "impulse_noise-5",
    ]
    assert again() == (first, 0)
    content = files[0].read_bytes()
    middle = len(content) // 2
    # another severity under this name
    for damaged in (
        content[:-30],
        b"",
        b"nonsense" * 9,
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        files[1].read_bytes(),
    ):
        files[0].write_bytes(damaged)
        assert again() == (first, 1) and files[0].read_bytes() == content
    assert again(seed=1)[1] == 4 and again(of=some(seed=3))[1] == 4  # other dice, other images
    monkeypatch.setattr(corruption, "VERSION", corruption.VERSION + 1)
    assert again()[1] == 4


def test_a_cache_never_runs_code(tmp_path):
    images = some()

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    corruption_errors(Counting(), images, corruptions=TWO[:1], severities=(1,), cache=tmp_path)
    (file,) = tmp_path.glob("*.npz")
    np.savez(file, pixels=np.array([Evil()], dtype=object), fingerprint="x")
    corruption_errors(Counting(), images, corruptions=TWO[:1], severities=(1,), cache=tmp_path)
    assert not (tmp_path / "harm").exists()
    with pytest.raises(ValueError, match="cache must be a folder"):
        corruption_errors(Counting(), images, cache=file)


def test_published_arrays_are_read_severity_by_severity(tmp_path):
    images = some()
    stack = [images.pixels ^ (severity % 2) for severity in SEVERITIES]
    stack[3] = images.pixels.clone()
    # one value of each image: Counting changes its mind about all of them
    stack[3][:, 0, 0, 0] ^= 1
    published_folder(tmp_path, images, TWO, stack)
    clean = corruption_errors(
        Counting(), images, corruptions=TWO, published=tmp_path, cache=tmp_path / "not made"
    )
    assert clean["source"] == "published" and not (tmp_path / "not made").exists()
    even, zero = (int((one.long() % 2).sum()) % 2 for one in images.pixels), images.labels
    wrong = np.array([parity != label for parity, label in zip(even, zero.tolist())])
    parity = np.array([int((one.long() % 2).sum()) % 2 for one in images.pixels])
    flipped = np.array([1 - value != label for value, label in zip(parity, zero.tolist())])
    # 768 flips are an even number
    expected = [100 * wrong.mean()] * 3 + [100 * flipped.mean()] + [100 * wrong.mean()]
    assert clean["corruptions"]["contrast"] == pytest.approx(expected)
    some_only = corruption_errors(
        Counting(), images, corruptions=TWO, severities=(4,), published=tmp_path
    )
    assert some_only["corruptions"]["contrast"] == pytest.approx(expected[3:4])


def test_published_arrays_that_do_not_fit_are_refused(tmp_path, model):
    images = some()

    def measure(of=images, names=TWO):
        return corruption_errors(model, of, corruptions=names, published=tmp_path)

    with pytest.raises(
        FileNotFoundError, match=r"lacks labels.npy, impulse_noise.npy, contrast.npy"
    ):
        measure()
    published_folder(tmp_path, images, TWO)
    measure()
    with pytest.raises(FileNotFoundError, match=r"lacks fog.npy"):
        measure(names=("fog", "contrast"))
    with pytest.raises(ValueError, match=r"the 12 test images.*published order"):
        measure(of=images.take(range(11)))
    with pytest.raises(ValueError, match="other labels than the images, or in another order"):
        measure(of=images.take([1, 0, *range(2, 12)]))
    np.save(tmp_path / "contrast.npy", np.zeros((60, 3, 16, 16), np.uint8))
    with pytest.raises(ValueError, match=r"contrast.npy must be uint8 \(60, 16, 16, 3\)"):
        measure()
    whole = (tmp_path / "impulse_noise.npy").read_bytes()
    (tmp_path / "impulse_noise.npy").write_bytes(whole[:-50])
    with pytest.raises(ValueError, match="impulse_noise.npy is cut off"):
        measure()
    np.save(tmp_path / "impulse_noise.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="impulse_noise.npy is cut off or no NumPy array"):
        measure()


@pytest.mark.parametrize(
    "options,word",
    [
        ({"corruptions": ("smoke",)}, "smoke"),
        ({"corruptions": ()}, "at least one"),
        ({"severities": (6,)}, "1 to 5"),
        ({"severities": ()}, "1 to 5"),
    ],
)
def test_bad_choices_are_named_before_anything_is_made(options, word, model, tmp_path):
    with pytest.raises(ValueError, match=word):
        corruption_errors(model, some(), cache=tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


def test_too_small_images_are_refused(model):
    with pytest.raises(ValueError, match="at least 8"):
        corruption_errors(model, some(side=6))


def test_progress_is_shown_only_when_asked_for(model, capsys):
    corruption_errors(model, some(), corruptions=TWO, severities=(1,))
    assert capsys.readouterr().err == ""
    corruption_errors(model, some(), corruptions=TWO, severities=(1,), progress=True)
    assert "corruptions" in capsys.readouterr().err


# ---- figures ----


@pytest.fixture
def pyplot():
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def rows_of(errors):
    """Evaluation objects of (method, seed, {name: errors})."""
    return [
        {
            "method": method,
            "seed": seed,
            "corruption": {"corruptions": found, "severities": [1, 2], "source": "generated"},
        }
        for method, seed, found in errors
    ]


def test_the_grid_shows_every_tile_in_its_place(pyplot):
    tiles = corruption_tiles(some(1, 9).pixels[0])
    assert list(tiles) == list(CORRUPTIONS) and all(
        row.shape == (5, 3, 9, 9) for row in tiles.values()
    )
    ax = plot_corruption_grid(tiles)
    sheet = ax.images[0].get_array()
    for down, name in enumerate(tiles):
        for right in range(5):
            shown = sheet[10 * down : 10 * down + 9, 10 * right : 10 * right + 9]
            assert np.array_equal(shown, tiles[name][right].permute(1, 2, 0).numpy())
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == [
        "gaussian noise",
        "shot noise",
    ]
    assert ax.get_xlabel() == "severity"
    with pytest.raises(ValueError, match="all of one shape"):
        plot_corruption_grid({"fog": torch.zeros(5, 3, 9, 9), "snow": torch.zeros(5, 3, 8, 8)})


def test_the_heat_map_holds_the_means_over_seeds_and_severities(pyplot):
    rows = rows_of(
        [
            ("baseline", 0, {"fog": [10.0, 20.0], "contrast": [30.0, 50.0]}),
            ("baseline", 1, {"fog": [30.0, 40.0], "contrast": [50.0, 70.0]}),
            ("catchup", 0, {"fog": [0.0, 2.0], "contrast": [4.0, 8.0]}),
        ]
    )
    ax = plot_corruption_errors(rows)
    assert np.allclose(ax.images[0].get_array(), [[25, 1], [50, 6], [37.5, 3.5]])
    assert [text.get_text() for text in ax.texts] == ["25.0", "1.0", "50.0", "6.0", "37.5", "3.5"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["fog", "contrast", "mean"]
    other = rows_of([("cutmix", 0, {"fog": [1.0, 2.0]})])
    with pytest.raises(ValueError, match="differ in corruptions"):
        plot_corruption_errors(rows + other)
    with pytest.raises(ValueError, match="has no corruption"):
        plot_corruption_errors([{"method": "cutmix", "seed": 0}])
