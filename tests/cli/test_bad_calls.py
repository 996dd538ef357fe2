"""Public functions with bad input: a sentence that says what was given and what is expected, or the
right result.

Right is what the plain, contiguous float64 computation gives.
"""

import math

import pytest
import torch
from torch import nn

import catchup
from catchup import (
    Draw,
    Target,
    filter_influence,
    keep_mask,
    mix_channels,
    relative_filter_influence,
)
from catchup.data import Images, subset
from catchup.data.augment import normalise, to_float
from catchup.inspection.reliance import (
    drop_area,
    effective_filters,
    gini,
    measure_norm_gradient,
    measure_reliance,
    top_share,
)
from catchup.inspection.strength import rank_correlation
from catchup.measures.calibration import measure_calibration
from catchup.measures.corruption import corrupt
from catchup.measures.deformation import rotate, shear, zoom
from catchup.measures.feature_drop import drop_features
from catchup.measures.ood import msp_scores, ood_metrics
from catchup.measures.power import interval_power, seeds_needed
from catchup.measures.robustness import fgsm, pgd
from catchup.measures.statistics import differences, interval
from catchup.mixers import make
from catchup.models.inference import PixelModel, top_k_error
from conftest import TinyNet

NAN = math.nan
MAPS = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
ROWS = MAPS[:, :, 0, 0]
LABELS = torch.zeros(4, dtype=torch.int64)
PARTNER = torch.tensor([1, 2, 3, 0])
KEEP = torch.zeros(4, 3, dtype=torch.bool)
NET = TinyNet()
MODEL = PixelModel(NET, (0.5,) * 3, (0.25,) * 3)
INPUTS = torch.rand(4, 3, 8, 8)
IMAGES = Images(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b"))


def entered(context):
    with context:
        raise AssertionError("it was entered")


CALLS = [  # (call, what is said)
    (lambda: filter_influence(ROWS), r"maps must be \(B, C, H, W\) floating, got \(4, 3\)"),
    (lambda: filter_influence([1.0]), "maps must be .* got list"),
    (lambda: filter_influence(MAPS.int()), "torch.int32"),
    (lambda: filter_influence(MAPS > 0), "torch.bool"),
    (lambda: filter_influence(MAPS.to(torch.complex64)), "torch.complex64"),
    (
        lambda: relative_filter_influence(ROWS, ROWS[:2]),
        r"one shape \(B, C\), got \(4, 3\), \(2, 3\)",
    ),
    (lambda: keep_mask(ROWS, NAN), r"lam must lie in \[0, 1\], got nan"),
    (lambda: keep_mask(ROWS, 1.01), "got 1.01"),
    (lambda: keep_mask(ROWS, -0.01), "got -0.01"),
    (lambda: keep_mask(ROWS, "half"), "str"),
    (lambda: keep_mask(ROWS, None), "NoneType"),
    (lambda: keep_mask(MAPS, 0.5), r"rfi must be \(B, C\), got \(4, 3, 5, 5\)"),
    (
        lambda: mix_channels(MAPS, PARTNER.float(), KEEP),
        "partner must be an int64 tensor .* got torch.float32 on cpu",
    ),
    (lambda: mix_channels(MAPS, PARTNER.int(), KEEP), "got torch.int32"),
    (lambda: mix_channels(MAPS, [1, 2, 3, 0], KEEP), "got list"),
    (lambda: mix_channels(MAPS.to("meta"), PARTNER, KEEP), "device meta, got torch.int64 on cpu"),
    (
        lambda: mix_channels(MAPS, torch.tensor([1, 1, 2, 3]), KEEP),
        r"a permutation of 0 … B-1, got \[1, 1, 2, 3\]",
    ),
    (
        lambda: mix_channels(MAPS, torch.tensor([1, 2, 3, 4]), KEEP),
        r"a permutation of 0 … B-1, got \[1, 2, 3, 4\]",
    ),
    (lambda: mix_channels(MAPS, PARTNER, KEEP.int()), r"keep bool \(B, C\), got .* torch.int32"),
    (lambda: mix_channels(MAPS, PARTNER[:2], KEEP), r"partner must be \(B,\) .* got \(2,\)"),
    (lambda: Draw(0, PARTNER, NAN), r"lam must lie in \[0, 1\], got nan"),
    (lambda: Draw(0, [0, 0], 0.5), r"partner must be a permutation of 0 … B-1, got \[0, 0\]"),
    (lambda: Draw(0, [0.5, 1.2], 0.5), "partner must be integers, .* got torch.float32"),
    (lambda: Draw(0, [[0, 1]], 0.5), r"a permutation of 0 … B-1, got \[\[0, 1\]\]"),
    (lambda: Draw("a", [0], 0.5), "layer must be an integer or None, got 'a'"),
    (lambda: Draw(0, [0], "half"), "str"),
    (lambda: Target((LABELS,), (1.0,)).smooth(2, 5), r"epsilon must lie in \[0, 1\], got 2"),
    (lambda: make("catchup", layers=()), r"layers must name at least one and none twice, got \(\)"),
    (lambda: make("catchup", layers=(1, 1)), r"none twice, got \(1, 1\)"),
    (lambda: make("catchup", layers=(1.5,)), r"layers must be integers, got \(1.5,\)"),
    (lambda: make("catchup", layers="01"), "layers must be integers"),
    (lambda: make("catchup", layers=(-1,)).check(NET), "unknown layer -1"),
    (lambda: make("catchup", layers=(9,)).check(NET), "unknown layer 9: this model has 0 .* 1 … 3"),
    (lambda: make("catchup", blocks=("nowhere",)).check(NET), "unknown layer 'nowhere'"),
    (lambda: make("catchup", alpha=NAN), "alpha must be a positive number, got nan"),
    (lambda: make("catchup", alpha=math.inf), "alpha must be a positive number, got inf"),
    (lambda: make("catchup", alpha="a"), "str"),
    (lambda: make("catchup", input_mix="half"), "unknown input mix 'half'"),
    (lambda: make("catchup", label_rule="half"), "unknown label rule 'half'"),
    (lambda: make("cutmix", prob=NAN), r"prob must lie in \[0, 1\], got nan"),
    (lambda: make("cutmix", criterion="mse"), "unknown criterion 'mse'"),
    (lambda: make("cutmix", regularisers="cutout"), "a sequence of names, got the text 'cutout'"),
    (lambda: make("cutmix", regularisers=("cutout", "cutout")), "may be named once"),
    (lambda: make("cutmix", regularisers=(3,)), "got 3"),
    (
        lambda: make("cutmix").loss(NET, INPUTS.int(), LABELS),
        "images must be .* floating, got .* torch.int32",
    ),
    (lambda: make("cutmix").loss(NET, INPUTS[:0], LABELS[:0]), "the batch is empty"),
    (
        lambda: make("cutmix").loss(NET, [1], [0]),
        "must be tensors on one device, got list and list",
    ),
    (
        lambda: make("cutmix").loss(NET, INPUTS, LABELS.to("meta")),
        "got a tensor on cpu and a tensor on meta",
    ),
    (lambda: make("cutmix").loss(NET, INPUTS, LABELS[:2]), r"labels must be \(4,\) integers"),
    (lambda: make("cutmix").loss(NET, INPUTS, LABELS + 5), "labels must lie in 0 … 4, got 5 … 5"),
    (
        lambda: make("cutmix").loss(NET, INPUTS, LABELS, draw=Draw(0, [0], 0.5)),
        "is for 1 images, the batch has 4",
    ),
    (lambda: measure_calibration(ROWS * NAN, LABELS), "logits must be finite"),
    (
        lambda: measure_calibration(ROWS, LABELS, 0),
        "n_bins must be a whole number of at least 1, got 0",
    ),
    (lambda: measure_calibration(ROWS, LABELS + 3), r"labels must lie in \[0, 2\], got 3 to 3"),
    (
        lambda: measure_calibration(ROWS, LABELS.float()),
        r"labels must be int64 \(4,\), got torch.float32",
    ),
    (lambda: msp_scores(ROWS, []), "keep_classes must be different indices"),
    (lambda: msp_scores(ROWS, [0, 0]), r"got \[0, 0\]"),
    (
        lambda: ood_metrics(torch.zeros(0), torch.zeros(3)),
        r"inside scores must be finite \(N,\), at least one",
    ),
    (lambda: ood_metrics(torch.zeros(2), torch.tensor([NAN])), "outside scores must be finite"),
    (
        lambda: fgsm(MODEL, IMAGES.pixels, LABELS),
        "images must be float32 or float64 .* got torch.uint8",
    ),
    (lambda: fgsm(MODEL, INPUTS.half(), LABELS), "got torch.float16"),
    (lambda: fgsm(MODEL, INPUTS + 2, LABELS), r"images must lie in \[0, 1\]"),
    (
        lambda: fgsm(MODEL, INPUTS * NAN, LABELS),
        r"images must lie in \[0, 1\], .* got values from nan",
    ),
    (lambda: fgsm(MODEL, INPUTS[:0], LABELS[:0]), "images must hold at least one"),
    (
        lambda: fgsm(MODEL, INPUTS, LABELS, NAN),
        "eps_255 must be a finite number of at least 0 .* got nan",
    ),
    (lambda: pgd(MODEL, INPUTS, LABELS, steps=0), "steps must be at least 1 .* got 0"),
    (lambda: top_k_error(ROWS, LABELS, 0), "k at least 1, got .* k 0"),
    (lambda: top_k_error(ROWS, LABELS[:3]), r"got \(4, 3\), \(3,\)"),
    (lambda: top_k_error(ROWS[:0], LABELS[:0]), r"got \(0, 3\)"),
    (lambda: drop_features(ROWS * NAN, 0.5, "strongest"), "features hold NaN"),
    (lambda: drop_features(ROWS, NAN, "strongest"), r"fraction must lie in \[0, 1\], got nan"),
    (lambda: drop_features(ROWS, 0.5, "middle"), "unknown end of the ranking 'middle'"),
    (
        lambda: drop_features(ROWS.int(), 0.5, "strongest"),
        "features must be floating .* got torch.int32",
    ),
    (lambda: gini(-ROWS), "finite and ≥ 0"),
    (lambda: gini(ROWS * NAN), "finite and ≥ 0"),
    (lambda: effective_filters(ROWS.int()), "influence must be floating .* got torch.int32"),
    (lambda: top_share(ROWS, 0), r"k must be a whole number in \[1, 3\], got 0"),
    (lambda: top_share(ROWS, 9), "got 9"),
    (lambda: measure_reliance(NET, INPUTS[:0]), "N at least 1, got"),
    (lambda: measure_reliance(NET, INPUTS, ["nowhere"]), "unknown layer 'nowhere'"),
    (lambda: measure_norm_gradient(NET, INPUTS[:0], LABELS[:0]), "N at least 1"),
    (
        lambda: measure_norm_gradient(NET, INPUTS, LABELS[:3]),
        r"labels \(N,\), got \(4, 3, 8, 8\) and \(3,\)",
    ),
    (lambda: drop_area([[0, 1]]), "at least two points"),
    (lambda: drop_area([[0, NAN], [1, 1]]), "accuracies must be finite"),
    (lambda: drop_area([[0.1, 1], [1, 1]]), "fractions must ascend from 0"),
    (lambda: interval([]), "must not be empty"),
    (lambda: interval([1.0, 2.0], 1.0), r"level must lie in \(0, 1\)"),
    (lambda: differences([]), "there are no rows"),
    (lambda: interval_power(NAN, 1, 3), "nan"),
    (lambda: interval_power(1, -1, 3), "-1"),
    (lambda: seeds_needed(0, 1), "0"),
    (lambda: corrupt(IMAGES.pixels, "fire", 1), "unknown corruption 'fire'"),
    (lambda: corrupt(IMAGES.pixels, "brightness", 6), "6"),
    (lambda: corrupt(MAPS, "brightness", 1), "pixels must be uint8, got torch.float32"),
    (lambda: rotate(INPUTS, NAN), "nan"),
    (lambda: rotate(IMAGES.pixels, 10.0), "uint8"),
    (lambda: rotate(INPUTS, 10.0, "cubist"), "unknown interpolation 'cubist'"),
    (lambda: rotate(INPUTS, torch.zeros(3)), "3"),
    (lambda: zoom(INPUTS, 0), "0"),
    (lambda: shear(INPUTS, 90.0), "90"),
    (
        lambda: Images(MAPS, LABELS, ("a",)),
        r"pixels must be uint8 \(N, C, H, W\), not empty, got torch.float32",
    ),
    (lambda: Images(IMAGES.pixels, LABELS + 5, ("a",)), r"labels must lie in \[0, 0\], got 5 to 5"),
    (lambda: Images(IMAGES.pixels, LABELS, ("a", "a")), "classes must be different names"),
    (lambda: Images(IMAGES.pixels.to("meta"), LABELS, ("a",)), "on one device, got meta and cpu"),
    (lambda: Images(IMAGES.pixels[:0], LABELS[:0], ("a",)), "not empty"),
    (lambda: IMAGES.take([]), r"indices must be \(K,\) integers, at least one"),
    (lambda: subset(IMAGES, NAN, 0), r"a share must lie in \(0, 1\], got nan"),
    (lambda: subset(IMAGES, 0, 0), "at least 1 and no more than there are, got 0"),
    (lambda: subset(IMAGES, "all", 0), "a share in .* got 'all'"),
    (lambda: to_float(MAPS), "pixels must be uint8, got torch.float32"),
    (lambda: normalise(MAPS, (0.5,), (0.5,)), "a number for each of 3 channels, not 1 and 1"),
    (lambda: normalise(MAPS, (0.5,) * 3, (0.0,) * 3), "every std must be greater than 0"),
    (lambda: rank_correlation(torch.zeros(2), torch.zeros(3)), "2|3"),
    (
        lambda: catchup.models.create("resnet18", num_classes=0),
        "num_classes must be a whole number of at least 1, got 0",
    ),
    (lambda: catchup.models.create("resnet18", num_classes=2.5), "got 2.5"),
    (
        lambda: catchup.models.create("resnet18", num_classes=2, width=0),
        "width must be a whole number of at least 1, got 0",
    ),
    (lambda: catchup.models.create("resnet18", num_classes=2, colour=3), "colour"),
    (lambda: catchup.find_blocks(nn.Linear(2, 2)), "Linear"),
    (
        lambda: entered(catchup.recording(NET, every=0)),
        "every must be a whole number of at least 1, got 0",
    ),
    (lambda: entered(catchup.recording(NET, mixer=3)), "mixer must be the method in use, .* got 3"),
    (lambda: entered(catchup.edited(NET, "nowhere", abs)), "unknown layer 'nowhere'"),
    (lambda: entered(catchup.captured(NET, "nowhere")), "unknown layer 'nowhere'"),
    (lambda: catchup.compile_blocks(NET, ["nowhere"]), "unknown layer 'nowhere'"),
]


def test_there_are_more_than_40():
    assert len(CALLS) >= 40, len(CALLS)


@pytest.mark.parametrize(("call", "says"), CALLS, ids=range(len(CALLS)))
def test_bad_input_is_refused_in_a_sentence(call, says):
    with pytest.raises((ValueError, TypeError), match=says) as found:
        call()
    assert len(str(found.value)) <= 400 and catchup.count_hooks(NET) == 0


# The right result, where the input is only unusual


def plain(maps: torch.Tensor, lam: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Influence and mixed maps of Catch-up Mix, in float64, one image at a time."""
    maps = maps.detach().to("cpu", torch.float64).contiguous()
    influence = maps.flatten(2).square().sum(2).sqrt()
    share = influence / influence.sum(1, keepdim=True)
    mixed = maps[PARTNER].clone()
    for i, j in enumerate(PARTNER.tolist()):
        difference = share[i] - share[j]
        order = sorted(range(maps.shape[1]), key=lambda c: (difference[c].item(), c))
        for c in order[: int(lam * maps.shape[1])]:
            mixed[i, c] = maps[i, c]
    return influence, mixed


FORMS = {
    "float32": MAPS,
    "float64": MAPS.double(),
    "float16": MAPS.half(),
    "bfloat16": MAPS.bfloat16(),
    "channels last": MAPS.contiguous(memory_format=torch.channels_last),
    "every other column": torch.rand(4, 3, 5, 10)[..., ::2],
    "turned": torch.rand(4, 5, 5, 3).permute(0, 3, 1, 2),
    "expanded": torch.rand(4, 3, 1, 1).expand(4, 3, 5, 5),
    "one channel": torch.rand(4, 1, 5, 5),
    "one pixel": torch.rand(4, 7, 1, 1),
    "vectors": torch.rand(4, 6, 9),
    "volumes": torch.rand(4, 4, 2, 3, 2),
    "with gradient": torch.rand(4, 3, 5, 5, requires_grad=True),
    "half floats near their limit": (
        torch.full((4, 3, 5, 5), 3e4).half() * torch.rand(4, 3, 1, 1).half()
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_unusual_maps_give_the_plain_result(form, lam):
    maps = FORMS[form]
    influence, mixed = plain(maps, lam)
    found = filter_influence(maps)
    torch.testing.assert_close(found.double(), influence, rtol=1e-5, atol=1e-7)
    result = make("catchup", seed=0).mix(maps, Draw(1, PARTNER, lam)).maps
    assert torch.equal(result.double(), mixed) and result.dtype == maps.dtype


def test_in_inference_mode_and_for_one_image():
    with torch.inference_mode():
        maps = torch.rand(4, 3, 5, 5)
        assert torch.equal(
            make("catchup", seed=0).mix(maps, Draw(1, PARTNER, 0.5)).maps.double(),
            plain(maps, 0.5)[1],
        )
    one = torch.rand(1, 3, 8, 8)
    for name in ("baseline", "mixup", "cutmix", "catchup"):
        loss = make(name, seed=0).loss(NET, one, LABELS[:1])
        torch.testing.assert_close(loss, nn.functional.cross_entropy(NET(one), LABELS[:1]))


def test_features_that_are_no_numbers_stay_where_they_are():
    """An image with NaN spoils itself and whoever gets its maps, nobody else; the number of kept
    channels stays.
    """
    maps = MAPS.clone()
    maps[2, 1] = NAN
    assert filter_influence(maps).isnan().nonzero().tolist() == [[2, 1]]
    result = make("catchup", seed=0).mix(maps, Draw(1, PARTNER, 0.5))
    assert (result.keep.sum(dim=(1, 2, 3)) == 1).all()
    assert set(result.maps.isnan().nonzero()[:, 0].tolist()) <= {1, 2}


def test_numbers_that_are_not_finite_do_not_stop_a_comparison():
    rows = [
        {"method": method, "seed": seed, "reliance": value}
        for seed in (0, 1)
        for method, value in (("a", 1.0), ("b", NAN if seed else 2.0))
    ]
    (found,) = differences(rows, ("reliance",))
    assert all(math.isnan(found[key]) for key in ("mean", "sd", "low", "high")) and found["n"] == 2
