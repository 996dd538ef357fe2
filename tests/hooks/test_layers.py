"""Hooks live inside the call and nowhere else; a step that would not mix is an error, never
silence.
"""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from joined import together
from torch import nn
from torch.utils.checkpoint import checkpoint

from catchup import CatchUpMix, Draw, captured, compile_blocks, count_hooks, edited
from catchup.hooks.layers import evaluating
from conftest import TinyNet

DRAW = Draw(2, [1, 2, 3, 4, 5, 6, 0], 0.5)


class Broken(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, images):
        raise self.error


# -- edited ----------------------------------------------------------------------------------------


def test_edited_changes_the_output_inside_and_not_after(tiny, batch):
    plain = tiny(batch[0])
    with edited(tiny, "layer2", torch.zeros_like):
        inside = tiny(batch[0])
    assert torch.equal(inside, tiny.fc.bias.expand(7, 5))
    assert torch.equal(tiny(batch[0]), plain) and count_hooks(tiny) == 0


def test_a_hook_that_a_compiler_kept_does_nothing_afterwards(tiny, batch):
    with edited(tiny, "layer1", torch.zeros_like):
        (kept,) = tiny.layer1._forward_hooks.values()
        assert kept(tiny.layer1, (), torch.ones(2)).sum() == 0
    assert kept(tiny.layer1, (), torch.ones(2)) is None


def test_a_wrong_name_is_refused_before_any_hook_exists(tiny):
    with pytest.raises(ValueError, match="unknown layer 'layr2'. Did you mean 'layer2'"):
        with edited(tiny, "layr2", lambda maps: maps):
            pytest.fail("the block must not run")
    with pytest.raises(ValueError, match="unknown layer 'nowhere'"):
        with captured(tiny, "stem", "nowhere"):
            pytest.fail("the block must not run")
    assert count_hooks(tiny) == 0


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_errors_pass_through_and_leave_no_hook(tiny, error):
    with pytest.raises(type(error)):
        with edited(tiny, "layer1", lambda maps: maps):
            raise error
    with pytest.raises(type(error)):
        with captured(tiny, "layer1", "stem"):
            raise error
    assert count_hooks(tiny) == 0


def test_captured_gives_detached_maps_one_per_call(tiny, batch):
    with captured(tiny, "stem", "layer2") as maps:
        tiny(batch[0])
        tiny(batch[0])
    assert [len(maps["stem"]), len(maps["layer2"])] == [2, 2] and not maps["stem"][0].requires_grad
    assert torch.equal(maps["stem"][0], tiny.stem(batch[0])) and count_hooks(tiny) == 0


def test_captured_maps_are_copies_that_a_later_layer_in_place_cannot_change(batch):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    with captured(model, "0") as maps:
        model(batch[0])
    assert maps["0"][0].min() < 0


def test_captured_says_which_layer_returns_no_tensor(batch):
    class Pair(nn.Module):
        def forward(self, images):
            return images, images

    model = nn.Sequential(Pair())
    with (
        pytest.raises(ValueError, match="layer '0' returns no tensor but a tuple"),
        captured(model, "0"),
    ):
        model(batch[0])
    assert count_hooks(model) == 0


def test_evaluating_restores_every_submodules_mode(tiny):
    tiny.train()
    tiny.layer1.eval()
    with evaluating(tiny):
        assert not any(module.training for module in tiny.modules())
    assert tiny.training and tiny.layer2.training and not tiny.layer1.training


def test_captured_refuses_a_model_whose_hooks_would_not_run(tiny):
    with pytest.raises(RuntimeError, match="compile its blocks"):
        with captured(torch.compile(tiny, backend="eager"), "layer1"):
            pytest.fail("the block must not run")
    with pytest.raises(RuntimeError, match="inside the compiled block 'layer1'"):
        with edited(compile_blocks(tiny, backend="eager"), "layer1.0", torch.zeros_like):
            pytest.fail("the block must not run")
    assert count_hooks(tiny) == 0


# -- the training step -----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["layer1", "layer2", "fc"])
def test_no_hook_is_left_when_the_model_fails_inside_a_step(tiny, batch, where, error):
    whole = copy.deepcopy(tiny)
    setattr(tiny, where, Broken(error))
    mixer = CatchUpMix(seed=0, blocks=("stem", "layer1", "layer2"))
    with pytest.raises(type(error)):
        mixer.loss(tiny, *batch, draw=DRAW)
    assert count_hooks(tiny) == 0
    setattr(tiny, where, getattr(whole, where))
    assert torch.equal(tiny(batch[0]), whole(batch[0]))


def test_deep_copies_and_models_in_eval_mode_carry_no_hook(tiny, batch):
    mixer = CatchUpMix(seed=0)
    for _ in range(8):
        mixer.loss(tiny, *batch).backward()
    twin = copy.deepcopy(tiny)
    assert count_hooks(tiny) == count_hooks(twin) == 0
    tiny.eval()
    mixer.loss(tiny, *batch, draw=DRAW)
    assert not tiny.training and count_hooks(tiny) == 0
    with torch.no_grad():
        assert torch.equal(tiny(batch[0]), twin.eval()(batch[0]))


def test_a_block_that_does_not_run_is_an_error(tiny, batch):
    tiny.spare = nn.Conv2d(3, 3, 1)
    mixer = CatchUpMix(seed=0, blocks=("stem", "spare"))
    with pytest.raises(RuntimeError, match="layer 'spare' did not run in this forward pass"):
        mixer.loss(tiny, *batch, draw=DRAW)
    assert count_hooks(tiny) == 0


def test_a_block_that_runs_twice_is_an_error(batch):
    class Twice(TinyNet):
        def forward(self, images):
            return self.fc(
                self.layer2(self.layer1(self.layer1(self.stem(images)))).mean(dim=(2, 3))
            )

    model = Twice()
    with pytest.raises(RuntimeError, match="layer 'layer1' ran 2 times"):
        CatchUpMix(seed=0).loss(model, *batch, draw=DRAW)
    assert count_hooks(model) == 0


def test_a_block_without_maps_is_named(tiny, batch):
    with pytest.raises(
        ValueError, match=r"block 'fc' must return maps \(7, C, H, W\), got \(7, 5\)"
    ):
        CatchUpMix(seed=0, blocks=("stem", "fc")).loss(tiny, *batch, draw=DRAW)


def test_a_model_without_logits_is_named(batch):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    with pytest.raises(ValueError, match=r"must return logits \(7, N\), got \(7, 4, 4, 4\)"):
        CatchUpMix(seed=0).loss(model, *batch)


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_around_the_block_is_refused(batch, reentrant):
    """Its second forward pass in backward would run without the mixing: wrong gradients without a
    word.
    """

    class Checkpointed(TinyNet):
        def forward(self, images):
            maps = checkpoint(
                lambda x: self.layer2(self.layer1(x)), self.stem(images), use_reentrant=reentrant
            )
            return self.fc(maps.mean(dim=(2, 3)))

    model = Checkpointed()
    with pytest.raises(RuntimeError, match="inside activation checkpointing"):
        CatchUpMix(seed=0).loss(model, *batch, draw=DRAW)
    # the stem is outside
    CatchUpMix(seed=0).loss(model, *batch, draw=Draw(1, DRAW.partner, 0.5)).backward()
    assert count_hooks(model) == 0


def test_a_checkpointed_part_inside_the_block_is_fine(batch):
    class Inside(TinyNet):
        def __init__(self):
            super().__init__()
            self.layer1 = CheckpointedLayer(self.layer1)

    class CheckpointedLayer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, maps):
            return checkpoint(self.inner, maps, use_reentrant=False)

    torch.manual_seed(0)
    plain = TinyNet()
    torch.manual_seed(0)
    model = Inside()
    losses = []
    for net in (plain, model):
        loss = CatchUpMix(seed=0, blocks=("stem", "layer1", "layer2")).loss(net, *batch, draw=DRAW)
        loss.backward()
        losses.append(loss)
    assert torch.equal(*losses) and torch.equal(
        plain.stem[0].weight.grad, model.stem[0].weight.grad
    )


# -- compiled and parallel models ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torch.compile(model)", "model.compile()", "block.compile()"])
def test_a_model_compiled_as_a_whole_is_refused_with_the_remedy(tiny, batch, how):
    model = tiny
    if how == "torch.compile(model)":
        model = torch.compile(tiny, backend="eager")
    else:
        (tiny if how == "model.compile()" else tiny.layer1).compile(backend="eager")
    with pytest.raises(RuntimeError, match=r"catchup.compile_blocks\(model\)"):
        CatchUpMix(seed=0).loss(model, *batch, draw=DRAW)
    assert count_hooks(tiny) == 0


@pytest.mark.slow
def test_a_model_whose_blocks_are_compiled_mixes_as_the_plain_one(tiny, batch):
    compiled = compile_blocks(copy.deepcopy(tiny), backend="aot_eager")
    plain_mixer, compiled_mixer = CatchUpMix(seed=0), CatchUpMix(seed=0)
    for _ in range(10):
        expected = plain_mixer.loss(tiny, *batch)
        torch.testing.assert_close(compiled_mixer.loss(compiled, *batch), expected)
    assert count_hooks(compiled) == 0


@pytest.mark.slow
def test_a_deep_copy_of_a_block_compiled_model_has_weights_of_its_own(tiny, batch):
    compiled = compile_blocks(tiny, backend="eager")
    before, twin = compiled(batch[0]), copy.deepcopy(compiled)
    with torch.no_grad():
        for weight in compiled.parameters():
            weight.zero_()
    assert torch.equal(twin(batch[0]), before) and not torch.equal(compiled(batch[0]), before)


def test_a_wrong_block_name_compiles_nothing(tiny):
    with pytest.raises(ValueError, match="unknown layer 'layr1'"):
        compile_blocks(tiny, ["stem", "layr1"])
    assert "forward" not in vars(tiny.stem)


@pytest.mark.slow
def test_a_forward_compiled_behind_our_back_never_leaves_a_step_unmixed(tiny, batch):
    """Either the compiled code runs the hook, or the step is refused; and afterwards nothing is
    mixed any more.
    """
    reference = copy.deepcopy(tiny)
    tiny.forward = torch.compile(tiny.forward, backend="eager")
    expected = CatchUpMix(seed=0).loss(reference, *batch, draw=DRAW)
    for _ in range(3):
        try:
            loss = CatchUpMix(seed=0).loss(tiny, *batch, draw=DRAW)
        except RuntimeError as error:
            assert "did not run" in str(error)
        else:
            torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(tiny(batch[0]), reference(batch[0]))
    torch._dynamo.reset()


def test_dataparallel_is_refused(tiny, batch):
    with pytest.raises(RuntimeError, match="use DistributedDataParallel"):
        CatchUpMix(seed=0).loss(nn.DataParallel(tiny), *batch, draw=DRAW)


def trained_together(rank: int) -> list[list]:
    """Each method trained in one of two processes: its name, are the weights of both equal, hooks
    left, their sum.
    """
    from test_mixers import begun

    from catchup import MIXERS
    from catchup.training.machine.distributed import average_gradients

    torch.distributed.init_process_group("gloo")
    rows = []
    for name in MIXERS:
        torch.manual_seed(0)
        bare = TinyNet()
        mixer, groups = begun(name, bare, groups=True)
        average_gradients(parameter for group in groups for parameter in group["params"])
        model = nn.parallel.DistributedDataParallel(bare)
        optimizer = torch.optim.SGD([{"params": list(bare.parameters())}, *groups], 0.1)
        images = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(rank))
        for _ in range(4):
            mixer.loss(model, images, torch.arange(7) % 5).backward()
            optimizer.step()
            optimizer.zero_grad()
        weights = torch.cat(
            [p.detach().flatten() for group in optimizer.param_groups for p in group["params"]]
        )
        both = [torch.empty_like(weights) for _ in range(2)]
        torch.distributed.all_gather(both, weights)
        total = sum(p.sum().item() for p in bare.parameters())
        rows.append([name, torch.equal(*both), count_hooks(bare), total])
    torch.distributed.destroy_process_group()
    return rows


@pytest.mark.slow
def test_two_ddp_processes_stay_equal_and_average_their_gradients(tmp_path):
    from test_mixers import ROWS, begun  # before the processes part, which need not do it again

    from catchup import MIXERS

    assert together(
        lambda rank: (tmp_path / str(rank)).write_text(json.dumps(trained_together(rank)))
    ) == [0, 0]
    rows = json.loads((tmp_path / "0").read_text())
    assert rows == json.loads((tmp_path / "1").read_text()) and [row[0] for row in rows] == list(
        MIXERS
    )
    for name, equal, hooks, total in rows:
        assert (name, equal, hooks) == (name, True, 0)
        if "ddp" in ROWS[name].waived:
            continue
        torch.manual_seed(0)  # the same by hand: one process, the mean of the two gradients
        model = TinyNet()
        (first, groups), second = begun(name, model, groups=True), begun(name, model)
        data = [
            torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(rank))
            for rank in range(2)
        ]
        optimizer = torch.optim.SGD([{"params": list(model.parameters())}, *groups], 0.1)
        second.modules.update(
            {
                name: module
                for name, module in first.modules.items()  # what is learnt is one
                if any(parameter.requires_grad for parameter in module.parameters())
            }
        )
        for _ in range(4):
            pairs = zip((first, second), data)
            sum(
                twin.loss(model, images, torch.arange(7) % 5) / 2 for twin, images in pairs
            ).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert total == pytest.approx(sum(p.sum().item() for p in model.parameters()), rel=1e-5)


def test_labels_of_a_step_are_available_afterwards(tiny, batch):
    mixer = CatchUpMix(seed=0)
    assert mixer.last is None
    loss = mixer.loss(tiny, *batch, draw=DRAW)
    step = mixer.last
    assert step.draw is DRAW and step.block == "layer1" and step.own_weight == 0.5
    assert step.keep.shape == (7, 6, 1, 1) and not step.logits.requires_grad
    torch.testing.assert_close(step.target.cross_entropy(step.logits), loss.detach())
    pairs = 0.5 * F.one_hot(batch[1], 5) + 0.5 * F.one_hot(batch[1][DRAW.partner], 5)
    torch.testing.assert_close(step.target.soft(5), pairs)
