"""Models: parameter counts against published ones and a closed formula, map sizes, `create` and its
errors.
"""

import copy
import sys
from contextlib import contextmanager
from functools import lru_cache
from unittest import mock

import pytest
import torch
from torch import nn

from catchup import models
from catchup.hooks.blocks import find_blocks
from catchup.hooks.classifier import find_classifier
from catchup.mixers import make

STAGED = ("resnet18", "preact_resnet18", "resnet50", "preact_resnet50", "resnext50_32x4d")
WIDE = ("wrn16_8", "wrn28_10", "pyramidnet200")
SCALED = (*STAGED, *WIDE, "vgg11", "vgg11_bn")  # those with a width
NARROW = {"resnext50_32x4d": 16, "pyramidnet200": 2}


def n_parameters(model):
    return sum(weights.numel() for weights in model.parameters())


@contextmanager
def undrawn():
    """No initial weights are drawn inside the block: where only shapes matter they would take most
    of the time.
    """
    with mock.patch.multiple(
        torch.Tensor, normal_=lambda self, *_, **__: self, uniform_=lambda self, *_, **__: self
    ):
        yield


@lru_cache
def on_meta(name, **settings):
    """The model without memory; built once, so to be looked at only."""
    with torch.device("meta"), undrawn():
        return models.create(name, num_classes=settings.pop("num_classes", 10), **settings)


def hollow(name, **settings):
    """The model with whatever stood in the memory for weights: to be run for its shapes."""
    return copy.deepcopy(on_meta(name, **settings)).to_empty(device="cpu").eval()


def narrow(name, **settings):
    """The model at a width that runs in no time; those of one width as they are."""
    width = {"width": NARROW.get(name, 4)} if name in SCALED else {}
    return models.create(name, **{"num_classes": 10, **width, **settings})


def preact_count(width, in_channels, num_classes, norm_before_pool):
    """PreActResNet-18 written out on paper: 3x3 convolutions, BatchNorm before each, 1x1 shortcuts,
    linear layer.
    """
    count = 9 * in_channels * width
    inputs = width
    for outputs in (width, 2 * width, 4 * width, 8 * width):
        count += 9 * inputs * outputs + 3 * 9 * outputs**2  # four 3x3 convolutions
        count += 2 * inputs + 3 * 2 * outputs  # the BatchNorm before each of them
        count += inputs * outputs if inputs != outputs else 0  # 1x1 shortcut of the first block
        inputs = outputs
    return count + (2 * inputs if norm_before_pool else 0) + inputs * num_classes + num_classes


# Where each count is published: torchvision's documented `num_params` of the IMAGENET1K_V1 weights
# (ImageNet stem, 1000 classes); the program "pytorch-cifar", whose networks these are at CIFAR-10,
# and those of its kin that print them (small stem, 10 classes). Ours differ from it where a row
# says so.
COUNTS = [
    ("resnet18", "imagenet", 1000, 11_689_512),
    ("resnet50", "imagenet", 1000, 25_557_032),
    ("resnext50_32x4d", "imagenet", 1000, 25_028_904),
    ("densenet121", "imagenet", 1000, 7_978_856),
    ("vgg11", "imagenet", 1000, 132_863_336),
    ("vgg11_bn", "imagenet", 1000, 132_868_840),
    ("mobilenet_v2", "imagenet", 1000, 3_504_872),
    ("resnet18", "small", 10, 11_173_962),
    ("resnet18", "small", 100, 11_220_132),
    ("resnet50", "small", 10, 23_520_842),
    ("preact_resnet18", "small", 10, 11_171_146),
    ("vgg11_bn", "small", 10, 9_231_114),
    # there no BatchNorm stands behind the first convolution
    ("densenet121", "small", 10, 6_956_298 + 2 * 64),
    ("wrn28_10", "small", 10, 36_479_194),
    ("wrn28_10", "small", 100, 36_536_884),
]


@pytest.mark.parametrize(("name", "stem", "num_classes", "published"), COUNTS)
def test_models_have_the_published_number_of_parameters(name, stem, num_classes, published):
    assert n_parameters(on_meta(name, num_classes=num_classes, stem=stem)) == published


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_classes", "millions"),
    [
        ("wrn16_8", 10, 11.0),
        ("wrn28_10", 10, 36.5),  # Zagoruyko & Komodakis, BMVC 2016, Table 4
        ("pyramidnet200", 100, 26.8),  # Yun et al., ICCV 2019 (CutMix), Table 5
    ],
)
def test_models_have_the_millions_of_parameters_that_the_papers_print(name, num_classes, millions):
    assert round(n_parameters(on_meta(name, num_classes=num_classes)) / 1e6, 1) == millions


def pyramid_count(width, alpha, per_stage, num_classes):
    """Bottleneck PyramidNet written out on paper: convolutions 1x1, 3x3, 1x1 between four
    BatchNorms, no shortcuts.
    """
    count, inputs, blocks = 27 * width + 2 * width, width, 3 * per_stage
    for number in range(1, blocks + 1):
        inner = int(width + number * alpha / blocks + 0.5)
        count += (
            inputs * inner + 9 * inner**2 + 4 * inner**2 + 2 * (inputs + inner + inner + 4 * inner)
        )
        inputs = 4 * inner
    return count + 2 * inputs + inputs * num_classes + num_classes


@pytest.mark.slow
def test_pyramidnet_count_follows_the_formula():
    assert n_parameters(on_meta("pyramidnet200", num_classes=10)) == pyramid_count(16, 240, 22, 10)
    assert n_parameters(on_meta("pyramidnet200", width=4)) == pyramid_count(4, 60, 22, 10)


@pytest.mark.slow
def test_preact_resnet50_has_the_parameters_of_timms():
    timm = pytest.importorskip("timm")
    with torch.device("meta"), undrawn():
        theirs = timm.create_model("resnetv2_50", num_classes=10)
    assert n_parameters(
        on_meta("preact_resnet50", stem="imagenet", norm_before_pool=True)
    ) == n_parameters(theirs)


@pytest.mark.parametrize("norm_before_pool", [False, True])
@pytest.mark.parametrize(
    ("width", "in_channels", "num_classes"), [(64, 3, 10), (64, 3, 200), (16, 1, 10), (5, 4, 3)]
)
def test_preact_resnet18_count_follows_the_formula(
    width, in_channels, num_classes, norm_before_pool
):
    settings = {
        "width": width,
        "in_channels": in_channels,
        "num_classes": num_classes,
        "norm_before_pool": norm_before_pool,
    }
    counted = n_parameters(on_meta("preact_resnet18", **settings))
    assert counted == preact_count(**settings)


def test_bottleneck_blocks_fit_by_their_expansion():
    class Wide(models.BasicBlock):
        expansion = 4

        def __init__(self, inputs, width, stride):
            super().__init__(inputs, 4 * width, stride)

    model = models.ResNet(Wide, (1, 1, 1, 1), num_classes=3, width=2)
    assert model.fc.in_features == 4 * 8 * 2
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 3)


def shapes_of(model, names, image):
    """(channels, height) of the output of the named modules in one forward pass."""
    shapes = []
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda _module, _args, maps: shapes.append(tuple(maps.shape[1:3]))
        )
    model.eval()(image)
    return shapes


@pytest.mark.parametrize("name", STAGED)
@pytest.mark.parametrize(
    ("stem", "stem_stride", "sizes"),
    [
        ("small", 1, [32, 32, 16, 8, 4]),
        ("small", 2, [16, 16, 8, 4, 2]),
        ("imagenet", 1, [8, 8, 4, 2, 1]),
    ],
)
def test_maps_have_the_sizes_and_channels_of_the_protocol(name, stem, stem_stride, sizes):
    width, four = NARROW.get(name, 4), 1 if "18" in name else 4
    model = narrow(name, stem=stem, stem_stride=stem_stride)
    channels = [width, *(four * width * 2**stage for stage in range(4))]
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert shapes_of(
        model, ["stem", "layer1", "layer2", "layer3", "layer4"], torch.rand(2, 3, 32, 32)
    ) == list(zip(channels, sizes))


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("wrn16_8", [16, 128, 256, 512]),
        ("wrn28_10", [16, 160, 320, 640]),
        ("pyramidnet200", [16, 384, 704, 1024]),
    ],
)
def test_wide_and_pyramidal_maps_have_the_papers_channels_and_sizes(name, channels):
    full = on_meta(name)
    convs = [
        [part for part in full.get_submodule(child).modules() if isinstance(part, nn.Conv2d)]
        for child in ("stem", "layer1", "layer2", "layer3")
    ]
    assert [group[-1].out_channels for group in convs] == channels
    for stem, sizes in (("small", [32, 32, 16, 8]), ("imagenet", [8, 8, 4, 2])):
        shapes = shapes_of(
            narrow(name, stem=stem),
            ["stem", "layer1", "layer2", "layer3"],
            torch.rand(2, 3, 32, 32),
        )
        assert [size for _, size in shapes] == sizes


@pytest.mark.parametrize(
    ("name", "stem", "sizes"),
    [
        ("densenet121", "small", [32, 32, 16, 8, 4]),
        ("densenet121", "imagenet", [8, 8, 4, 2, 1]),
        ("mobilenet_v2", "small", [32, 32, 32, 16, 8, 8, 4, 4]),
        ("mobilenet_v2", "imagenet", [16, 16, 8, 4, 2, 2, 1, 1]),
        ("vgg11", "small", [32, 16, 8, 8, 4, 4, 2, 2]),
        ("vgg11_bn", "small", [32, 16, 8, 8, 4, 4, 2, 2]),
    ],
)
def test_maps_of_the_others_shrink_as_their_stem_says(name, stem, sizes):
    model = hollow(name, stem=stem)
    assert [
        size for _, size in shapes_of(model, find_blocks(model), torch.rand(2, 3, 32, 32))
    ] == sizes


LAYERS = ["layer1", "layer2", "layer3", "layer4"]
VGG_ENDS, VGG_BN_ENDS = (1, 4, 7, 9, 12, 14, 17, 19), (2, 6, 10, 13, 17, 20, 24, 27)
# the paper's: stem and stages; VGG-11 its 8 convolutions, MobileNetV2 its 8 stages with the stem
LAYER_SETS = {
    **{name: ["stem", *LAYERS] for name in STAGED},
    **{name: ["stem", *LAYERS[:3]] for name in WIDE},
    "densenet121": ["features.relu0", *(f"features.denseblock{number}" for number in (1, 2, 3, 4))],
    "vgg11": [f"features.{number}" for number in VGG_ENDS],
    "vgg11_bn": [f"features.{number}" for number in VGG_BN_ENDS],
    "mobilenet_v2": [f"features.{number}" for number in (0, 1, 3, 6, 10, 13, 16, 17)],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_the_blocks_found_are_the_papers_layer_set_with_either_stem(name):
    pooled = {"features.relu0": "features.pool0"}
    assert find_blocks(on_meta(name)) == LAYER_SETS[name]
    assert find_blocks(on_meta(name, stem="imagenet")) == [
        pooled.get(block, block) for block in LAYER_SETS[name]
    ]


@pytest.mark.parametrize("name", models.names())
def test_every_model_is_trained_by_catch_up_mix_and_shows_its_features(name):
    torch.manual_seed(0)
    model = narrow(name).train()
    size = 32 if name.startswith("vgg") else 8
    images, labels = torch.rand(4, 3, size, size), torch.tensor([0, 1, 2, 3])
    mixer = make("catchup", seed=0)
    mixer.check(model)
    mixer.loss(model, images, labels).backward()
    assert all(weights.grad is not None for weights in model.parameters())
    head, seen = find_classifier(model)[1], []
    head.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    torch.testing.assert_close(model.eval()(images), head(seen[0]))
    assert seen[0].ndim == 2


@pytest.mark.parametrize("name", [name for name in models.names() if not name.startswith("vgg")])
def test_one_channel_digits_of_eight_pixels_fit(name):
    assert narrow(name, num_classes=7, in_channels=1)(torch.rand(3, 1, 8, 8)).shape == (3, 7)


@pytest.mark.parametrize(
    "name", ["densenet121", "mobilenet_v2", "vgg11", "pyramidnet200", "wrn16_8"]
)
def test_other_numbers_of_channels_fit_either_stem(name):
    for stem in ("small", "imagenet"):
        model = on_meta(name, stem=stem, in_channels=5)
        first = next(part for part in model.modules() if isinstance(part, nn.Conv2d))
        assert first.in_channels == 5 and not any(
            part.in_channels == 3 for part in model.modules() if isinstance(part, nn.Conv2d)
        )


@pytest.mark.parametrize("name", models.PRETRAINED)
def test_with_imagenets_stem_they_hold_what_torchvisions_hold_in_the_same_order(name):
    from torchvision import models as library

    with torch.device("meta"), undrawn():
        theirs = library.get_model(name, num_classes=10).state_dict()
    ours = on_meta(name, stem="imagenet").state_dict()
    assert [tuple(value.shape) for value in ours.values()] == [
        tuple(value.shape) for value in theirs.values()
    ]


def with_weights_of(model, other):
    """`other` with the weights of `model`, taken in order."""
    other.load_state_dict(dict(zip(other.state_dict(), model.state_dict().values(), strict=True)))
    return other.eval()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_with_imagenets_stem_they_compute_what_torchvisions_do(name):
    from torchvision import models as library

    torch.manual_seed(0)
    ours, images = (
        models.create(name, num_classes=3, stem="imagenet").eval(),
        torch.rand(2, 3, 64, 64),
    )
    with undrawn():
        theirs = with_weights_of(ours, library.get_model(name, num_classes=3))
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours(images))


@pytest.mark.parametrize(
    ("block", "width", "theirs"),
    [(models.Bottleneck, 2, {}), (models.GroupedBottleneck, 16, {"groups": 32, "base_width": 4})],
)
def test_bottlenecks_compute_what_torchvisions_do(block, width, theirs):
    from torchvision.models.resnet import Bottleneck

    torch.manual_seed(0)
    ours, images = block(6, width, 2).eval(), torch.randn(2, 6, 7, 7)
    side = nn.Sequential(nn.Conv2d(6, 4 * width, 1, 2, bias=False), nn.BatchNorm2d(4 * width))
    twin = with_weights_of(ours, Bottleneck(6, width, 2, side, **theirs))
    torch.testing.assert_close(twin(images.clone()), ours(images))


def test_a_preactivation_bottleneck_and_a_pyramidal_one_agree_with_functions():
    torch.manual_seed(0)
    image, f = torch.randn(2, 6, 7, 7), nn.functional
    pre, pyramid = models.PreActBottleneck(6, 2, 2).eval(), models.PyramidBottleneck(6, 2, 2).eval()

    def bn(maps, norm):
        return f.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    active = f.relu(bn(image, pre.bn1))
    inner = f.relu(bn(f.conv2d(active, pre.conv1.weight), pre.bn2))
    inner = f.relu(bn(f.conv2d(inner, pre.conv2.weight, None, 2, 1), pre.bn3))
    torch.testing.assert_close(
        pre(image),
        f.conv2d(inner, pre.conv3.weight) + f.conv2d(active, pre.shortcut.weight, None, 2),
    )
    inner = f.conv2d(bn(image, pyramid.bn1), pyramid.conv1.weight)  # no ReLU here
    inner = f.conv2d(f.relu(bn(inner, pyramid.bn2)), pyramid.conv2.weight, None, 2, 1)
    inner = bn(f.conv2d(f.relu(bn(inner, pyramid.bn3)), pyramid.conv3.weight), pyramid.bn4)
    inner[:, :6] += f.avg_pool2d(image, 2, ceil_mode=True)  # the two new channels get nothing
    torch.testing.assert_close(pyramid(image), inner)


@pytest.mark.parametrize(
    ("name", "options", "children"),
    [
        ("resnet18", {}, ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]),
        ("preact_resnet18", {}, ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]),
        (
            "preact_resnet18",
            {"norm_before_pool": True},
            ["stem", "layer1", "layer2", "layer3", "layer4", "norm", "fc"],
        ),
    ],
)
def test_children_carry_the_documented_names(name, options, children):
    model = on_meta(name, num_classes=10, **options)
    assert [child for child, _ in model.named_children()] == children


def test_norm_before_pool_leaves_no_negative_feature_before_the_pooling():
    for norm_before_pool in (False, True):
        torch.manual_seed(0)
        model, pooled = (
            models.create(
                "preact_resnet18", num_classes=10, width=8, norm_before_pool=norm_before_pool
            ),
            [],
        )
        model.fc.register_forward_pre_hook(
            lambda _module, args, pooled=pooled: pooled.append(args[0])
        )
        model(torch.randn(4, 3, 16, 16))
        assert (pooled[0].min() >= 0).item() is norm_before_pool


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18"])
def test_stem_of_preact_is_a_bare_convolution_and_that_of_resnet_ends_in_relu(name):
    stem = models.create(name, num_classes=2, width=8).stem
    parts = [type(part) for part in stem.modules() if not isinstance(part, nn.Sequential)]
    assert parts == (
        [nn.Conv2d] if name == "preact_resnet18" else [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    )


@pytest.mark.parametrize("name", SCALED)
def test_convolutions_start_he_normal_with_fan_out(name):
    torch.manual_seed(0)
    model = narrow(name, num_classes=2, width=4 if name == "pyramidnet200" else 16)
    for conv in (part for part in model.modules() if isinstance(part, nn.Conv2d)):
        expected = (2 / (conv.out_channels * conv.kernel_size[0] ** 2)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(
            expected, rel=4 * conv.weight.numel() ** -0.5
        )


def test_preact_and_plain_resnet_agree_with_a_forward_written_out_in_functions():
    torch.manual_seed(0)
    image = torch.randn(2, 3, 8, 8)
    f, bn = (
        nn.functional,
        lambda maps, norm: f.batch_norm(
            maps, norm.running_mean, norm.running_var, norm.weight, norm.bias
        ),
    )
    plain, pre = models.BasicBlock(3, 6, 2).eval(), models.PreActBlock(3, 6, 2).eval()
    inner = f.relu(bn(f.conv2d(image, plain.conv1.weight, None, 2, 1), plain.bn1))
    inner = f.conv2d(inner, plain.conv2.weight, None, 1, 1)
    side = bn(f.conv2d(image, plain.shortcut[0].weight, None, 2), plain.shortcut[1])
    torch.testing.assert_close(plain(image), f.relu(bn(inner, plain.bn2) + side))
    active = f.relu(bn(image, pre.bn1))
    inner = f.relu(bn(f.conv2d(active, pre.conv1.weight, None, 2, 1), pre.bn2))
    side = f.conv2d(active, pre.shortcut.weight, None, 2)
    torch.testing.assert_close(pre(image), f.conv2d(inner, pre.conv2.weight, None, 1, 1) + side)
    same = models.PreActBlock(3, 3, 1)
    nn.init.zeros_(same.conv2.weight)
    torch.testing.assert_close(same(image), image)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("torchvision.mobilenet_v2", "torchvision"),
        ("resnet34", "torchvision"),
        ("torchvision.resnet18", "torchvision"),
        ("timm.resnet18", "timm"),
        ("regnety_002", "timm"),
        ("vgg11", "catchup"),
        ("resnet18", "catchup"),
    ],
)
def test_a_name_finds_ours_first_then_torchvision_then_timm(name, package):
    model = on_meta(name, num_classes=10)
    assert type(model).__module__.partition(".")[0] == package
    assert model(torch.rand(2, 3, 64, 64, device="meta")).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["torchvision.resnet18", "torchvision.vgg11", "torchvision.convnext_tiny", "timm.resnet18"],
)
def test_other_numbers_of_channels_keep_the_settings_of_the_first_convolution(name):
    first = [
        next(
            part
            for part in on_meta(name, num_classes=4, in_channels=channels).modules()
            if isinstance(part, nn.Conv2d)
        )
        for channels in (3, 5)
    ]
    assert first[1].in_channels == 5
    for setting in (
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "padding_mode",
    ):
        assert getattr(first[0], setting) == getattr(first[1], setting)
    assert (first[0].bias is None) == (first[1].bias is None)
    assert on_meta(name, num_classes=4, in_channels=5)(
        torch.rand(2, 5, 64, 64, device="meta")
    ).shape == (2, 4)


def test_options_reach_the_builder_of_the_library():
    model = on_meta("torchvision.googlenet", num_classes=4, aux_logits=False, init_weights=False)
    assert model.aux1 is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnt18"}, r"'resnt18'.*Did you mean 'resnet18'.*preact_resnet18"),
        ({"name": "mobilnet_v2"}, r"torchvision\.NAME or timm\.NAME.*torchvision\.mobilenet_v2"),
        ({"name": "torchvision.resnet51"}, r"'torchvision\.resnet51'.*torchvision\.resnet50"),
        ({"name": "timm.regnety_003"}, r"'timm\.regnety_003'\. Did you mean 'timm\.regnety_"),
        ({"name": "torchvision.regnety_002"}, r"unknown model"),
        ({"name": "torchvision.fasterrcnn_resnet50_fpn"}, r"unknown model"),
        (
            {"name": "resnet34", "width": 16},
            r"torchvision\.resnet34 has no width to set, got width=16.*: resnet18, preact",
        ),
        (
            {"name": "densenet121", "width": 16},
            r"^densenet121 has no width to set, got width=16; .*vgg11, vgg11_bn$",
        ),
        (
            {"name": "resnext50_32x4d", "width": 24},
            r"width must be a multiple of 16.*32 groups, got 24",
        ),
        ({"name": "vgg11", "stem": "tiny"}, r"unknown stem 'tiny'.*small, imagenet"),
        (
            {"name": "torchvision.vgg11", "stem": "small"},
            r"torchvision\.vgg11 comes with its own stem, got stem='small'",
        ),
        (
            {"name": "timm.resnet18", "stem_stride": 2},
            r"timm\.resnet18 comes with its own stem, got stem_stride=2",
        ),
        (
            {"name": "densenet121", "stem": "imagenet", "stem_stride": 2},
            r"stem='small'.*got stem_stride=2",
        ),
        (
            {"name": "wrn16_8", "stem": "imagenet", "stem_stride": 2},
            r"stem='small'.*got stem_stride=2",
        ),
        (
            {"name": "mobilenet_v2", "norm_before_pool": True},
            r"unknown option of mobilenet_v2 'norm_before_pool'",
        ),
        (
            {"name": "resnet18", "norm_before_pool": True},
            r"unknown option of resnet18 'norm_before_pool'",
        ),
        ({"name": "resnet18", "width": 0}, r"width must be a whole number of at least 1, got 0"),
        (
            {"name": "resnet18", "width": 2.5},
            r"width must be a whole number of at least 1, got 2\.5",
        ),
        (
            {"name": "resnet18", "stem_stride": 0},
            r"stem_stride must be a whole number of at least 1, got 0",
        ),
        (
            {"name": "torchvision.resnet18", "num_classes": 0},
            r"num_classes must be a whole number of at least 1, got 0",
        ),
        (
            {"name": "timm.resnet18", "in_channels": -1},
            r"in_channels must be a whole number of at least 1, got -1",
        ),
    ],
)
def test_bad_settings_get_a_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        models.create(**{"num_classes": 10, **settings})


def test_depths_that_do_not_exist_get_a_sentence():
    with pytest.raises(ValueError, match=r"6n \+ 4 .*got 18"):
        models.WideResNet(18, num_classes=10)
    with pytest.raises(ValueError, match=r"9n \+ 2 .*got 100"):
        models.PyramidNet(100, 240, num_classes=10)


@pytest.fixture
def published(monkeypatch):
    """torchvision's weights for a network of its own, made up here instead of downloaded; what was
    asked for.
    """
    from torchvision import models as library
    from torchvision.models._api import WeightsEnum

    asked = []

    def made_up(weights, *_args, **_settings):
        name = type(weights).__name__.removesuffix("_Weights").lower()
        with torch.device("meta"), undrawn():
            state = library.get_model(name).state_dict()
        rng = torch.Generator().manual_seed(0)
        asked.append((name, weights.name))
        return {
            key: torch.rand(value.shape, generator=rng) * 0.02 + 0.01
            for key, value in state.items()
        }

    monkeypatch.setattr(WeightsEnum, "get_state_dict", made_up)
    return asked


@pytest.mark.parametrize(
    ("name", "options"), [("resnet18", {"stem": "imagenet"}), ("torchvision.mobilenet_v2", {})]
)
def test_pretrained_weights_are_the_first_set_of_torchvision(published, name, options):
    from torchvision import models as library

    bare = name.removeprefix("torchvision.")
    with undrawn():
        whole, few = (
            models.create(name, num_classes=count, pretrained=True, **options)
            for count in (1000, 7)
        )
        assert published == [(bare, "IMAGENET1K_V1")] * 2
        theirs = library.get_model(bare, weights="IMAGENET1K_V1").eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(whole.eval()(images), theirs(images))
        assert few.eval()(images).shape == (2, 7)
    same = [
        torch.equal(*pair)
        for pair in zip(whole.state_dict().values(), few.state_dict().values())
        if pair[0].shape == pair[1].shape
    ]
    # all but the classifier's weight and bias
    assert all(same) and len(same) == len(whole.state_dict()) - 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "wrn16_8", "stem": "imagenet"},
            r"no pretrained weights for wrn16_8; .*resnet18, resnet50",
        ),
        (
            {"name": "timm.resnet18"},
            r"no pretrained weights for timm\.resnet18; there are for torchvision\.NAME",
        ),
        ({"name": "resnet18"}, r"of resnet18 are for stem='imagenet', got stem='small'"),
        (
            {"name": "resnet18", "stem": "imagenet", "width": 16},
            r"the full width.*in_channels=3 and width=16",
        ),
        (
            {"name": "torchvision.resnet18", "in_channels": 1},
            r"3 channels and the full width, got in_channels=1$",
        ),
    ],
)
def test_weights_that_do_not_exist_get_a_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        models.create(num_classes=10, pretrained=True, **settings)


def test_builders_check_their_numbers_too():
    with pytest.raises(ValueError, match="num_classes must be a whole number of at least 1, got 0"):
        models.resnet18(num_classes=0)
    with pytest.raises(ValueError, match="width must be a whole number of at least 1, got -4"):
        models.preact_resnet18(num_classes=2, width=-4)


def test_without_timm_the_extra_is_named_and_the_other_names_still_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # an import of it now fails
    with pytest.raises(ValueError, match=r"pip install -e '.\[timm\]'"):
        models.create("timm.resnet18", num_classes=10)
    with pytest.raises(ValueError, match="unknown model"):
        models.create("regnety_002", num_classes=10)
    assert on_meta("mobilenet_v2", num_classes=10) is not None
