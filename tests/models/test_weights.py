"""Weights in small files: what comes back, the sizes, the card, and what is refused."""

import pytest
import torch

from catchup import models
from catchup.models.weights import SHARD_BYTES, load_weights, save_weights


def test_what_comes_back_answers_alike_in_shards_below_a_megabyte(tmp_path):
    torch.manual_seed(0)
    model = models.create("resnet18", num_classes=100, width=16)
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 32, 32))  # statistics of batch norm that are not 0 and 1
    files = save_weights(model.state_dict(), tmp_path / "nets", "one", {"seed": 3, "error": 56.6})
    assert len(files) == 2 and all(file.stat().st_size < 1_000_000 for file in files)
    state, card = load_weights(tmp_path / "nets", "one")
    twin = models.create("resnet18", num_classes=100, width=16)
    twin.load_state_dict(state)  # every key, with its shape
    for key, value in model.state_dict().items():
        exact = "running" in key or not value.is_floating_point()
        assert state[key].dtype == value.dtype
        assert torch.equal(state[key], value if exact else value.half().float())
    images = torch.randn(4, 3, 32, 32)
    assert torch.allclose(model.eval()(images), twin.eval()(images), atol=5e-3)
    assert card == {"seed": 3, "error": 56.6}


def test_fewer_shards_leave_no_older_ones(tmp_path):
    large = {f"part{k}": torch.zeros(200_000) for k in range(8)}
    assert len(save_weights(large, tmp_path, "net", {})) == 4
    save_weights({"part0": torch.ones(3)}, tmp_path, "net", {})
    assert [path.name for path in tmp_path.iterdir()] == ["net.0.safetensors"]
    assert load_weights(tmp_path, "net")[0]["part0"].tolist() == [1, 1, 1]


def test_what_does_not_fit_or_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="fc has 1000000 bytes in half precision"):
        save_weights({"fc": torch.zeros(500_000)}, tmp_path, "net", {})
    assert SHARD_BYTES < 1_000_000 and not list(tmp_path.iterdir())
    save_weights({"a": torch.zeros(1)}, tmp_path, "here", {})
    with pytest.raises(FileNotFoundError, match="no weights 'gone' in .*; there are here"):
        load_weights(tmp_path, "gone")
