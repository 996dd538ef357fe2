"""The way around oneDNN's error: gradients as in float64, autocast left as it was, whatever ends
the block.

On a processor with bfloat16 in AVX-512 the first test fails without it; on others it holds either
way.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from catchup import Settings, fit
from catchup.mixers import make
from catchup.training.machine.onednn import lone_columns_in_float32
from catchup.training.trainer import dataset_of, model_of

CPU = torch.device("cpu")
USUAL = nn.Conv2d._conv_forward
BF16 = {"device_type": "cpu", "dtype": torch.bfloat16}


def poison():
    """Leaves large numbers in the memory that is handed out next."""
    for power in range(3, 16):
        torch.full((2**power,), 1e4, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        (3, 2, 1, (1, 1)),
        (2, 2, 1, (1, 1)),
        (5, 2, 2, (1, 1)),
        (7, 2, 3, (1, 1)),
        (3, 3, 1, (2, 2)),
        (3, 2, 1, (3, 1)),
        (3, 2, 1, (7, 1)),
        (7, 4, 3, (8, 2)),
        (3, (1, 2), 1, (4, 1)),
        (3, 2, 1, (8, 8)),
        (3, 1, 1, (1, 1)),
        (1, 2, 0, (1, 1)),
    ],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_float64(kernel, stride, padding, size, memory_format):
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 32, kernel, stride, padding, bias=False)
    conv.weight.data = conv.weight.bfloat16().float()
    maps, weight = (
        torch.randn(13, 16, *size).bfloat16(),
        conv.weight.detach().double().requires_grad_(),
    )
    exact = F.conv2d(maps.double(), weight, None, stride, padding)
    direction = torch.randn(exact.shape).bfloat16()
    (expected,) = torch.autograd.grad((exact * direction.double()).sum(), weight)
    conv.to(memory_format=memory_format)
    for _ in range(3):
        poison()
        with lone_columns_in_float32(CPU, "bf16"), torch.autocast(**BF16):
            output = conv(maps.contiguous(memory_format=memory_format))
        (found,) = torch.autograd.grad((output.float() * direction.float()).sum(), conv.weight)
        torch.testing.assert_close(output.double(), exact, rtol=0.01, atol=0.01)
        torch.testing.assert_close(
            found.double(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item()
        )


def test_only_lone_columns_change_their_precision():
    conv = nn.Conv2d(4, 4, 3, 2, 1)
    with lone_columns_in_float32(CPU, "bf16"), torch.autocast(**BF16):
        assert (
            conv(torch.ones(2, 4, 5, 1)).dtype
            == torch.float32
            == conv(torch.ones(2, 4, 1, 1).bfloat16()).dtype
        )
        assert conv(torch.ones(2, 4, 1, 5)).dtype == torch.bfloat16 and torch.is_autocast_enabled(
            "cpu"
        )
        assert nn.Conv2d(4, 4, 3, padding="same")(torch.ones(2, 4, 1, 1)).dtype == torch.bfloat16
    assert conv(torch.ones(2, 4, 4, 4)).dtype == torch.float32


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_or_an_interrupt_leaves_nothing_behind(error):
    def interrupted(_module, _args, _output):
        raise error

    net = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))
    net[1].register_forward_hook(interrupted)
    with pytest.raises(error), lone_columns_in_float32(CPU, "bf16"), torch.autocast(**BF16):
        try:
            net(torch.ones(2, 4, 1, 1))
        finally:
            assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu") and nn.Conv2d._conv_forward is USUAL
    assert net[0](torch.ones(2, 4, 4, 4)).dtype == torch.float32


def test_blocks_may_be_nested_and_copies_are_whole():
    """In threads too: see test_shared.py."""
    conv = nn.Conv2d(4, 4, 3, 2, 1)
    with torch.autocast(**BF16):
        with lone_columns_in_float32(CPU, "bf16"):
            with lone_columns_in_float32(CPU, "bf16"):
                copied = copy.deepcopy(conv)
            assert conv(torch.ones(2, 4, 1, 1)).dtype == torch.float32
        assert (
            conv(torch.ones(2, 4, 1, 1)).dtype == torch.bfloat16
            and nn.Conv2d._conv_forward is USUAL
        )
    assert vars(copied).keys() == vars(nn.Conv2d(4, 4, 3)).keys()


def settings(**changes):
    return Settings(
        subset=10,
        width=16,
        stem_stride=2,
        epochs=3,
        batch_size=25,
        lr=0.02,
        precision="bf16",
        device="cpu",
        validate_every=0,
        **changes,
    )


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_a_network_whose_last_stage_is_a_pixel_learns_in_bfloat16(monkeypatch, compiled):
    """ResNet-18 with a stem stride of 2 on digits comes to one pixel before its last stage."""
    usual = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda *args, **options: usual(*args, **{**options, "backend": "eager"})
    )
    chosen = settings(compile=compiled)
    digits = dataset_of(chosen, progress=False)
    model = model_of(chosen, digits)
    result = fit(model, make("catchup", seed=0), digits, chosen, progress=False)
    assert result.rows[-1]["train_loss"] < result.rows[0]["train_loss"]
    assert max(value.abs().max() for value in model.parameters()) < 10
