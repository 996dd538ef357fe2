"""Gradient masking: what the errors under FGSM and PGD say together."""

from collections.abc import Mapping, Sequence
from math import isfinite


def masking(row: Mapping) -> str | None:
    """What FGSM and PGD together say of gradient masking, in a sentence; None if FGSM was not measured.

    PGD may do all that FGSM does and more, so its error must not be lower; where it is, the gradient at the image
    does not point to where the loss is high, and the FGSM error says little about robustness (Athalye et al., 2018).
    The check can show masking, it cannot rule it out: a gradient of zero stops both.
    """
    single, several = row.get("fgsm_error"), row.get("pgd_error")
    if single is None:
        return None
    how = row.get("measured_with") or {}
    ways = [[how.get(test, {}).get(name) for name in ("sample", "eps_255")] for test in ("fgsm", "pgd")]
    if several is None or ways[0] != ways[1] or not (isfinite(single) and isfinite(several)):
        return "not checked for gradient masking: ask for the tests 'fgsm' and 'pgd' together"
    if several < single:
        return f"gradient masking: the PGD error ({several:.2f} %) is lower than that of FGSM ({single:.2f} %)"
    return f"no sign of gradient masking: PGD ({several:.2f} %) errs at least as often as FGSM ({single:.2f} %)"


def masked(rows: Sequence[Mapping]) -> list[str]:
    """`masking` of several evaluation objects: those that show it, one by one, or one sentence for all."""
    said = [(f"{row.get('label', row.get('method'))}, seed {row.get('seed')}", masking(row)) for row in rows]
    said = [(name, words) for name, words in said if words]
    bad = [f"{name}: {words}" for name, words in said if words.startswith("gradient masking")]
    if bad or not said:
        return bad
    unchecked = sum(words.startswith("not checked") for _, words in said)
    if unchecked:
        return [f"{unchecked} of {len(said)} models not checked for gradient masking: FGSM and PGD not both run alike"]
    return [f"no sign of gradient masking in {len(said)} models: PGD errs at least as often as FGSM in each"]
