"""Which precision "auto" stands for: asked of the processor, written into the record, and no worse
for the result.
"""

import functools
from dataclasses import replace

import pytest
import torch

from catchup.data import load, subset
from catchup.data.identity import identify
from catchup.experiments.planning import Comparison, plan_runs
from catchup.mixers import make
from catchup.training.folder import RUN, claim
from catchup.training.machine import precision
from catchup.training.machine.precision import choose_precision, has_bfloat16, resolve_precision
from catchup.training.settings import Settings
from catchup.training.trainer import dataset_of, fit, model_of, train
from catchup.utils.files import jsonable, read_json

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": True}, True),
        ({"bf16": True}, True),
        ({"avx512_f": True, "avx2": True, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_the_processor_is_asked(monkeypatch, capabilities, expected):
    monkeypatch.setattr(precision, "has_bfloat16", has_bfloat16)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16(CPU) is expected
    assert choose_precision("auto", CPU) == ("bf16" if expected else "fp32")


def test_an_older_torch_that_cannot_tell_means_no(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bfloat16(CPU) and not has_bfloat16(torch.device("meta"))


def test_emulated_bfloat16_on_a_gpu_does_not_count(monkeypatch):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation
    )
    assert not has_bfloat16(torch.device("cuda"))


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
def test_a_named_precision_stays(monkeypatch, wanted):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    assert (
        choose_precision(wanted, CPU) == wanted
        and resolve_precision(Settings(precision=wanted)).precision == wanted
    )


@pytest.mark.parametrize("fast", [True, False])
def test_the_record_says_what_was_computed(monkeypatch, tmp_path, fast):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: fast)
    settings = Settings(subset=3, width=4, epochs=1, batch_size=30, lr=0.05, device="cpu")
    assert settings.precision == "auto"
    train(settings, tmp_path / "run", progress=False)
    assert read_json(tmp_path / "run" / RUN)["settings"]["precision"] == (
        "bf16" if fast else "fp32"
    )
    # the same machine says the same again
    train(settings, tmp_path / "run", resume=True, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("fast", [True, False])
def test_a_run_keeps_its_precision_on_another_machine(monkeypatch, tmp_path, fast):
    """Begun where bfloat16 is in hardware, or is not, and taken up on a machine of the other
    kind.
    """
    settings = Settings(
        subset=3, width=4, epochs=2, batch_size=30, lr=0.05, device="cpu", validate_every=0
    )
    digits = dataset_of(settings, progress=False)
    one = Comparison(methods=("catchup",), seeds=(0,), settings=settings, out=tmp_path / "all")

    def fitted(resume=False, **options):
        return fit(
            model_of(settings, digits),
            make("catchup", seed=0),
            digits,
            settings,
            out=tmp_path / "fit",
            resume=resume,
            progress=False,
            **options,
        )

    monkeypatch.setattr(precision, "has_bfloat16", lambda device: fast)
    whole, begun = train(settings, tmp_path / "whole", progress=False), plan_runs(one)
    fitted(on_step=lambda at: True)
    for folder, its_own in (
        (begun[0].folder, begun[0].settings),
        (tmp_path / "train", resolve_precision(settings)),
    ):
        claim(
            folder,
            jsonable(its_own.as_dict()),
            data=identify(dataset_of(its_own)).as_dict(),
            resume=False,
        )

    monkeypatch.setattr(precision, "has_bfloat16", lambda device: not fast)
    kept = resolve_precision(settings, [tmp_path / "fit"]).precision
    assert kept == begun[0].settings.precision != resolve_precision(settings).precision
    assert plan_runs(one) == begun
    for result in (
        fitted(resume=True),
        train(settings, tmp_path / "train", resume=True, progress=False),
    ):
        for name, value in whole.model.state_dict().items():
            assert torch.equal(value, result.model.state_dict()[name]), name
    with pytest.raises(ValueError, match="precision was"):
        train(resolve_precision(settings), tmp_path / "whole", resume=True, progress=False)


@pytest.mark.slow
def test_a_model_is_given_back_as_it_was():
    """Trained again in the same process it is trained in the same precision, whatever stopped the
    first run.
    """
    settings = Settings(
        subset=3,
        width=4,
        epochs=2,
        batch_size=15,
        lr=0.05,
        precision="bf16",
        device="cpu",
        validate_every=0,
    )
    digits = dataset_of(settings, progress=False)

    def trained(stops):
        model, mixer, seen = model_of(settings, digits), make("catchup", seed=0), []
        before = set(vars(model))
        # in training: the look at the blocks before it needs no precision
        model.layer1.register_forward_hook(
            lambda layer, _a, output: seen.append(output.dtype) if layer.training else None
        )
        for stop in stops:

            def on_step(at, stop=stop):
                if at.step == stop:
                    raise RuntimeError("stopped")

            try:
                fit(model, mixer, digits, settings, progress=False, on_step=on_step)
            except RuntimeError:
                assert stop
            assert set(vars(model)) == before and type(model).forward is model.forward.__func__
        return model, seen

    once, _ = trained([None])
    for stops in ([1, None], [None, None]):
        assert set(trained(stops)[1]) == {torch.bfloat16}
    again, _ = trained([None])
    assert all(
        torch.equal(a, b) for a, b in zip(once.state_dict().values(), again.state_dict().values())
    )


def test_a_forward_of_the_models_own_survives():
    settings = Settings(
        subset=3, width=4, epochs=1, batch_size=30, lr=0.05, precision="bf16", device="cpu"
    )
    digits = dataset_of(settings, progress=False)
    model = model_of(settings, digits)
    model.forward = own = functools.partial(type(model).forward, model)
    fit(model, make("catchup", seed=0), digits, settings, progress=False)
    assert model.forward is own


@pytest.mark.slow
def test_bfloat16_learns_as_float32_does():
    """Emulated where the processor has none: slower, and the same numbers. The record of `catchup
    bench` has more.
    """
    settings = Settings(
        subset=10, width=4, epochs=4, batch_size=50, lr=0.05, device="cpu", validate_every=4
    )
    digits = load("digits")
    digits = digits.with_train(subset(digits.train, 10, 0))
    losses = {}
    for name in ("fp32", "bf16"):
        chosen_now = replace(settings, precision=name)
        result = fit(
            model_of(chosen_now, digits),
            make("catchup", seed=0),
            digits,
            chosen_now,
            progress=False,
        )
        assert {parameter.dtype for parameter in result.model.parameters()} == {torch.float32}
        losses[name] = [row["train_loss"] for row in result.rows]
    assert losses["bf16"] != losses["fp32"]  # it was computed otherwise
    assert (
        losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
        and losses["fp32"][-1] < losses["fp32"][0]
    )
