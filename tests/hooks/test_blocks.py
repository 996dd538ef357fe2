"""Layer blocks: the pinned table, networks of users, wrappers; a forward pass with hooks is the
judge.
"""

import pytest
import torch
from torch import nn

from catchup import models
from catchup.hooks.blocks import find_blocks, unwrap

LAYERS = ["layer1", "layer2", "layer3", "layer4"]


def numbered(prefix, *numbers):
    return [f"{prefix}{number}" for number in numbers]


TABLE = {
    "resnet18": ["stem", *LAYERS],
    "preact_resnet18": ["stem", *LAYERS],
    "torchvision.resnet18": ["maxpool", *LAYERS],
    "torchvision.resnet50": ["maxpool", *LAYERS],
    "torchvision.resnext50_32x4d": ["maxpool", *LAYERS],
    "torchvision.wide_resnet50_2": ["maxpool", *LAYERS],
    "torchvision.densenet121": ["features.pool0", *numbered("features.denseblock", 1, 2, 3, 4)],
    "torchvision.vgg11": numbered("features.", 1, 4, 7, 9, 12, 14, 17, 19),
    "torchvision.vgg11_bn": numbered("features.", 2, 6, 10, 13, 17, 20, 24, 27),
    "torchvision.alexnet": numbered("features.", 1, 4, 7, 9, 11),
    "torchvision.mobilenet_v2": numbered("features.", 0, 1, 3, 6, 10, 13, 16, 17),
    "torchvision.mobilenet_v3_small": numbered("features.", 0, 1, 3, 6, 8, 11),
    "torchvision.efficientnet_b0": numbered("features.", *range(8)),
    "torchvision.convnext_tiny": numbered("features.", 0, 1, 3, 5, 7),
    "torchvision.shufflenet_v2_x1_0": ["maxpool", "stage2", "stage3", "stage4"],
    "torchvision.squeezenet1_1": numbered("features.", 2, 3, 4, 6, 7, 9, 10, 11, 12),
    "torchvision.regnet_y_400mf": ["stem", *numbered("trunk_output.block", 1, 2, 3, 4)],
    "torchvision.inception_v3": [
        "maxpool2",
        *numbered("Mixed_", *"5b 5c 5d 6a 6b 6c 6d 6e 7a 7b 7c".split()),
    ],
    "torchvision.googlenet": [
        "maxpool2",
        *numbered("inception", *"3a 3b 4a 4b 4c 4d 4e 5a 5b".split()),
    ],
    "torchvision.mnasnet1_0": numbered("layers.", 7, 8, 9, 10, 11, 12, 13),
    "timm.resnet18": ["maxpool", *LAYERS],
    "timm.resnet18d": ["maxpool", *LAYERS],  # three convolutions in the stem
    "timm.resnetv2_50": ["stem", *numbered("stages.", 0, 1, 2, 3)],
    "timm.regnety_002": ["stem", "s1", "s2", "s3", "s4"],
    "timm.convnext_tiny": ["stem", *numbered("stages.", 0, 1, 2, 3)],
    "timm.efficientnet_b0": ["bn1", *numbered("blocks.", *range(7))],
    "timm.dla34": ["level1", "level2", "level3", "level4", "level5"],
}


def build(name, **settings):
    if "regnet_" in name:  # reads a tensor while building, which the meta device refuses
        return models.create(name, num_classes=10, **settings).to("meta").eval()
    if name in ("torchvision.googlenet", "torchvision.inception_v3"):
        settings["init_weights"] = False
    with torch.device("meta"):
        return models.create(name, num_classes=10, **settings).eval()


def runs(model, names, images):
    """What really happens: (name, dimensions of the output) of every call of the named modules, in
    order.
    """
    calls = []
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda _module, _args, maps, name=name: calls.append((name, maps.ndim))
        )
    model(images)
    return calls


def conv(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


def layer(inputs, outputs, stride=1):
    return [conv(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU()]


def block(inputs, outputs, stride=1):
    return models.BasicBlock(inputs, outputs, stride)


def tail(channels):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]


class Net(nn.Module):
    """Children run one after the other in the order given."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, maps):
        for child in self.children():
            for part in child if isinstance(child, nn.ModuleList) else [child]:
                maps = part(maps)
        return maps


class Residual(nn.Sequential):
    """A Sequential with a forward of its own, of one or more convolutions."""

    def forward(self, maps):
        return maps + super().forward(maps)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_the_table_holds_and_every_block_runs_once_in_its_order(name):
    model = build(name)
    assert find_blocks(model) == TABLE[name]
    images = torch.empty(2, 3, 96, 96, device="meta")
    assert runs(model, TABLE[name], images) == [(block_name, 4) for block_name in TABLE[name]]


def test_the_norm_before_the_pool_of_preact_is_no_block():
    assert find_blocks(build("preact_resnet18", norm_before_pool=True)) == ["stem", *LAYERS]


def seq(*parts):
    return nn.Sequential(*parts)


def users():
    """Networks as people write them, and the blocks to expect."""
    relu = nn.ReLU()
    stages = {
        "layer1": seq(block(8, 8), block(8, 8)),
        "layer2": seq(block(8, 16, 2), block(16, 16)),
    }
    deep = [*layer(3, 4, 2), *layer(4, 4), *layer(4, 8), nn.MaxPool2d(2)]
    return {
        "plain": (
            seq(*layer(3, 8), nn.MaxPool2d(2), *layer(8, 16), *layer(16, 16), *tail(16)),
            ["2", "6", "9"],
        ),
        "plain in rows": (
            seq(seq(*layer(3, 8), nn.MaxPool2d(2)), seq(*layer(8, 8)), *tail(8)),
            ["0.2", "1.2"],
        ),
        "one convolution": (seq(*layer(3, 8), *tail(8)), ["2"]),
        "plain, relu shared": (seq(conv(3, 8), relu, conv(8, 8), relu, *tail(8)), ["0", "2"]),
        "all convolutional": (
            seq(*layer(3, 8), *layer(8, 8), nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1)),
            ["2", "5"],
        ),
        "loose children": (
            Net(c1=conv(3, 8), act1=nn.ReLU(), c2=conv(8, 8), act2=nn.ReLU(), end=seq(*tail(8))),
            ["c1", "c2"],
        ),
        "body with its end": (
            Net(c=conv(3, 64), d=conv(64, 8), body=seq(*layer(8, 8), *layer(8, 8), *tail(8))),
            ["c", "d", "body.2", "body.5"],
        ),
        "one stage": (
            Net(stem=seq(*layer(3, 8)), layer1=stages["layer1"], end=seq(*tail(8))),
            ["stem", "layer1"],
        ),
        "one block": (seq(block(3, 8), *tail(8)), ["0"]),
        "flat blocks": (
            seq(
                *layer(3, 8),
                block(8, 8),
                block(8, 8),
                block(8, 16, 2),
                block(16, 16),
                block(16, 16, 2),
                conv(16, 16),
                block(16, 16),
                *tail(16),
            ),
            ["2", "4", "6", "7", "9"],
        ),
        "neighbours of two kinds": (
            seq(*layer(3, 8), block(8, 8), models.PreActBlock(8, 8, 1), *tail(8)),
            ["2", "3", "4"],
        ),
        "residual rows": (
            seq(
                *layer(3, 8),
                Residual(*layer(8, 8), conv(8, 8)),
                Residual(conv(8, 8)),
                Residual(*layer(8, 8), conv(8, 8)),
                *tail(8),
            ),
            ["2", "3", "5"],
        ),
        "one residual row": (seq(Residual(conv(3, 3), nn.ReLU(), conv(3, 3)), *tail(3)), ["0"]),
        "activation elsewhere": (
            Net(body=seq(conv(3, 8), nn.ReLU(), conv(8, 8)), act=nn.ReLU(), end=seq(*tail(8))),
            ["body.1", "body.2"],
        ),
        "stage with its pooling": (
            Net(stem=conv(3, 8), layer1=stages["layer1"], fc=seq(block(8, 8), *tail(8))),
            ["stem", "layer1", "fc.0"],
        ),
        "stage pooled to a vector": (
            Net(
                stem=conv(3, 8),
                layer1=stages["layer1"],
                layer2=seq(block(8, 8), *tail(8)[:2]),
                fc=nn.Linear(8, 5),
            ),
            ["stem", "layer1", "layer2.0"],
        ),
        "module list": (
            Net(
                stem=conv(3, 8),
                body=nn.ModuleList([block(8, 8), block(8, 16, 2), block(16, 16)]),
                end=seq(*tail(16)),
            ),
            ["stem", "body.0", "body.2"],
        ),
        "deep stem": (
            Net(stem=seq(*deep), **stages, end=seq(*tail(16))),
            ["stem", "layer1", "layer2"],
        ),
        "deep stem, norm outside": (
            Net(
                c=seq(*layer(3, 8), conv(8, 8)),
                bn=nn.BatchNorm2d(8),
                act=nn.ReLU(),
                **stages,
                end=seq(*tail(16)),
            ),
            ["act", "layer1", "layer2"],
        ),
        "transition": (
            Net(
                stem=conv(3, 8),
                a=seq(block(8, 8)),
                t=conv(8, 8, 2),
                b=seq(block(8, 8)),
                last=conv(8, 4),
                end=seq(*tail(4)),
            ),
            ["stem", "a", "b"],
        ),
        "stages in a row": (
            Net(
                stem=conv(3, 4),
                stages=seq(*[seq(block(4, 4, s), block(4, 4)) for s in (1, 2, 2)]),
                head=seq(*layer(4, 4), *layer(4, 4)),
                end=seq(*tail(4)),
            ),
            ["stem", "stages.0", "stages.1", "stages.2", "head"],
        ),
    }


@pytest.mark.parametrize("name", users())
def test_networks_of_users(name):
    model, expected = users()[name]
    assert find_blocks(model.eval()) == expected
    assert runs(model, expected, torch.rand(2, 3, 16, 16)) == [
        (block_name, 4) for block_name in expected
    ]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", nn.Identity()),
        ("resnet18", nn.Linear(10, 3)),
        ("torchvision.vgg11", nn.Linear(10, 3)),
        ("torchvision.mobilenet_v2", nn.ReLU()),
    ],
)
def test_a_backbone_inside_another_model_is_opened(name, head):
    model = Net(model=Net(backbone=build(name), head=head))
    assert find_blocks(model) == [f"model.backbone.{inner}" for inner in TABLE[name]]


def test_a_head_with_convolutions_does_not_hide_the_backbone():
    model = Net(
        backbone=build("torchvision.resnet18"), head=seq(*layer(10, 10), *layer(10, 10), *tail(10))
    )
    assert find_blocks(model)[:5] == ["backbone.maxpool", *numbered("backbone.", *LAYERS)]


def test_an_auxiliary_classifier_is_no_block():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv0, self.conv1, self.fc = conv(8, 8), conv(8, 8), nn.Linear(8, 5)

        def forward(self, maps):
            return self.fc(self.conv1(self.conv0(maps)).mean(dim=(2, 3)))

    model = Net(
        stem=conv(3, 8),
        layer1=seq(block(8, 8)),
        aux=Auxiliary(),
        layer2=seq(block(8, 8)),
        end=nn.Linear(8, 5),
    )
    assert find_blocks(model) == ["stem", "layer1", "layer2"]


def test_wrappers_are_looked_through_however_nested():
    model = models.create("resnet18", num_classes=3, width=4)
    compiled = torch.compile(model, backend="eager")
    for wrapped in (
        model,
        nn.DataParallel(model),
        compiled,
        nn.DataParallel(compiled),
        torch.compile(nn.DataParallel(model), backend="eager"),
    ):
        assert unwrap(wrapped) is model
        assert find_blocks(wrapped) == ["stem", *LAYERS]


def test_distributed_data_parallel_is_looked_through(tmp_path):
    model = models.create("resnet18", num_classes=3, width=4)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        assert unwrap(wrapped) is model
        assert find_blocks(wrapped) == ["stem", *LAYERS]
    finally:
        torch.distributed.destroy_process_group()


def test_a_child_called_module_is_no_wrapper():
    model = Net(module=seq(*layer(3, 8), *tail(8)))
    assert unwrap(model) is model
    assert find_blocks(model) == ["module.2"]


@pytest.mark.parametrize(
    "model",
    [
        seq(nn.Flatten(), nn.Linear(12, 5)),
        nn.Linear(3, 2),
        "torchvision.vit_b_16",
        "torchvision.swin_t",
        "timm.mixer_s32_224",
    ],
)
def test_where_nothing_is_found_the_error_says_how_to_name_blocks(model):
    model = build(model) if isinstance(model, str) else model
    with pytest.raises(
        ValueError, match=rf"{type(model).__name__}.*CatchUpMix\(blocks=.*named_modules"
    ):
        find_blocks(model)


def test_finding_runs_nothing_and_changes_nothing():
    model = models.create("resnet18", num_classes=3, width=4)
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    model.register_forward_hook(lambda *_: pytest.fail("the model was run"))
    find_blocks(model)
    assert all(torch.equal(before[name], weights) for name, weights in model.state_dict().items())
    assert sum(len(part._forward_hooks) for part in model.modules()) == 1
