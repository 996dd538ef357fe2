"""The inspector's numbers against plain torch, its buffer, its traits, its page. tests/browser
drives the drawing.
"""

import base64
import json
import re

import numpy as np
import pytest
import torch
from torch import nn
from traitlets import TraitError

from catchup import count_hooks, keep_mask
from catchup.inspection.masks import MOST_CLASSES, MOST_K, inspect_masks
from catchup.widgets import MaskInspector, mask_inspector
from conftest import TinyNet


@pytest.fixture
def two(tiny):
    torch.manual_seed(7)
    return {"epoch 0": tiny, "epoch 3": TinyNet()}


def looked(models, batch, **options):
    return inspect_masks(models, *batch, pairs=[(4, 1), (1, 4), (2, 2)], **options)


def halves(model, images, block):
    """The maps after a block and what becomes of them, run by hand."""
    parts = {"stem": model.stem, "layer1": model.layer1, "layer2": model.layer2}
    before = list(parts).index(block) + 1
    for part in list(parts.values())[:before]:
        images = part(images)

    def rest(maps):
        for part in list(parts.values())[before:]:
            maps = part(maps)
        return model.fc(maps.mean(dim=(2, 3))).softmax(dim=1)

    return images, rest


@torch.no_grad()
def test_influence_order_and_predictions_are_those_of_a_naive_computation(two, batch):
    found = looked(two, batch)
    assert found.blocks == ("stem", "layer1", "layer2") and found.pairs == ((2, 0), (0, 2), (1, 1))
    images = batch[0][[1, 2, 4]]
    for label, model in two.items():
        np.testing.assert_allclose(found.plain[label], model(images).softmax(dim=1), atol=1e-6)
        for block in found.blocks:
            layer, (maps, rest) = found.layers[label, block], halves(model, images, block)
            channels = maps.shape[1]
            influence = torch.tensor(
                [[sum(v * v for v in a.flatten().tolist()) ** 0.5 for a in image] for image in maps]
            )
            np.testing.assert_allclose(layer.influence, influence, rtol=1e-5)
            np.testing.assert_allclose(
                layer.share, influence / influence.sum(dim=1, keepdim=True), rtol=1e-5
            )
            assert layer.kept.tolist() == list(range(channels + 1))
            for place, (source, partner) in enumerate(found.pairs):
                rfi = (
                    influence[source] / influence[source].sum()
                    - influence[partner] / influence[partner].sum()
                )
                np.testing.assert_allclose(layer.rfi[place], rfi, atol=1e-6)
                for k in layer.kept.tolist():
                    mixed = maps[partner].clone()
                    mixed[layer.order[place][:k]] = maps[source][layer.order[place][:k]]
                    np.testing.assert_allclose(
                        layer.mixed[place, k], rest(mixed[None])[0], atol=1e-6
                    )


def test_the_order_is_that_of_keep_mask_with_ties_to_the_lower_channel(two, batch):
    found = looked(two, batch)
    for layer in found.layers.values():
        for rfi, order in zip(layer.rfi, layer.order, strict=True):
            for lam in (0, 0.1, 0.29, 0.5, 0.77, 1):
                kept = keep_mask(torch.from_numpy(rfi)[None], lam)[0].nonzero().flatten()
                assert sorted(order[: int(lam * len(order))].tolist()) == kept.tolist()
    assert found.layers["epoch 0", "stem"].order[2].tolist() == list(range(6)), (
        "an image with itself: all ties"
    )


def test_thumbnails_are_averaged_magnitudes(tiny, batch):
    layer = looked(tiny, batch, thumbnail=4).layers["model", "layer1"]
    maps = halves(tiny, batch[0][[1, 2, 4]], "layer1")[0].detach()
    expected = maps.abs().reshape(3, 6, 4, 2, 4, 2).mean(dim=(3, 5)).numpy()
    assert layer.maps.dtype == np.uint8 and layer.maps.shape == (3, 6, 4, 4) and (maps < 0).any()
    back = layer.maps / 255 * layer.scale[:, :, None, None]
    assert np.abs(back - expected).max() <= layer.scale.max() / 509
    assert (layer.maps.reshape(3, 6, -1).max(axis=2) == 255).all()


class Bypass(nn.Module):
    """Something passes by the block, so a mix of two images' maps alone would give a wrong
    answer.
    """

    def __init__(self, width=40, classes=15):
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width + 3, classes)

    def forward(self, images):
        return self.fc(
            torch.cat([self.stem(images).relu().mean(dim=(2, 3)), images.mean(dim=(2, 3))], dim=1)
        )


@torch.no_grad()
# with one channel the bypass would fit by accident
@pytest.mark.parametrize("width, count", [(40, MOST_K), (1, 2)])
def test_wide_layers_get_a_grid_and_bypasses_a_full_pass(batch, width, count):
    model = Bypass(width)
    found = inspect_masks(model, *batch, pairs=[(0, 5)], blocks=["stem"])
    layer, (source, partner) = found.layers["model", "stem"], batch[0][[0, 5]]
    assert len(layer.kept) == count and (layer.kept[0], layer.kept[-1]) == (0, width)
    maps = model.stem(torch.stack([source, partner]))
    for said, k in zip(layer.mixed[0], layer.kept.tolist(), strict=True):
        mixed = maps[1].clone()
        mixed[layer.order[0][:k]] = maps[0][layer.order[0][:k]]
        pooled = torch.cat([mixed.relu().mean(dim=(1, 2)), source.mean(dim=(1, 2))])
        np.testing.assert_allclose(said, model.fc(pooled).softmax(dim=0), atol=1e-6)


def unpacked(header, buffer, name):
    entry = header["arrays"][name]
    kind = np.dtype(f"<{entry['kind']}")
    return np.frombuffer(buffer, kind, int(np.prod(entry["shape"])), entry["at"]).reshape(
        entry["shape"]
    )


def test_the_buffer_holds_the_same_and_of_many_classes_the_likeliest(batch):
    found = inspect_masks(Bypass(), *batch, pairs=[(0, 5)], blocks=["stem"])
    header, buffer = found.packed()
    assert json.loads(json.dumps(header))["pairs"] == [[0, 1]]
    assert all(entry["at"] % 4 == 0 for entry in header["arrays"].values())
    layer = found.layers["model", "stem"]
    for name in ("maps", "scale", "share", "rfi", "order", "kept"):
        assert np.array_equal(unpacked(header, buffer, f"{name}/0/0"), getattr(layer, name))
    assert np.array_equal(unpacked(header, buffer, "pixels"), found.pixels)
    shown = unpacked(header, buffer, "shown/0/0")[0]
    assert len(shown) == MOST_CLASSES < 15 and set(found.labels) <= set(shown.tolist())
    packed = unpacked(header, buffer, "mixed/0/0")[0] / 65535
    np.testing.assert_allclose(packed, layer.mixed[0][:, shown], atol=1e-5)
    left_out = set(range(15)) - set(shown.tolist()) - set(found.labels)
    assert layer.mixed[0].max(axis=0)[list(left_out)].max() <= np.median(
        layer.mixed[0].max(axis=0)[shown]
    )


def test_nothing_of_the_model_changes(tiny, batch):
    tiny.train()
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    looked(tiny, batch)
    assert tiny.training and count_hooks(tiny) == 0
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())


def test_images_are_shown_as_they_are_or_stretched(tiny):
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    labels = torch.tensor([0, 1])
    assert np.array_equal(
        inspect_masks(tiny, pixels, labels).pixels, pixels.permute(0, 2, 3, 1).numpy()
    )
    assert inspect_masks(tiny, 20 * torch.randn(2, 3, 8, 8), labels).pixels.min() == 0


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"pairs": []}, "at least one"),
        ({"pairs": [(0, 9)]}, "indices in 0 … 6"),
        ({"pairs": [(0, 1, 2)]}, "partner"),
        ({"blocks": ["layer9"]}, "Did you mean 'layer"),
        ({"blocks": ["fc"]}, "must run exactly once and return maps"),
        ({"class_names": ["a", "b"]}, "class_names must be 5 names, got 2"),
        ({"names": ["a"]}, "names must be 7 names"),
        ({"thumbnail": 2}, "4 … 64"),
        ({"labels": torch.full((7,), 5)}, "labels must lie in 0 … 4, got 5 … 5"),
        ({"labels": torch.zeros(3)}, "labels must be"),
        ({"images": torch.zeros(7, 8, 8)}, "images must be"),
        ({"models": {}}, "at least one"),
        ({"models": {"a": TinyNet(5), "b": TinyNet(6)}}, "number of classes: .5, 6"),
        ({"models": nn.Conv2d(3, 4, 3), "blocks": [""]}, "must return logits"),
    ],
)
def test_bad_input_is_refused(tiny, batch, change, sentence):
    given = {"models": tiny, "images": batch[0], "labels": batch[1], **change}
    with pytest.raises(ValueError, match=sentence):
        inspect_masks(given.pop("models"), given.pop("images"), given.pop("labels"), **given)


def test_ruined_weights_are_named(tiny, batch):
    nn.init.constant_(tiny.layer1[0].weight, float("nan"))
    with pytest.raises(ValueError, match="NaN or infinity"):
        looked(tiny, batch)


@pytest.fixture
def inspector(two, batch):
    return mask_inspector(
        two, *batch, pairs=[(4, 1), (2, 3)], class_names=["a", "</script>", "c", "d", "@buffer@"]
    )


def test_the_inspector_stands_where_it_is_told_and_refuses_other_places(inspector):
    assert isinstance(inspector, MaskInspector)
    assert (inspector.layer, inspector.checkpoint, inspector.lam, inspector.pair) == (
        "layer2",
        "epoch 3",
        0.5,
        0,
    )
    inspector.lam, inspector.layer, inspector.pair = 0.34, "stem", 1
    layer = inspector.inspection.layers["epoch 3", "stem"]
    assert inspector.kept == tuple(layer.order[1][:2])  # ⌊0.34 · 6⌋
    for name, value, sentence in (
        ("lam", 1.2, "0, 1"),
        ("lam", float("nan"), "nan"),
        ("pair", 2, "0 … 1"),
        ("layer", "layer4", "Did you mean 'layer"),
        ("checkpoint", "epoch", "epoch 0, epoch 3"),
    ):
        with pytest.raises(TraitError, match=sentence):
            setattr(inspector, name, value)
    assert (inspector.lam, inspector.layer, inspector.pair) == (0.34, "stem", 1)


def test_the_page_is_one_file_that_asks_no_other_host(inspector, tmp_path):
    path = inspector.to_html(tmp_path / "inspector.html")
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w+\.\w+/|\bimport\b *[(\"'{]|@import|url\(", text)
    assert "default-src 'none'" in text and text.count("</script>") == 3, (
        "a class name ended a script"
    )
    state = json.loads(re.search(r'id="state">(.*?)</script>', text, re.S)[1])
    assert state["header"]["classes"][1] == "</script>" and state["lam"] == 0.5
    assert base64.b64decode(re.search(r'id="buffer">(.*?)</script>', text)[1]) == inspector.buffer
    assert path.stat().st_size < 1_500_000
    assert inspector.to_html(str(path)) == path, "a file may be written anew"


def test_the_page_is_not_written_where_it_cannot_be(inspector, tmp_path):
    with pytest.raises(ValueError, match="got the directory"):
        inspector.to_html(tmp_path)
    with pytest.raises(ValueError, match="there is no directory"):
        inspector.to_html(tmp_path / "missing" / "page.html")
    assert not list(tmp_path.iterdir())
