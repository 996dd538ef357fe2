"""What memory likes against the equations, for both formats and every dtype."""

import pytest
import torch

from catchup.mixers.parts.channels import norm_on_cpu, select_channels, spread

FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 4, 9])
def test_norms_are_those_of_the_equation(batch, dtype, memory_format):
    maps = torch.randn(batch, 6, 5, 4).to(dtype).contiguous(memory_format=memory_format)
    wide = torch.promote_types(dtype, torch.float32)
    by_equation = torch.linalg.vector_norm(maps, dim=(2, 3), dtype=wide)
    norms = norm_on_cpu(maps, dim=(2, 3), dtype=wide)
    assert norms.dtype == wide and norms.shape == (batch, 6)
    torch.testing.assert_close(norms, by_equation, rtol=1e-6, atol=0)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64, torch.uint8])
def test_selection_is_that_of_the_equation(dtype, memory_format):
    maps = (100 * torch.rand(5, 3, 4, 6)).to(dtype).contiguous(memory_format=memory_format)
    partner, keep = torch.tensor([2, 0, 1, 4, 3]), spread(torch.rand(5, 3) < 0.5, maps)
    mixed = select_channels(maps, partner, keep)
    assert torch.equal(mixed, torch.where(keep, maps, maps[partner]))
    assert mixed.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_gradients_of_the_selection_are_those_of_the_equation(memory_format):
    maps = torch.randn(5, 3, 4, 6).contiguous(memory_format=memory_format).requires_grad_()
    partner, keep = torch.tensor([2, 0, 1, 4, 3]), spread(torch.rand(5, 3) < 0.5, maps)
    direction = torch.randn(5, 3, 4, 6)
    ours = torch.autograd.grad(select_channels(maps, partner, keep), maps, direction)
    theirs = torch.autograd.grad(torch.where(keep, maps, maps[partner]), maps, direction)
    assert torch.equal(*ours, *theirs)
