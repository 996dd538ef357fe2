"""Networks kept in half precision: their records are those of what can be loaded again."""

from dataclasses import replace

import pytest

from benchmarks.kept_networks import keep_runs, measure_kept, restore
from catchup.experiments.evaluation import evaluate
from catchup.measures.subject import Options
from catchup.models.inference import PixelModel, predict, top_k_error
from catchup.training import Settings, train
from catchup.utils.files import read_lines

pytestmark = pytest.mark.slow
USUAL = ("clean", "fgsm")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """(records, weights) of two short runs on digits."""
    place = tmp_path_factory.mktemp("kept")
    common = Settings(data="digits", model="resnet18", width=4, subset=5, epochs=2, device="cpu")
    for method in ("baseline", "catchup"):
        train(replace(common, method=method), place / "runs" / method, progress=False)
        evaluate(place / "runs" / method, USUAL, progress=False)
    keep_runs(place / "runs", place / "rows.jsonl", place / "weights")
    return place / "rows.jsonl", place / "weights"


def test_a_kept_network_is_measured_as_it_is_loaded(kept):
    records, weights = kept
    before = read_lines(records)
    assert [row["method"] for row in before] == ["baseline", "catchup"]
    measure_kept(records, weights, USUAL, Options())
    for row, earlier in zip(read_lines(records), before):
        model, dataset = restore(row, weights)
        logits = predict(PixelModel.of(model.eval(), dataset), dataset.test)
        assert row["top1_error"] == pytest.approx(top_k_error(logits, dataset.test.labels, 1))
        assert row["weights"] == "float16" and "weights" not in earlier
        assert abs(row["top1_error"] - earlier["top1_error"]) < 2  # rounding, no other network
        kept_fields = ("last_error", "learning", "checkpoint_sha256", "training", "identity")
        assert all(row[name] == earlier[name] for name in kept_fields)


def test_it_goes_on_and_keeps_nothing_twice(kept, tmp_path, capsys):
    records, weights = kept
    measure_kept(records, weights, USUAL, Options())
    capsys.readouterr()
    measure_kept(records, weights, USUAL, Options())
    assert capsys.readouterr().out == ""
    measure_kept(records, weights, ("fgsm",), Options(sample=3))
    assert capsys.readouterr().out == "baseline-0: fgsm\ncatchup-0: fgsm\n"
    assert all(row["measured_with"]["fgsm"]["sample"] == 3 for row in read_lines(records))
    keep_runs(records.parent / "runs", records, weights)
    assert len(read_lines(records)) == 2


def test_a_record_is_of_one_precision_alone(kept, tmp_path):
    records = tmp_path / "rows.jsonl"
    keep_runs(kept[0].parent / "runs", records, tmp_path / "weights")
    with pytest.raises(ValueError, match="fgsm of the weights before they were rounded.*got clean"):
        measure_kept(records, tmp_path / "weights", ("clean",), Options())
