"""The first one in changes the process, the last one out changes it back."""

import threading

import pytest

from catchup.training.machine.process_wide import shared


@pytest.fixture
def told():
    return []


@pytest.fixture
def block(told):
    return shared(lambda: told.append("enter"), lambda: told.append("leave"))


def test_only_the_outermost_block_counts_and_it_can_be_used_again(block, told):
    for _ in range(2):
        with block(), block():
            with pytest.raises(KeyError), block():
                raise KeyError
            assert told.pop() == "enter" and not told
        assert told.pop() == "leave" and not told


def test_threads_that_overlap_share_it(block, told):
    inside, go = threading.Event(), threading.Event()

    def other():
        with block():
            inside.set()
            go.wait(30)

    thread = threading.Thread(target=other)
    with block():
        thread.start()
        assert inside.wait(30)
    assert told == ["enter"]
    go.set()
    thread.join(30)
    assert told == ["enter", "leave"]


def test_who_could_not_come_in_is_not_inside(told):
    answers = [ValueError("no"), None, None]

    def enter():
        told.append("asked")
        if (answer := answers.pop(0)) is not None:
            raise answer

    block = shared(enter, lambda: told.append("leave"))
    with pytest.raises(ValueError, match="no"), block():
        raise AssertionError("inside")
    assert told == ["asked"]
    with block(), block():
        pass
    assert told == ["asked", "asked", "leave"]
