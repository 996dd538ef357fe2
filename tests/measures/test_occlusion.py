"""Covered patches and added waves: naive loops, models whose answer is known, spectra by numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from catchup.data import Images
from catchup.measures import cover, frequency_errors, occlusion_curve, patch_saliency, wave
from catchup.models.inference import PixelModel

RNG = torch.Generator().manual_seed(0)


def some(n=40, size=8):
    pixels = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=RNG)
    return Images(pixels, torch.arange(n) % 3, ("a", "b", "c"))


class Corner(nn.Module):
    """Looks at the upper left patch of 2 × 2 alone: class 1 where it is bright, else 0."""

    def forward(self, images):
        seen = images[:, :, :2, :2].mean(dim=(1, 2, 3))
        return torch.stack([-seen, seen, -10 + 0 * seen], dim=1)


def corner_data(n=60):
    """Images whose class is what their corner says, around a mean of one half."""
    images = torch.full((n, 3, 8, 8), 128, dtype=torch.uint8)
    labels = torch.arange(n) % 2
    images[:, :, :2, :2] = torch.where(labels == 1, 230, 20)[:, None, None, None].byte()
    return Images(images, labels, ("dark", "bright", "none"))


def test_the_salient_patch_is_the_one_that_decides():
    images, model = corner_data(), PixelModel(Corner(), (0.5,) * 3, (1.0,) * 3)
    found = occlusion_curve(model, images, patches=4, shares=(0.0, 1 / 16, 0.5, 1.0))
    assert found["salient"][0] == [0.0, 100.0]
    # without its one patch the model sees the mean, and calls everything "dark"
    assert [accuracy for _, accuracy in found["salient"][1:]] == [50.0] * 3
    # at random it is gone in as many images as patches are
    chance = dict(map(tuple, found["random"]))
    assert chance[0.0] == 100 and chance[1.0] == 50
    assert chance[1 / 16] > 90 and 60 < chance[0.5] < 90


def test_saliency_is_that_of_the_naive_loop():
    head = nn.Linear(3 * 64, 3)
    model = PixelModel(nn.Sequential(nn.Flatten(), head), (0.4, 0.5, 0.6), (0.5, 1.0, 2.0))
    images, labels = torch.rand(4, 3, 8, 8, generator=RNG), torch.tensor([0, 1, 2, 0])
    found = patch_saliency(model, images, labels, 4)
    for image, label, ours in zip(images, labels, found):
        leaf = image.clone().requires_grad_()
        nn.functional.cross_entropy(model(leaf[None]), label[None]).backward()
        mean = torch.tensor([0.4, 0.5, 0.6])[:, None, None]
        effect = (leaf.grad * (image - mean)).abs().sum(dim=0)
        naive = [effect[r : r + 2, c : c + 2].sum() for r in range(0, 8, 2) for c in range(0, 8, 2)]
        assert ours.tolist() == pytest.approx([float(value) for value in naive], rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_a_cover_hides_the_highest_scores_and_nothing_else(share):
    images, scores = torch.rand(5, 2, 6, 9, generator=RNG) + 1, torch.rand(5, 9, generator=RNG)
    covered = cover(images, scores, share, torch.zeros(2, 1, 1))
    for image, score, ours in zip(images, scores.tolist(), covered):
        hidden = sorted(range(9), key=lambda place: -score[place])[: round(share * 9)]
        for place in range(9):
            rows, columns = place // 3 * 2, place % 3 * 3
            window = np.s_[:, rows : rows + 2, columns : columns + 3]
            expected = torch.zeros(2, 2, 3) if place in hidden else image[window]
            assert torch.equal(ours[window], expected)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 12)])
def test_a_wave_has_norm_one_and_its_own_frequency_alone(height, width):
    for u, v in [(0, 0), (1, 0), (0, 2), (2, -3), (3, 3)]:
        values = wave(height, width, u, v).double().numpy()
        assert np.linalg.norm(values) == pytest.approx(1, abs=1e-6)
        spectrum = np.abs(np.fft.fft2(values))
        own = {(u % height, v % width), (-u % height, -v % width)}
        others = [spectrum[place] for place in np.ndindex(height, width) if place not in own]
        assert max(others) < 1e-5 and min(spectrum[place] for place in own) > 0.5


def test_errors_are_those_of_the_naive_loop_and_symmetric():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3))
    model, images = PixelModel(net, (0.5,) * 3, (0.2,) * 3), some()
    found = frequency_errors(model, images, norm=1.5, side=5, seed=3, batch_size=7)
    errors = np.array(found["errors"])
    assert errors.shape == (5, 5) and np.array_equal(errors, errors[::-1, ::-1])
    generator = torch.Generator().manual_seed(3)
    signs = 2 * torch.randint(0, 2, (40, 3, 1, 1), generator=generator) - 1
    for u, v in [(0, 0), (0, 1), (2, -1), (-2, 2)]:
        wrong = 0
        rows, columns = np.mgrid[:8, :8] / 8
        pattern = np.cos(2 * np.pi * (u * rows + v * columns))
        pattern = torch.from_numpy(1.5 * pattern / np.linalg.norm(pattern)).float()
        for pixels, label, sign in zip(images.pixels, images.labels, signs):
            image = (pixels / 255 + sign * pattern).clamp(0, 1)
            wrong += int(model(image[None]).argmax() != label)
        assert errors[2 + u, 2 + v] == pytest.approx(100 * wrong / 40, abs=1e-4)
    assert len(np.unique(errors)) > 1
    weak = frequency_errors(model, images, norm=1e-6, side=3)["errors"]
    assert len(np.unique(weak)) == 1  # no wave, no difference


def test_the_same_whatever_the_batch_size():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3))
    model, images = PixelModel(net, (0.5,) * 3, (0.2,) * 3), some()
    first, second = (occlusion_curve(model, images, patches=4, batch_size=n) for n in (3, 100))
    assert first["random"] == [pytest.approx(point) for point in second["random"]]
    assert first["salient"] == [pytest.approx(point) for point in second["salient"]]


def test_what_cannot_be_cut_or_waved_is_refused():
    model, images = PixelModel(Corner(), (0.5,) * 3, (1.0,) * 3), some()
    with pytest.raises(ValueError, match="8×8 cannot be cut into 3×3"):
        occlusion_curve(model, images, patches=3)
    with pytest.raises(ValueError, match=r"shares must lie in \[0, 1\], got \(1.5,\)"):
        occlusion_curve(model, images, patches=4, shares=(1.5,))
    for told in ({"norm": 0.0}, {"side": 4}, {"side": 9}):
        with pytest.raises(ValueError, match="got norm="):
            frequency_errors(model, images, **{"side": 3, **told})
