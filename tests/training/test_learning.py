"""The rule that tells trained networks from those that are still learning, case by case."""

import re

import pytest

from catchup.training.learning import judge_learning, share_of_paper


@pytest.mark.parametrize(
    ("numbers", "trained", "reason"),
    [
        ((0.0, None, None), True, "0.0 % error on its training images"),
        ((2.0, 0.05, None), True, "2.0 % error"),
        ((2.1, 0.5, None), False, "2.1 % error on its training images"),
        ((2.1, 0.5, 0.9), True, r"\+0.9 points since half the budget"),
        ((2.1, 0.5, -0.4), True, r"-0.4 points since half"),
        ((30.0, 0.5, 1.0), False, r"30.0 % error on its training images, \+1.0 points since half"),
        ((0.0, 0.049, 0.0), False, r"4.9 % of the paper's steps, less than 5 %"),
        ((None, 0.5, None), False, "was not measured"),
        ((None, 0.5, 0.2), True, r"\+0.2 points"),
    ],
)
def test_the_rule(numbers, trained, reason):
    verdict = judge_learning(*numbers)
    assert verdict.trained is trained
    assert re.search(reason, verdict.reason)


def test_the_papers_steps():
    assert share_of_paper(2000, 128, 32) == 1 == share_of_paper(1200, 256, 64)
    assert share_of_paper(200, 100, 32) == pytest.approx(200 / 100 / (2000 / 128))
    assert share_of_paper(100, 50, 8) is None  # digits
