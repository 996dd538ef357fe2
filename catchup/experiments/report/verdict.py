"""What a difference of ours says about a printed one, in words: one rule, stated here and printed
under every report.

A method is compared with its table's reference, seed by seed; d is the mean of these differences,
its 95 % interval is Student's, not narrower than a test image
(`catchup.measures.significance.interval`). The printed difference p is that of the two printed
numbers, which come without seeds and mostly without spread. A figure has no
p, only a sign that it claims.

same protocol       nothing that the records know differs from the paper's protocol: data set, share
                    of the images,
                    model, width, epochs, test images, and the recipe the run names, with nothing in
                    it overridden.
scaled              anything of it differs, or the paper states no protocol. A scaled run can never
                    reproduce a number.

reproduced          same protocol; n ≥ 3; the interval of d lies wholly on the side of p's sign, and
                    holds p to the
                    rounding of the printed numbers.
same sign           d has the sign of p, but one of these is missing. "(scaled)" behind it: the run
                    is scaled.
not reproduced      d is zero or has the other sign; "(scaled)" as before: the paper's own protocol
                    was then not run.
too short to tell   the run is scaled, and a network of the method or of the reference is not
                    trained (`catchup.training.learning`): whichever sign d has, it may turn.
not run             no record of the method and the reference under one setting.
reference           the row that the others are compared with.
not compared        no number is printed, a diagram, a definition, a sum of other cells: nothing to
                    hold ours to.

Behind the word stands whether the interval excludes zero; for a single seed there is no interval.
Behind "too short to tell" stands what says that a network is still learning.

Where it misleads: an interval is for itself: of twenty differences that are zero in truth one is
expected to exclude zero. With few seeds the interval is wide, so that "holds p" is easily true;
that zero lies outside is the stronger half. Beside the intervals of a table stand Holm's
corrected P values, of the whole table. The rows of a table share one reference, so that their signs
are not independent: a plain run that came out badly moves them all. A scaled run that says "not
reproduced" may do so because of its scale.
"""

from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from ...measures.significance import interval, p_value

REPRODUCED, SAME, OPPOSITE = "reproduced", "same sign", "not reproduced"
TOO_SHORT = "too short to tell"
NOT_RUN, REFERENCE, NOT_COMPARED = "not run", "reference", "not compared"
SCALED = " (scaled)"
WORDS = (
    REPRODUCED,
    SAME,
    SAME + SCALED,
    OPPOSITE,
    OPPOSITE + SCALED,
    TOO_SHORT,
    NOT_RUN,
    REFERENCE,
    NOT_COMPARED,
)
FEWEST = 3  # seeds of a reproduction: an interval of two has one degree of freedom
ROUNDING = 0.01  # a printed number is good to 0.005, the difference of two to twice that

RULE = (
    "How to read the verdicts. Each method is compared with its table's reference, seed by seed."
    " reproduced: same protocol, at least three seeds, the 95 % interval (Student t) of our mean"
    " difference excludes zero on the printed side and holds the printed difference. same sign: our"
    " mean difference has the printed sign, no more. not reproduced: it has the other sign, or"
    " none. (scaled): data, model, width, epochs, test images or recipe differ from the paper's, or"
    " the paper states no protocol; such a run is never called reproduced, and where its networks"
    " are not trained it is too short to tell, whichever sign it has. A network is trained if it"
    " errs on at most 2 % of its training images, or half its budget ends less than one point"
    " above it, and it had at least 5 % of the paper's steps. not run: no records of"
    " the method and the reference side by side. not compared: nothing is printed to hold ours to."
    " Each interval is for itself: of twenty differences that are zero in truth, one is expected to"
    " exclude zero; Holm p corrects for all intervals of the table. The rows of a table share one"
    " reference, so that their signs are not independent."
)


class Difference(NamedTuple):
    """Mean of n paired differences, and the bounds of its interval; None for a single pair. `kind`:
    whose bounds. `p`: of the t test, None where there is none.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    kind: str = "interval"
    p: float | None = None


class Verdict(NamedTuple):
    """`word`: one of `WORDS`. `certainty`: what the interval says of zero, or why it is too short
    to tell; "" where there is no difference. `agrees`: has our difference the printed sign; None
    where there is none.
    """

    word: str
    certainty: str = ""
    agrees: bool | None = None

    def __str__(self) -> str:
        return ", ".join(filter(None, self[:2]))


def paired_difference(
    ours: Sequence[float], reference: Sequence[float], resolution: float = 0.0
) -> Difference:
    """The mean of ours minus reference, pair by pair, with its 95 % interval.

    Args:
        ours, reference: numbers of one unit, of the same seeds in the same order, at least one.
        resolution: the least width of the interval, in that unit (see
            `catchup.measures.significance.resolution_of`).
    Raises:
        ValueError: if they are empty or of different length.
    """
    if len(ours) != len(reference) or not len(ours):
        raise ValueError(
            f"pairs need as many numbers of ours as of the reference, at least one, got {len(ours)}"
            f" and {len(reference)}"
        )
    values = [a - b for a, b in zip(ours, reference)]
    low, high = interval(values, resolution=resolution) or (None, None)
    return Difference(mean(values), low, high, len(values), p=p_value(values, resolution))


def judge(
    ours: Difference | None,
    printed: float | None,
    *,
    same_protocol: bool,
    claimed: int = 0,
    learning: str = "",
) -> Verdict:
    """The verdict on a difference (rule: the module's docstring).

    Args:
        ours: our paired difference; None if it was not run.
        printed: the printed one, in the same unit and with the same sign convention; None if none
            is printed.
        same_protocol: whether nothing known differs from the paper's protocol.
        claimed: where no difference is printed: the sign that the paper claims, 1 or −1; 0 if it
            claims none.
        learning: why a network of ours counts as not trained; "" if all are trained.
    """
    sign = _sign(printed) if printed is not None else claimed
    if not sign:
        return Verdict(NOT_COMPARED)
    if ours is None:
        return Verdict(NOT_RUN)
    certain = excludes_zero(ours)
    sure = {
        None: "one seed, no interval",
        True: f"{ours.kind} excludes 0",
        False: f"{ours.kind} includes 0",
    }[certain]
    scaled = "" if same_protocol else SCALED
    agrees = _sign(ours.mean) == sign
    if learning and scaled:
        return Verdict(TOO_SHORT, learning, agrees)
    if not agrees:
        return Verdict(OPPOSITE + scaled, sure, agrees)
    held = (
        printed is not None and certain and ours.low - ROUNDING <= printed <= ours.high + ROUNDING
    )
    enough = same_protocol and ours.n >= FEWEST
    return Verdict(REPRODUCED if held and enough else SAME + scaled, sure, agrees)


def excludes_zero(difference: Difference) -> bool | None:
    """Does the interval lie wholly on one side of zero? None where there is none."""
    if difference.low is None or difference.high is None:
        return None
    return bool(difference.low > 0 or difference.high < 0)


def _sign(value: float) -> int:
    return int(value > 0) - int(value < 0)
