"""Seeds that must not repeat: mixers made one after the other, and in a DataLoader's workers."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

from catchup.mixers import MIXERS, make


def draws(method, seed, n=6):
    torch.manual_seed(seed)
    found = []
    for _ in range(n):
        mixer = make(method)
        found.append(mixer.draw(8, 3, mixer.rng))
    return [(draw.layer, draw.lam, draw.seed, tuple(draw.partner.tolist())) for draw in found]


@pytest.mark.parametrize("method", MIXERS)
def test_mixers_made_one_after_the_other_differ_and_torchs_seed_governs_them(method):
    first, again, other = draws(method, 3), draws(method, 3), draws(method, 4)
    assert first == again and first != other
    assert len(set(first)) == len(first)


@pytest.mark.parametrize("method", MIXERS)
def test_a_seed_of_its_own_takes_nothing_from_torchs_generator(method):
    torch.manual_seed(5)
    make(method, seed=0)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


class Mixing:
    """A collate function that mixes, as users write it."""

    def __init__(self, mixer):
        self.mixer = mixer

    def __call__(self, rows):
        images, _ = default_collate(rows)
        draw = self.mixer.draw(len(images), 0, self.mixer.rng)
        return draw.lam, draw.seed


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, None])
def test_workers_and_epochs_draw_differently_and_torchs_seed_repeats_them(seed):
    data = TensorDataset(torch.rand(16, 3, 8, 8), torch.arange(16))

    def epochs():
        torch.manual_seed(1)
        loader = DataLoader(
            data, batch_size=2, num_workers=2, collate_fn=Mixing(make("cutmix", seed=seed))
        )
        return [(float(lam), int(chance)) for _ in range(2) for lam, chance in loader]

    first = epochs()
    assert len(first) == 16 and len(set(first)) == 16
    assert epochs() == first
