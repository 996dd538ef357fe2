"""SaliencyMix: the saliency pixel by pixel from its definition and against OpenCV's, and the boxes
that follow.
"""

import math

import numpy as np
import pytest
import torch

from catchup import CutMix, Draw
from catchup.mixers import make
from catchup.mixers.parts.saliency import fine_grained_saliency
from catchup.mixers.saliencymix import peaks


def slow_saliency(image):
    """Fine-grained saliency of one image (C, H, W) as numbers: 256 grey levels, blurred twice, six
    surrounds.
    """
    height, width = image.shape[1:]
    weights = (0.299, 0.587, 0.114) if len(image) == 3 else [1 / len(image)] * len(image)
    grey = sum(
        weight * channel.numpy().astype(np.float32) for weight, channel in zip(weights, image)
    )
    grey = np.floor((grey - grey.min()) * (255 / (grey.max() - grey.min())) + 0.5).astype(int)

    def mirrored(place, side):
        place = abs(place)
        return max(min(place, 2 * (side - 1) - place), 0)

    for _ in range(2):
        grey = np.array(
            [
                [
                    (
                        sum(
                            (2 - abs(a))
                            * (2 - abs(b))
                            * grey[mirrored(y + a, height), mirrored(x + b, width)]
                            for a in (-1, 0, 1)
                            for b in (-1, 0, 1)
                        )
                        + 8
                    )
                    // 16
                    for x in range(width)
                ]
                for y in range(height)
            ]
        )
    brighter, darker = np.zeros((height, width)), np.zeros((height, width))
    for half in (12, 24, 28, 48, 56, 112):
        for y in range(height):
            for x in range(width):
                window = grey[
                    max(y - half + 1, 0) : y + half + 1, max(x - half + 1, 0) : x + half + 1
                ]
                if window.size > 1:
                    lead = grey[y, x] - (window.sum() - grey[y, x]) / (window.size - 1)
                    brighter[y, x] += math.floor(max(lead, 0))
                    darker[y, x] += math.floor(max(-lead, 0))
    return brighter / max(brighter.max(), 1) + darker / max(darker.max(), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "height", "width"),
    [(3, 16, 16), (3, 30, 13), (1, 9, 7), (4, 5, 27), (3, 2, 2), (3, 1, 6), (1, 62, 40)],
)
def test_saliency_is_that_of_the_definition(channels, height, width):
    images = torch.randn(
        2, channels, height, width, generator=torch.Generator().manual_seed(height)
    )
    found = fine_grained_saliency(images)
    assert found.shape == (2, height, width) and found.dtype == torch.float32
    for one, image in zip(found, images):
        np.testing.assert_allclose(one, slow_saliency(image), atol=1e-6)


def pattern() -> np.ndarray:
    """40 × 30 grey levels 0 … 255: stripes, a bright disc, a bright band."""
    y, x = np.mgrid[:40, :30]
    grey = (y * 7 + x * 5) % 64 + 90 * ((y - 25) ** 2 + (x - 8) ** 2 < 30) + 60 * (y > 33)
    grey[0, 0], grey[39, 29] = 0, 255
    return grey.astype(np.uint8)


# StaticSaliencyFineGrained of opencv-contrib 5.0.0 on `pattern()`, every fifth pixel, times 255.
OPENCV = [
    [230, 73, 17, 172, 25, 88],
    [37, 39, 148, 17, 177, 73],
    [174, 92, 10, 182, 26, 122],
    [22, 148, 136, 17, 200, 56],
    [221, 58, 108, 168, 8, 188],
    [28, 173, 220, 8, 201, 20],
    [223, 63, 71, 155, 33, 221],
    [130, 58, 125, 92, 86, 156],
]


def test_saliency_is_opencvs_as_recorded():
    found = fine_grained_saliency(torch.from_numpy(pattern())[None, None].float())[0]
    # OpenCV rounds down twice more
    assert (255 * found[::5, ::5] - torch.tensor(OPENCV)).abs().max() < 2
    assert peaks(found[None], (0, 0)).tolist() == [[28, 9]]


def test_saliency_is_opencvs_as_installed():
    cv2 = pytest.importorskip("cv2", reason="the oracle needs opencv-contrib-python")
    if not hasattr(cv2, "saliency"):
        pytest.skip("this OpenCV was built without its saliency module")
    rng = np.random.default_rng(0)
    for height, width in ((32, 32), (64, 64), (130, 70), pattern().shape):
        grey = rng.integers(0, 256, (height, width), dtype=np.uint8) if height != 40 else pattern()
        grey[0, 0], grey[-1, -1] = 0, 255
        _, theirs = cv2.saliency.StaticSaliencyFineGrained_create().computeSaliency(grey)
        ours = fine_grained_saliency(torch.from_numpy(grey)[None, None].float())[0].numpy()
        assert np.abs(ours / ours.max() - theirs / theirs.max()).max() * 255 < 3


def bright_square(row: int, column: int, level: float = 1.0) -> torch.Tensor:
    image = torch.zeros(3, 32, 32)
    image[:, row : row + 4, column : column + 4] = level
    return image


def test_what_stands_out_is_found_however_the_images_were_normalised():
    images = torch.stack([bright_square(20, 5), bright_square(3, 25), bright_square(11, 12, -1.0)])
    images = images + 0.02 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    found = fine_grained_saliency(images)
    for one, (row, column) in zip(found, [(20, 5), (3, 25), (11, 12)]):
        assert one[row : row + 4, column : column + 4].max() == 1 and one.median() < 0.7
    mean, std = torch.tensor([0.49, 0.48, 0.45])[:, None, None], torch.tensor(0.2)
    torch.testing.assert_close(
        fine_grained_saliency((images - mean) / std), found, atol=0.05, rtol=0
    )
    assert torch.equal(
        peaks(fine_grained_saliency((images - mean) / std), (0, 0)), peaks(found, (0, 0))
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_saliency_in_other_precisions(dtype):
    images = (torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2).to(dtype)
    found = fine_grained_saliency(images)
    assert found.dtype == torch.float32 and torch.equal(
        found, fine_grained_saliency(images.float())
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fine_grained_saliency(images), found)


def test_images_that_single_out_nothing_have_no_saliency():
    images = torch.randn(6, 3, 12, 12)
    images[0], images[1] = 0, 0.1234567  # constant: not even what rounding leaves
    images[2, 1, 4, 4], images[3, 0, 0, 0], images[4, 2, 5, 5] = math.nan, math.inf, -math.inf
    found = fine_grained_saliency(images)
    assert not found[:5].any() and found[5].any() and found.isfinite().all()
    assert peaks(found, (7, 3)).tolist()[:5] == [[7, 3]] * 5


def test_peaks_are_the_first_highest():
    maps = torch.zeros(2, 3, 4)
    maps[0, 1, 2] = maps[0, 2, 0] = 1
    maps[1, 2, 3] = 0.5
    assert peaks(maps, (0, 0)).tolist() == [[1, 2], [2, 3]]


def slow_mix(images, partner, lam, centres):
    """CutMix's box around a centre, cut off at the border, pair by pair."""
    height, width = images.shape[-2:]
    half_h, half_w = int(math.sqrt(1 - lam) * height / 2), int(math.sqrt(1 - lam) * width / 2)
    mixed, shares = images.clone(), []
    for i, (j, (y, x)) in enumerate(zip(partner, centres)):
        rows, columns = (
            range(max(c - half, 0), min(c + half, side))
            for c, half, side in ((y, half_h, height), (x, half_w, width))
        )
        for row in rows:
            for column in columns:
                mixed[i, :, row, column] = images[j, :, row, column]
        shares.append(1 - len(rows) * len(columns) / (height * width))
    return mixed, torch.tensor(shares)


@pytest.mark.parametrize("lam", [0.1, 0.55, 0.9, 0.999, 1.0])
def test_each_image_gets_the_box_around_its_partners_peak(lam):
    images, partner = (
        torch.randn(5, 3, 14, 11, generator=torch.Generator().manual_seed(2)),
        [4, 2, 0, 1, 3],
    )
    saliency = [slow_saliency(image) for image in images]
    centres = [np.unravel_index(saliency[j].argmax(), (14, 11)) for j in partner]
    maps, shares = slow_mix(images, partner, lam, centres)
    result = make("saliencymix", seed=0).mix(images, Draw(0, partner, lam, seed=1))
    assert torch.equal(result.maps, maps) and result.keep.shape == (5, 1, 14, 11)
    torch.testing.assert_close(result.own_weight, shares)
    assert torch.equal(torch.where(result.keep, images, images[partner]), maps)


def test_without_per_image_the_first_pairs_box_serves_all():
    images, partner = (
        torch.randn(5, 3, 14, 11, generator=torch.Generator().manual_seed(2)),
        [4, 2, 0, 1, 3],
    )
    centre = np.unravel_index(slow_saliency(images[4]).argmax(), (14, 11))
    maps, shares = slow_mix(images, partner, 0.7, [centre] * 5)
    result = make("saliencymix", seed=0, per_image=False).mix(images, Draw(0, partner, 0.7, seed=1))
    assert torch.equal(result.maps, maps) and result.keep.shape == (1, 1, 14, 11)
    torch.testing.assert_close(result.own_weight, shares)
    each = make("saliencymix", seed=0).mix(images, Draw(0, partner, 0.7, seed=1))
    assert not torch.equal(each.maps, maps)


def test_images_without_saliency_are_mixed_as_by_cutmix():
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 16, 16).contiguous()
    for seed in range(10):
        draw = Draw(0, [1, 2, 3, 0], 0.6, seed=seed)
        ours, cutmix = (
            make("saliencymix", seed=0).mix(images, draw),
            CutMix(seed=0).mix(images, draw),
        )
        assert torch.equal(ours.maps, cutmix.maps) and ours.own_weight.tolist() == pytest.approx(
            [cutmix.own_weight] * 4
        )


def test_labels_follow_each_images_own_area(tiny, batch):
    mixer = make("saliencymix", seed=0, prob=1.0)
    mixer.loss(tiny, *batch, draw=Draw(0, [1, 2, 3, 4, 5, 6, 0], 0.5, seed=1))
    share = mixer.last.keep.float().mean(dim=(1, 2, 3))
    own = torch.nn.functional.one_hot(batch[1], 5)
    soft = share[:, None] * own + (1 - share[:, None]) * own[[1, 2, 3, 4, 5, 6, 0]]
    torch.testing.assert_close(mixer.last.target.soft(5), soft)
    assert len(set(share.tolist())) > 1


def test_defaults_are_the_papers_on_cifar():
    mixer = make("saliencymix", seed=0)
    assert (mixer.alpha, mixer.prob, mixer.per_image) == (1.0, 0.5, True)
    with pytest.raises(ValueError, match="alpha must be a positive number, got -1"):
        make("saliencymix", alpha=-1)
