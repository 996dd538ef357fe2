"""Against plain indexing: values, memory format and gradients."""

import pytest
import torch

from catchup import mix_channels
from catchup.mixers.parts.partners import of_partners

PARTNER = torch.tensor([2, 0, 1, 4, 3])


@pytest.mark.parametrize(
    "shape", [(5,), (5, 3), (5, 3, 4), (5, 1, 4, 6), (5, 3, 1, 1), (5, 3, 4, 6), (5, 3, 2, 4, 6)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
def test_values_are_those_of_plain_indexing(shape, dtype):
    maps = (100 * torch.rand(shape)).to(dtype)
    cases = [maps, maps.flip(0).flip(0)] + (
        [maps.contiguous(memory_format=torch.channels_last), maps.mT] if len(shape) == 4 else []
    )
    for given in cases:
        found = of_partners(given, PARTNER)
        assert torch.equal(found, given[PARTNER]) and found.data_ptr() != given.data_ptr()


@pytest.mark.slow
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_and_the_gradients_too(memory_format):
    maps = (
        torch.rand(5, 3, 4, 6, dtype=torch.float64)
        .contiguous(memory_format=memory_format)
        .requires_grad_()
    )
    found = of_partners(maps, PARTNER)
    assert found.is_contiguous(memory_format=memory_format) and found.stride() == maps.stride()
    assert torch.autograd.gradcheck(lambda m: of_partners(m, PARTNER), maps)
    assert torch.autograd.gradgradcheck(lambda m: of_partners(m, PARTNER), maps)
    direction = torch.rand_like(found)
    (grad,), (plain,) = (
        torch.autograd.grad(taken, maps, direction) for taken in (found, maps[PARTNER])
    )
    assert torch.equal(grad, plain)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_layer_behind_may_work_in_place(memory_format):
    """As in torchvision's AlexNet, whose ReLUs do."""
    maps = (torch.rand(5, 3, 4, 6) - 0.5).contiguous(memory_format=memory_format).requires_grad_()
    keep = torch.rand(5, 3) < 0.5
    for mixed in (of_partners(maps, PARTNER), mix_channels(maps, PARTNER, keep)):
        assert not mixed._is_view()
        mixed.relu_().sum().backward()
