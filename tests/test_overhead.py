"""The timing is of neighbours: ratios of known costs come out, whatever the clock's units."""

import pytest

from catchup.overhead import ratios


class Clock:
    """A clock that only the work moves on, and the more the later it is: a machine that slows down."""

    def __init__(self):
        self.now, self.slowness, self.calls = 0.0, 1.0, []

    def work(self, name, cost):
        def go():
            self.calls.append(name)
            self.now += cost * self.slowness
            self.slowness *= 1.01
        return go

    def __call__(self):
        return self.now


def test_ratios_are_those_of_the_costs_on_a_machine_that_slows_down():
    clock = Clock()
    found = ratios({"plain": clock.work("plain", 2.0), "more": clock.work("more", 3.0)}, rounds=20, clock=clock)
    assert found["plain"]["ratio"] == found["plain"]["low"] == 1
    assert found["more"]["ratio"] == pytest.approx(1.5, rel=1e-3)
    assert found["more"]["low"] < 1.5 < found["more"]["high"] and found["more"]["high"] - found["more"]["low"] < 0.05
    assert clock.calls[:6] == ["plain", "more", "plain", "more", "more", "plain"]  # one round untimed, then in turn


@pytest.mark.parametrize(("work", "rounds"), [({}, 5), ({"plain": list}, 1)])
def test_nothing_to_time_is_refused(work, rounds):
    with pytest.raises(ValueError, match="at least 2 rounds, got"):
        ratios(work, rounds)
