"""The way around oneDNN's error: gradients as in float64, hooks and autocast left as they were.

On a processor with bfloat16 in AVX-512 the first test fails without it; on others it holds either way.
"""

import pytest
import torch
from torch import nn

from catchup import Settings, count_hooks, fit
from catchup.mixers import make
from catchup.onednn import lone_pixels_in_float32
from catchup.training import dataset_of, model_of

BF16 = {"device_type": "cpu", "dtype": torch.bfloat16}


def poison():
    """Leaves large numbers in the memory that is handed out next."""
    for power in range(3, 16):
        torch.full((2**power,), 1e4, dtype=torch.bfloat16)


@pytest.mark.parametrize(("kernel", "stride", "padding", "side"), [(3, 2, 1, 1), (2, 2, 1, 1), (5, 2, 2, 1),
                                                                   (7, 2, 3, 1), (3, 3, 1, 2), (3, 2, 1, 2),
                                                                   (3, 2, 1, 8), (3, 1, 1, 1), (1, 2, 0, 1)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_float64(kernel, stride, padding, side, memory_format):
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 32, kernel, stride, padding, bias=False)
    conv.weight.data = conv.weight.bfloat16().float()
    maps = torch.randn(13, 16, side, side).bfloat16()
    exact = torch.nn.functional.conv2d(maps.double(), conv.weight.double(), None, stride, padding)
    direction = torch.randn(exact.shape).bfloat16()
    expected, = torch.autograd.grad((nn.functional.conv2d(
        maps.double(), (weight := conv.weight.detach().double().requires_grad_()), None, stride, padding)
        * direction.double()).sum(), weight)
    conv.to(memory_format=memory_format)
    for _ in range(3):
        poison()
        with lone_pixels_in_float32(conv), torch.autocast(**BF16):
            output = conv(maps.contiguous(memory_format=memory_format))
        found, = torch.autograd.grad((output.float() * direction.float()).sum(), conv.weight)
        torch.testing.assert_close(output.double(), exact, rtol=0.01, atol=0.01)
        torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


def test_only_lone_pixels_change_their_precision():
    conv = nn.Conv2d(4, 4, 3, 2, 1)
    with lone_pixels_in_float32(conv), torch.autocast(**BF16):
        assert conv(torch.ones(2, 4, 1, 1)).dtype == torch.float32 == conv(torch.ones(2, 4, 1, 1).bfloat16()).dtype
        assert conv(torch.ones(2, 4, 4, 4)).dtype == torch.bfloat16 and torch.is_autocast_enabled("cpu")
    assert conv(torch.ones(2, 4, 4, 4)).dtype == torch.float32


def test_no_hook_and_no_autocast_is_left_after_an_error():
    net = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))
    with pytest.raises(RuntimeError), lone_pixels_in_float32(net), torch.autocast(**BF16):
        try:
            net(torch.ones(2, 3, 1, 1))
        finally:
            assert torch.is_autocast_enabled("cpu")
    assert count_hooks(net) == 0 and not torch.is_autocast_enabled("cpu")


def test_a_network_whose_last_stage_is_a_pixel_learns_in_bfloat16():
    """ResNet-18 with a stem stride of 2 on digits comes to one pixel before its last stage."""
    settings = Settings(subset=10, width=16, stem_stride=2, epochs=3, batch_size=25, lr=0.02, precision="bf16",
                        device="cpu", validate_every=0)
    digits = dataset_of(settings, progress=False)
    model = model_of(settings, digits)
    result = fit(model, make("baseline", seed=0), digits, settings, progress=False)
    assert result.rows[-1]["train_loss"] < result.rows[0]["train_loss"]
    assert max(value.abs().max() for value in model.parameters()) < 10 and count_hooks(model) == 0
