"""DropBlock against a loop read off Algorithm 1, against torchvision where that can, and where it
cannot.
"""

import pytest
import torch
from torchvision.ops import drop_block2d

from catchup import models
from catchup.mixers import make
from catchup.mixers.regularisers.dropblock import DropBlock, drop_blocks, gamma, grow_blocks
from catchup.mixers.regularisers.seeds import generator


def slow_blocks(corners, block, height, width):
    """The union of the blocks, value by value, corner by corner."""
    dropped = torch.zeros(*corners.shape[:2], height, width, dtype=torch.bool)
    for image, channel, top, left in corners.nonzero().tolist():
        for row in range(top, top + block[0]):
            for column in range(left, left + block[1]):
                dropped[image, channel, row, column] = True
    return dropped


@pytest.mark.parametrize("block", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 2), (7, 6)])
def test_blocks_grow_as_in_the_loop_even_and_odd(block):
    height, width = 7, 6
    places = (2, 3, height - block[0] + 1, width - block[1] + 1)
    corners = torch.rand(places, generator=torch.Generator().manual_seed(block[0])) < 0.2
    corners[0, 0], corners[0, 1] = False, True
    before = corners.clone()
    dropped = grow_blocks(corners, block)
    assert torch.equal(dropped, slow_blocks(corners, block, height, width)) and torch.equal(
        corners, before
    )
    assert not dropped[0, 0].any() and dropped[0, 1].all()


@pytest.mark.parametrize("size", [(8, 8), (5, 9)])
@pytest.mark.parametrize("block", [1, 3, 5])
@pytest.mark.parametrize("drop", [0.1, 0.5])
def test_the_same_corners_give_torchvisions_result(size, block, drop, monkeypatch):
    maps = torch.randn(6, 4, *size)
    found = []

    def bernoulli(noise, probability):  # what torchvision draws is replaced by what we drew
        found.append(probability)
        return noise.copy_(corners)

    corners = torch.rand(6, 4, size[0] - block + 1, size[1] - block + 1) < gamma(
        1 - drop, (block, block), size
    )
    monkeypatch.setattr(torch.Tensor, "bernoulli_", bernoulli)
    expected = drop_block2d(maps, drop, block)
    assert found[0] == pytest.approx(gamma(1 - drop, (block, block), size))
    torch.testing.assert_close(drop_blocks(maps, grow_blocks(corners, (block, block))), expected)


def test_gamma_is_equation_1():
    assert gamma(0.9, (4, 4), (8, 8)) == pytest.approx(0.1 / 4**2 * 8**2 / 5**2)
    assert gamma(0.9, (7, 7), (14, 14)) == pytest.approx(0.1 / 49 * 196 / 64)
    assert gamma(0.75, (1, 1), (5, 3)) == pytest.approx(0.25)  # dropout
    assert gamma(0.75, (5, 3), (5, 3)) == pytest.approx(0.25)  # whole maps
    for side in range(1, 9):
        assert all(gamma(0.6, (block, 1), (side, 4)) <= 0.4 + 1e-9 for block in range(1, side + 1))


@pytest.mark.parametrize(
    ("size", "block", "share"),
    [
        ((8, 8), 1, 0.3),  # single values
        ((2, 3), 4, 0.3),  # torchvision refuses: a map smaller than the block goes as a whole
        ((1, 1), 7, 0.3),
        ((4, 4), 4, 0.3),  # torchvision refuses: even
    ],
)
def test_the_share_dropped_where_it_is_known(size, block, share):
    dropped = DropBlock(keep=0.7, block=block).dropped((40, 50, *size), generator(3, "test"))
    independent = 40 * 50 if block > 1 else dropped.numel()
    assert abs(dropped.float().mean() - share) < 4 * (0.3 * 0.7 / independent) ** 0.5
    if block > 1:
        whole = dropped.flatten(2)
        assert torch.equal(whole.all(dim=2), whole.any(dim=2))


def test_every_channel_of_every_image_has_its_own_blocks_all_places_as_likely():
    dropped = DropBlock(keep=0.9, block=3).dropped((100, 40, 7, 7), generator(1, "test"))
    rows = {tuple(one.flatten().tolist()) for image in dropped for one in image}
    assert len(rows) > 200  # shared over images there would be 40 at most, shared over channels 100
    share = dropped.float().mean(dim=(0, 1))
    middle, corner = share[3, 3], share[0, 0]
    place = gamma(0.9, (3, 3), (7, 7))
    error = (place / 4000) ** 0.5
    assert abs(corner - place) < 4 * error  # one block can cover a corner
    assert abs(middle - (1 - (1 - place) ** 9)) < 12 * error  # nine can cover the middle


def test_what_is_left_is_made_larger_by_what_is_gone():
    maps, dropped = torch.rand(3, 2, 4, 4) + 1, torch.zeros(3, 2, 4, 4, dtype=torch.bool)
    dropped[0, 0, :2, :2] = True
    result = drop_blocks(maps, dropped)
    torch.testing.assert_close(result, torch.where(dropped, 0, maps) * 96 / 92)
    assert (drop_blocks(maps, torch.ones_like(dropped)) == 0).all()
    assert torch.equal(drop_blocks(maps, torch.zeros_like(dropped)), maps)


def test_infinite_values_can_be_dropped_and_half_floats_do_not_overflow():
    maps, dropped = torch.ones(1, 1, 2, 2), torch.tensor([[[[True, False], [False, False]]]])
    maps[0, 0, 0, 0] = torch.inf
    assert drop_blocks(maps, dropped).isfinite().all()
    large = torch.ones(20, 64, 8, 8, dtype=torch.float16)  # more values than a half float can count
    result = drop_blocks(large, torch.zeros(large.shape, dtype=torch.bool))
    assert result.dtype == torch.float16 and torch.equal(result, large)


def test_the_gradient_is_that_of_the_product():
    maps = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    dropped = torch.rand(2, 2, 4, 4) < 0.4
    assert torch.autograd.gradcheck(lambda values: drop_blocks(values, dropped), maps)


def test_it_acts_behind_the_last_two_stages_or_where_it_is_told():
    model = models.create("resnet18", num_classes=5, width=4)
    images = torch.randn(3, 3, 32, 32)

    def zeros(regulariser):
        seen = {}
        with regulariser.around(model, 2):
            handles = [
                model.get_submodule(name).register_forward_hook(
                    lambda _m, _a, maps, name=name: seen.update(
                        {name: (maps[:, :, 1:3, 1:3] == 0).all(dim=(2, 3))}
                    )
                )
                for name in ("stem", "layer1", "layer2", "layer3", "layer4")
            ]
            model(images)
        for handle in handles:
            handle.remove()
        return {name for name, gone in seen.items() if gone.float().mean() > 0.2}

    def plain():
        return zeros(DropBlock(keep=1.0))

    assert DropBlock().block_names(model) == ("layer3", "layer4")
    assert zeros(DropBlock(keep=0.3)) - plain() == {"layer3", "layer4"}
    assert zeros(DropBlock(keep=0.3, blocks="layer1")) - plain() == {"layer1"}
    assert zeros(DropBlock(keep=0.3, blocks=("layer1", "layer2"))) - plain() == {"layer1", "layer2"}


def test_wrong_places_are_refused(tiny, batch):
    with pytest.raises(ValueError, match="unknown layer 'layr1'. Did you mean 'layer1'"):
        make("cutmix", regularisers=("dropblock:blocks=layr1",)).check(tiny)
    with pytest.raises(ValueError, match=r"dropblock needs maps \(B, C, H, W\), got \(7, 5\)"):
        make("cutmix", seed=0, regularisers=("dropblock:blocks=fc",)).loss(tiny, *batch)
    with pytest.raises(ValueError, match="found no layer blocks"):
        make("cutmix", regularisers=("dropblock",)).check(torch.nn.Linear(3, 2))
