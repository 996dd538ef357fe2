"""The timing is of neighbours: ratios of known costs come out, whatever the clock's units. Known
passes and known amounts of memory are counted.
"""

import copy

import pytest
import torch
from torch import nn

from benchmarks.timing import clock_of, count_passes, peak_memory, ratios
from catchup.models import create
from conftest import TinyNet


class Clock:
    """A clock that only the work moves on, and the more the later it is: a machine that slows
    down.
    """

    def __init__(self, growth=1.01):
        self.now, self.slowness, self.growth, self.calls = 0.0, 1.0, growth, []

    def work(self, name, *costs):
        """Something that takes these times, call by call, and again from the first."""

        def go():
            self.now += costs[self.calls.count(name) % len(costs)] * self.slowness
            self.calls.append(name)
            self.slowness *= self.growth

        return go

    def __call__(self):
        return self.now


def test_ratios_are_those_of_the_costs_on_a_machine_that_slows_down():
    clock = Clock()
    found = ratios(
        {"plain": clock.work("plain", 2.0), "more": clock.work("more", 3.0)}, rounds=20, clock=clock
    )
    assert found["plain"]["ratio"] == found["plain"]["low"] == 1
    assert found["more"]["ratio"] == pytest.approx(1.5, rel=1e-3)
    assert (
        found["more"]["low"] < 1.5 < found["more"]["high"]
        and found["more"]["high"] - found["more"]["low"] < 0.05
    )
    # one round untimed, then in turn
    assert clock.calls[:6] == ["plain", "more", "plain", "more", "more", "plain"]


def test_the_turns_of_a_round_are_added_up_and_alternate():
    """Steps that take 1 and 5 in turn beside steps of 2: in every round 6 to 4."""
    clock = Clock(growth=1.0)
    work = {"plain": clock.work("plain", 2.0), "uneven": clock.work("uneven", 1.0, 5.0)}
    found = ratios(work, rounds=5, clock=clock, turns=2)
    assert [found["uneven"][key] for key in ("ratio", "low", "high", "time_s")] == [
        1.5,
        1.5,
        1.5,
        6.0,
    ]
    assert found["plain"]["time_s"] == 4.0 and len(clock.calls) == 2 * 2 * (1 + 5)
    assert clock.calls[:8] == ["plain", "uneven"] * 2 + ["plain", "uneven", "uneven", "plain"]


@pytest.mark.parametrize(
    ("work", "rounds", "turns"), [({}, 5, 1), ({"plain": list}, 1, 1), ({"plain": list}, 2, 0)]
)
def test_nothing_to_time_is_refused(work, rounds, turns):
    with pytest.raises(ValueError, match="at least 2 rounds, got"):
        ratios(work, rounds, turns=turns)


def test_on_a_cpu_the_clock_is_the_process_own():
    clock = clock_of(torch.device("cpu"))
    before = clock()
    sum(range(10**6))
    assert 0 < clock() - before < 30


# -- passes ----------------------------------------------------------------------------------------


def test_every_pass_of_the_model_and_its_copies_counts_as_its_share_of_a_batch(tiny):
    images, twin = torch.randn(4, 3, 8, 8), copy.deepcopy(tiny)
    holder = nn.ModuleDict({"key": twin})  # a copy inside something else
    with count_passes(tiny, 4) as passes:
        tiny(images).sum().backward()
        assert (passes.forward, passes.backward) == (1, 1)
        with torch.no_grad():
            holder["key"](images)
        assert (passes.forward, passes.backward) == (2, 1)
        tiny(torch.cat([images, images])).sum().backward()  # both halves at once
        assert (passes.forward, passes.backward) == (4, 3)
        tiny(images[:1])  # no gradient is asked for
        assert (passes.forward, passes.backward) == (4.25, 3)
        tiny(images)
    assert passes.forward == 5.25
    tiny(images).sum().backward()
    assert (passes.forward, passes.backward) == (5.25, 3)  # the block is over


def test_a_backward_pass_for_the_images_alone_counts_and_the_parts_of_a_model_do_not(tiny):
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    with count_passes(tiny, 2) as passes:
        frozen = copy.deepcopy(tiny).requires_grad_(False)
        torch.autograd.grad(frozen(images).sum(), images)
        tiny.stem(images.detach()).sum().backward()
        nn.Sequential(nn.Linear(3, 3))(torch.randn(2, 3)).sum().backward()
        TinyNet(width=7)(images)  # another network of the same class
    assert (passes.forward, passes.backward) == (1, 1)


def test_two_losses_of_one_forward_pass_are_two_backward_passes_and_a_broken_pass_is_none(tiny):
    images = torch.randn(2, 3, 8, 8)
    with count_passes(tiny, 2) as passes:
        logits = tiny(images)
        logits[:, 0].sum().backward(retain_graph=True)
        logits[:, 1].sum().backward()
        with pytest.raises(RuntimeError):
            tiny(torch.randn(2, 5, 8, 8))
        tiny(images)
    assert (passes.forward, passes.backward) == (2, 2)


def test_a_model_made_of_models_of_its_own_class_counts_once():
    inner = nn.Sequential(nn.Linear(3, 3))
    outer = nn.Sequential(inner)  # the same class and the same parameters inside
    with count_passes(outer, 2) as passes:
        outer(torch.randn(2, 3)).sum().backward()
    assert (passes.forward, passes.backward) == (1, 1)


def test_counting_leaves_no_hook_behind_also_after_an_error(tiny):
    from torch.nn.modules import module

    with pytest.raises(KeyError):
        with count_passes(tiny, 2):
            raise KeyError
    assert not module._global_forward_hooks and not module._global_forward_pre_hooks


# -- memory ----------------------------------------------------------------------------------------


def test_the_peak_of_known_allocations_is_found():
    """4 MB, then 4 more, 4 freed, 12 more: never more than 16 at once."""
    before = torch.ones(1000, 1000)
    with peak_memory(torch.device("cpu")) as peak:
        before.view(-1).add_(1).t()  # neither a view nor work in place is new memory
        a = torch.ones(1000, 1000)
        b = a + 1
        del a
        c = torch.ones(3000, 1000)
        del b, c
        torch.ones(10)
    assert peak.bytes == 16e6


def test_what_autograd_keeps_counts():
    """ReLU keeps its result, sigmoid its own: forward three maps live with the leaf's; the
    gradients come later.
    """
    with peak_memory(torch.device("cpu")) as peak:
        x = torch.randn(100, 1000, requires_grad=True)  # 0.4 MB
        y = x.sigmoid().relu()  # + 0.8, both kept
        y.sum().backward()  # + one gradient of y (expanded: no memory), of sigmoid's, of x
    assert 1.2e6 <= peak.bytes <= 2.1e6
    del y
    with peak_memory(torch.device("cpu")) as bare, torch.no_grad():
        torch.randn(100, 1000).sigmoid_().relu_()
    assert bare.bytes == 0.4e6


def test_the_peak_of_a_training_step_is_the_profilers():
    """PyTorch's profiler sees every allocation, those inside operations too."""
    from torch.profiler import ProfilerActivity, profile

    def go():
        model = create("resnet18", num_classes=10, width=4)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for _ in range(2):
            model(torch.randn(16, 3, 32, 32)).logsumexp(1).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    with peak_memory(torch.device("cpu")) as peak:
        go()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        go()
    events = [
        event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    now, highest = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    assert highest > 5e6
    assert 0.9 * highest <= peak.bytes <= highest


def test_where_no_count_is_kept_the_peak_is_unknown():
    with peak_memory(torch.device("meta")) as peak:
        torch.ones(3)
    assert peak.bytes is None
