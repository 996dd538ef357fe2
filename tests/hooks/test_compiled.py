"""Parts of a model that are compiled, graphs, and networks whose blocks cannot be read off: the
names are the model's own, or the refusal says why.
"""

import copy
from dataclasses import replace

import pytest
import torch
from test_blocks import Net, build, conv, layer, numbered, seq, tail
from torch import Tensor, fx, nn

from catchup import CatchUpMix, Draw, compile_blocks, count_hooks, recording
from catchup.hooks.blocks import find_blocks
from catchup.hooks.layers import hookable
from catchup.mixers import MIXERS, make

DRAW = Draw(2, [1, 2, 3, 0], 0.5)


def rows():
    """Three stages in a row, behind a stem."""
    torch.manual_seed(0)
    stages = (seq(*layer(a, b), *layer(b, b)) for a, b in ((4, 4), (4, 8), (8, 8)))
    return seq(conv(3, 4), nn.ReLU(), *stages, *tail(8))


@pytest.fixture
def images():
    return torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
def test_a_compiled_stage_goes_by_its_own_name_and_is_mixed_as_the_plain_one(images):
    plain = rows()
    partly = copy.deepcopy(plain)
    partly[3] = torch.compile(partly[3], backend="eager")
    assert find_blocks(partly) == find_blocks(plain) == ["1", "2", "3", "4"]
    for number in (1, 2, 3, 4):
        draw = replace(DRAW, layer=number)
        mixers = CatchUpMix(seed=0), CatchUpMix(seed=0)
        expected, loss = (
            mixer.loss(model, images, torch.arange(4), draw=draw)
            for mixer, model in zip(mixers, (plain, partly))
        )
        torch.testing.assert_close(loss, expected)
        assert mixers[1].last.block == str(number)
    assert count_hooks(partly) == 0
    with pytest.raises(RuntimeError, match="'3.0' is inside the compiled block '3'"):
        hookable(partly, "3.0")
    compile_blocks(partly, backend="eager")
    assert partly(images).shape == (4, 5)


@pytest.mark.slow
def test_a_model_with_a_compiled_stage_is_recorded_as_the_plain_one(images):
    plain = rows()
    partly = copy.deepcopy(plain)
    partly[3] = torch.compile(partly[3], backend="eager")
    found = []
    for model in (plain, partly):
        with recording(model, every=1) as record:
            CatchUpMix(seed=0).loss(model, images, torch.arange(4), draw=DRAW).backward()
        found.append(record.rows())
    assert [row["block"] for row in found[0]] == [row["block"] for row in found[1]]
    for one, other in zip(*found):
        assert other == pytest.approx(one, nan_ok=True)


def test_a_compiled_backbone_is_refused_with_the_true_reason(images):
    model = Net(backbone=torch.compile(rows(), backend="eager"), head=nn.ReLU())
    found = find_blocks(model)
    assert found == [f"backbone.{number}" for number in (1, 2, 3, 4)]
    with pytest.raises(RuntimeError, match="inside the compiled block 'backbone'"):
        CatchUpMix(seed=0).loss(model, images, torch.arange(4), draw=DRAW)


def test_graphs_are_refused_and_a_graph_that_is_a_stage_is_one_module(images):
    for graph in (fx.symbolic_trace(rows()), torch.jit.script(rows())):
        for model in (graph, Net(backbone=graph, head=nn.ReLU())):
            with pytest.raises(ValueError, match="is a graph .* the model that it was made from"):
                find_blocks(model)
    model = rows()
    model[3] = fx.symbolic_trace(model[3])
    assert find_blocks(model) == ["1", "2", "3", "4"]
    CatchUpMix(seed=0).loss(model, images, torch.arange(4), draw=replace(DRAW, layer=3))


def test_a_stage_that_returns_several_maps_is_named():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(4, 4), conv(4, 4)

        def forward(self, maps: Tensor) -> list[Tensor]:
            return [self.a(maps), self.b(maps)]

    class Row(nn.Sequential):
        def forward(self, maps):
            return super().forward(maps)

    model = Net(stem=conv(3, 4), layer1=seq(*layer(4, 4), conv(4, 4)), stage2=Row(Branches()))
    with pytest.raises(ValueError, match="'stage2' says that it returns several maps; name"):
        find_blocks(model)


def test_lazy_layers_are_refused_before_they_know_their_shapes(images):
    model = seq(nn.LazyConv2d(4, 3), nn.ReLU(), conv(4, 8), nn.ReLU(), *tail(8))
    with pytest.raises(ValueError, match="lazy layers.*run it once"):
        find_blocks(model)
    model(images)
    assert find_blocks(model) == ["1", "3"]


def test_the_refusal_counts_what_it_looked_for():
    model = seq(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3))
    with pytest.raises(ValueError, match=r"\(2-D or 3-D convolutions in it: 0\)"):
        find_blocks(model)


def test_a_wide_last_convolution_hides_no_stages():
    pytest.importorskip("timm")
    model = build("timm.mobilenetv3_small_050")
    assert find_blocks(model) == ["bn1", *numbered("blocks.", *range(5))]


@pytest.mark.slow
def test_hrnet_is_refused_by_the_name_of_its_first_stage_of_branches():
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match="'stage2' says that it returns several maps"):
        find_blocks(build("timm.hrnet_w18_small"))


# -- three dimensions ------------------------------------------------------------------------------


def volumes():
    torch.manual_seed(0)
    return seq(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def naive(maps, partner, lam):
    """Catch-up Mix of volumes, one channel at a time: the filters that lag behind stay."""
    mixed = maps.clone()
    for i, j in enumerate(partner):
        own = [maps[i, c].square().sum().sqrt() for c in range(maps.shape[1])]
        theirs = [maps[j, c].square().sum().sqrt() for c in range(maps.shape[1])]
        lead = [(a / sum(own) - b / sum(theirs)).item() for a, b in zip(own, theirs)]
        kept = sorted(range(len(lead)), key=lead.__getitem__)[: int(lam * len(lead))]
        for c in set(range(len(lead))).difference(kept):
            mixed[i, c] = maps[j, c]
    return mixed


@pytest.mark.parametrize("number, block", [(1, "1"), (2, "3")])
def test_volumes_are_mixed_by_channel(number, block):
    model = volumes()
    images = torch.rand(4, 1, 5, 6, 7, generator=torch.Generator().manual_seed(3))
    labels, partner, lam = torch.tensor([0, 1, 2, 0]), [2, 0, 3, 1], 0.6
    assert find_blocks(model) == ["1", "3"]
    maps = model[: int(block) + 1](images)
    logits = model[int(block) + 1 :](naive(maps, partner, lam))
    log_p = logits.log_softmax(dim=1)
    expected = -sum(
        lam * log_p[i, labels[i]] + (1 - lam) * log_p[i, labels[j]] for i, j in enumerate(partner)
    ) / len(partner)
    loss = CatchUpMix(seed=0).loss(model, images, labels, draw=Draw(number, partner, lam))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", MIXERS)
def test_every_method_mixes_volumes_or_says_that_it_does_not(name):
    mixer, model, labels = make(name, seed=0), volumes(), torch.tensor([0, 1, 2, 0])
    images = torch.rand(4, 1, 5, 6, 7, generator=torch.Generator().manual_seed(3))
    if not mixer.planar:
        assert mixer.loss(model, images, labels).isfinite()
        return
    # the last two look at the model first
    words = r"mixes images \(B, C, H, W\), got|has no 2-D convolution|has only the blocks"
    with pytest.raises(ValueError, match=words):
        mixer.check(model)
        mixer.begin_run(model, 3)
        mixer.loss(model, images, labels)


def test_volumes_are_not_recorded_in_silence():
    images, labels = torch.rand(2, 1, 5, 6, 7), torch.tensor([0, 1])
    model = volumes()
    with pytest.raises(ValueError, match="must return maps .B, C, H, W. to be recorded"):
        with recording(model, every=1):
            CatchUpMix(seed=0).loss(model, images, labels)
