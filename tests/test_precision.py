"""Which precision "auto" stands for: asked of the processor, written into the record, and no worse for the result."""

from dataclasses import replace

import pytest
import torch

from catchup import precision, runs
from catchup.data import load, subset
from catchup.mixers import make
from catchup.precision import chosen, has_bfloat16, with_precision
from catchup.settings import Settings
from catchup.training import fit, model_of, train

CPU = torch.device("cpu")


@pytest.mark.parametrize(("capabilities", "expected"), [
    ({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"bf16": True}, True),
    ({"avx512_f": True, "avx2": True, "amx_bf16": False}, False), ({}, False)])
def test_the_processor_is_asked(monkeypatch, capabilities, expected):
    monkeypatch.setattr(precision, "has_bfloat16", has_bfloat16)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16(CPU) is expected
    assert chosen("auto", CPU) == ("bf16" if expected else "fp32")


def test_an_older_torch_that_cannot_tell_means_no(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bfloat16(CPU) and not has_bfloat16(torch.device("meta"))


def test_emulated_bfloat16_on_a_gpu_does_not_count(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not has_bfloat16(torch.device("cuda"))


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
def test_a_named_precision_stays(monkeypatch, wanted):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    assert chosen(wanted, CPU) == wanted and with_precision(Settings(precision=wanted)).precision == wanted


@pytest.mark.parametrize("fast", [True, False])
def test_the_record_says_what_was_computed(monkeypatch, tmp_path, fast):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: fast)
    settings = Settings(subset=3, width=4, epochs=1, batch_size=30, lr=0.05, device="cpu")
    assert settings.precision == "auto"
    train(settings, tmp_path / "run", progress=False)
    assert runs.read_json(tmp_path / "run" / runs.RUN)["settings"]["precision"] == ("bf16" if fast else "fp32")
    train(settings, tmp_path / "run", resume=True, progress=False)  # the same machine says the same again
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: not fast)
    with pytest.raises(ValueError, match="precision was"):
        train(settings, tmp_path / "run", resume=True, progress=False)


def test_bfloat16_learns_as_float32_does():
    """Emulated where the processor has none: slower, and the same numbers. The record of `catchup bench` has more."""
    settings = Settings(subset=10, width=4, epochs=4, batch_size=50, lr=0.05, device="cpu", validate_every=4)
    digits = load("digits")
    digits = digits.with_train(subset(digits.train, 10, 0))
    losses = {}
    for name in ("fp32", "bf16"):
        chosen_now = replace(settings, precision=name)
        result = fit(model_of(chosen_now, digits), make("catchup", seed=0), digits, chosen_now, progress=False)
        assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
        losses[name] = [row["train_loss"] for row in result.rows]
    assert losses["bf16"] != losses["fp32"]  # it was computed otherwise
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05) and losses["fp32"][-1] < losses["fp32"][0]
