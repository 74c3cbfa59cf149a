from __future__ import annotations

import math
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.dummy
import sklearn.metrics

from pipelines.errors import UsageError
from r3d_fast.metrics import ClassificationMetrics, VideoScores, class_figures, mean_top1_top5

CLASSES = 7


def batch(rows: int, seed: int = 0, classes: int = CLASSES) -> tuple[Any, Any, Any]:
    """Logits, labels, is_real: about a quarter of the rows is padding."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3.0, size=(rows, classes)).astype(np.float32)
    return logits, rng.integers(0, classes, rows), rng.random(rows) > 0.25


def softmax(row: Any) -> Any:
    weights = [math.exp(float(x)) for x in row]
    return np.array(weights) / sum(weights)


def plain(probs: list[Any], labels: list[int], classes: int = CLASSES) -> dict[str, Any]:
    """The same figures by sorting each row, one by one."""
    confusion = np.zeros((classes, classes), dtype=np.int64)
    losses, hits = [], []
    for row, label in zip(probs, labels, strict=True):
        order = sorted(range(classes), key=lambda c: (-row[c], c))
        confusion[label, order[0]] += 1
        hits.append(label in order[:5])
        losses.append(-math.log(row[label]))
    return {
        "loss": sum(losses) / len(losses),
        "top1": np.trace(confusion) / len(losses),
        "top5": sum(hits) / len(hits),
        "count": len(losses),
        "counts": confusion.sum(axis=1).tolist(),
        "per_class": [confusion[c, c] / confusion[c].sum() if confusion[c].any() else None for c in range(classes)],
        "confusion": confusion,
    }


def assert_same(got: Any, expected: Any) -> None:
    assert set(got) == set(expected)
    for key in ("loss", "top1", "top5", "count", "counts", "per_class"):
        assert got[key] == pytest.approx(expected[key], rel=1e-12), key
    np.testing.assert_array_equal(got["confusion"], expected["confusion"])
    assert got["confusion"].dtype == np.int64


def test_figures_are_those_of_a_plain_computation() -> None:
    logits, labels, real = batch(200)
    metrics = ClassificationMetrics(CLASSES)
    metrics.update(logits, labels, real)
    assert_same(metrics.result(), plain([softmax(row) for row in logits[real]], list(labels[real])))


def test_a_last_batch_of_seven_weighs_seven() -> None:
    # One full batch all wrong, then 7 rows all right among padding: 7 of 71, not the mean of 0 and 1.
    metrics = ClassificationMetrics(CLASSES)
    right = np.eye(CLASSES, dtype=np.float32)[np.arange(64) % CLASSES]
    metrics.update(right, (np.arange(64) + 1) % CLASSES, np.ones(64, dtype=bool))
    metrics.update(right, np.arange(64) % CLASSES, np.arange(64) < 7)
    result = metrics.result()
    assert result["count"] == 71
    assert result["top1"] == pytest.approx(7 / 71)


def test_padding_counts_nowhere_whatever_it_holds() -> None:
    logits, labels, real = batch(50)
    clean = ClassificationMetrics(CLASSES)
    clean.update(logits[real], labels[real], np.ones(real.sum(), dtype=bool))
    logits[~real], labels[~real] = np.nan, -1
    padded = ClassificationMetrics(CLASSES)
    padded.update(logits, labels, real)
    assert_same(padded.result(), clean.result())


def test_merged_shards_equal_the_whole() -> None:
    logits, labels, real = batch(101)
    whole = ClassificationMetrics(CLASSES)
    whole.update(logits, labels, real)
    merged = ClassificationMetrics(CLASSES)
    for shard in range(3):
        part = ClassificationMetrics(CLASSES)
        part.update(logits[shard::3], labels[shard::3], real[shard::3])
        merged.merge(part)
    assert_same(merged.result(), whole.result())


def test_ties_go_to_the_lower_index() -> None:
    metrics = ClassificationMetrics(CLASSES)
    metrics.update(np.zeros((CLASSES, CLASSES), np.float32), np.arange(CLASSES), np.ones(CLASSES, dtype=bool))
    result = metrics.result()
    assert result["top1"] == pytest.approx(1 / 7)
    assert result["top5"] == pytest.approx(5 / 7)
    assert result["confusion"][:, 0].tolist() == [1] * 7
    assert result["loss"] == pytest.approx(math.log(7))


def test_top5_of_three_classes_is_one() -> None:
    logits, labels, _ = batch(20, classes=3)
    metrics = ClassificationMetrics(3)
    metrics.update(logits, labels, np.ones(20, dtype=bool))
    assert metrics.result()["top5"] == 1.0


def test_loss_is_stable_for_huge_logits() -> None:
    metrics = ClassificationMetrics(2)
    metrics.update(np.array([[3e38, -3e38], [1e4, 1e4]], np.float32), np.array([0, 1]), np.ones(2, dtype=bool))
    assert metrics.result()["loss"] == pytest.approx(math.log(2) / 2)
    metrics.update(np.array([[1e4, 0.0]], np.float32), np.array([1]), np.ones(1, dtype=bool))
    assert metrics.result()["loss"] == pytest.approx((math.log(2) + 1e4) / 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("column", [0, 1])
def test_a_row_without_softmax_is_wrong_and_makes_the_loss_nan(bad: float, column: int) -> None:
    logits = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    logits[1, column] = bad
    metrics = ClassificationMetrics(2)
    metrics.update(logits, np.array([0, 0]), np.ones(2, dtype=bool))
    result = metrics.result()
    assert result["loss"] is not None
    assert math.isnan(result["loss"])
    assert (result["top1"], result["top5"], result["count"]) == (0.5, 0.5, 2)
    assert result["per_class"] == [0.5, None]
    assert result["confusion"].tolist() == [[1, 0], [0, 0]]


def test_the_mean_of_top1_and_top5_is_none_without_samples() -> None:
    metrics = ClassificationMetrics(CLASSES)
    assert mean_top1_top5(metrics.result()) is None
    right, third = np.eye(CLASSES, dtype=np.float32)[0], np.arange(CLASSES, 0, -1, dtype=np.float32)
    metrics.update(np.stack([right, third]), np.array([0, 2]), np.ones(2, dtype=bool))
    assert mean_top1_top5(metrics.result()) == (0.5 + 1.0) / 2


def test_minus_infinity_is_a_probability_of_zero() -> None:
    metrics = ClassificationMetrics(2)
    metrics.update(np.array([[-math.inf, 0.0]], np.float32), np.array([1]), np.ones(1, dtype=bool))
    assert metrics.result()["loss"] == 0.0
    metrics.update(np.array([[-math.inf, 0.0]], np.float32), np.array([0]), np.ones(1, dtype=bool))
    assert metrics.result()["loss"] == math.inf


@pytest.mark.parametrize("empty", [ClassificationMetrics(3), VideoScores(3)])
def test_nothing_counted_gives_none(empty: ClassificationMetrics | VideoScores) -> None:
    result = empty.result()
    assert (result["loss"], result["top1"], result["top5"], result["count"]) == (None, None, None, 0)
    assert result["per_class"] == [None] * 3
    assert result["confusion"].tolist() == [[0] * 3] * 3


def test_a_batch_of_padding_alone_changes_nothing() -> None:
    logits, labels, _ = batch(4)
    padding = np.zeros(4, dtype=bool)
    metrics, scores = ClassificationMetrics(CLASSES), VideoScores(CLASSES)
    metrics.update(logits, labels, padding)
    scores.update(np.arange(4), logits, labels, padding)
    assert metrics.result()["count"] == scores.result()["count"] == 0
    assert scores.predictions() == []


def test_a_result_does_not_change_afterwards() -> None:
    metrics = ClassificationMetrics(CLASSES)
    metrics.update(*batch(10))
    result = metrics.result()
    before = result["confusion"].copy()
    metrics.update(*batch(10, seed=1))
    np.testing.assert_array_equal(result["confusion"], before)


def video_batch(rows: int) -> tuple[Any, Any, Any, Any]:
    """Clips of 12 videos in mixed order; the label follows from the video."""
    logits, _, real = batch(rows, seed=3)
    ids = np.random.default_rng(4).integers(0, 12, rows) * 1000
    return ids, logits, ids // 1000 % CLASSES, real


def test_videos_are_judged_by_the_mean_softmax_of_their_clips() -> None:
    ids, logits, labels, real = video_batch(90)
    scores = VideoScores(CLASSES)
    for start in range(0, 90, 32):
        part = slice(start, start + 32)
        scores.update(ids[part], logits[part], labels[part], real[part])
    videos = sorted(set(ids[real].tolist()))
    means = [np.mean([softmax(row) for row in logits[real & (ids == v)]], axis=0) for v in videos]
    assert_same(scores.result(), plain(means, [v // 1000 % CLASSES for v in videos]))
    predictions = scores.predictions()
    assert [(video, label) for video, label, _ in predictions] == [(v, v // 1000 % CLASSES) for v in videos]
    np.testing.assert_allclose([probs for _, _, probs in predictions], means, rtol=1e-12)


def test_softmax_is_averaged_not_logits() -> None:
    # The mean logit prefers class 0, the mean softmax class 1.
    logits = np.array([[30.0, 0.0], [0.0, 2.0], [0.0, 2.0]], np.float32)
    scores = VideoScores(2)
    scores.update(np.zeros(3, np.int64), logits, np.ones(3, np.int64), np.ones(3, dtype=bool))
    assert scores.result()["top1"] == 1.0


def test_merged_video_shards_equal_the_whole_and_leave_the_parts_alone() -> None:
    ids, logits, labels, real = video_batch(90)
    whole, merged = VideoScores(CLASSES), VideoScores(CLASSES)
    whole.update(ids, logits, labels, real)
    parts = [VideoScores(CLASSES), VideoScores(CLASSES)]
    for k, part in enumerate(parts):
        part.update(ids[k::2], logits[k::2], labels[k::2], real[k::2])
    before = [probs.copy() for _, _, probs in parts[0].predictions()]
    for part in parts:
        merged.merge(part)
    assert_same(merged.result(), whole.result())
    np.testing.assert_array_equal([probs for _, _, probs in parts[0].predictions()], before)


def test_a_video_with_a_broken_clip_is_wrong() -> None:
    scores = VideoScores(2)
    logits = np.array([[5.0, 0.0], [math.nan, 0.0], [5.0, 0.0]], np.float32)
    scores.update(np.array([1, 1, 2]), logits, np.zeros(3, np.int64), np.ones(3, dtype=bool))
    result = scores.result()
    assert (result["top1"], result["count"]) == (0.5, 2)
    assert result["loss"] is not None
    assert math.isnan(result["loss"])


def test_wrong_batches_are_refused() -> None:
    logits, labels, real = batch(4)
    metrics = ClassificationMetrics(CLASSES)
    with pytest.raises(UsageError, match=r"shapes \(4, 7\), \(3,\), \(4,\); expected \(N, 7\), \(N,\), \(N,\)"):
        metrics.update(logits, labels[:3], real)
    with pytest.raises(UsageError, match=r"expected \(N, 7\)"):
        metrics.update(logits[:, :5], labels, real)
    with pytest.raises(UsageError, match=r"label 7: expected 0\.\.6"):
        metrics.update(logits, np.full(4, 7), np.ones(4, dtype=bool))
    with pytest.raises(UsageError, match=r"label -1: expected 0\.\.6"):
        metrics.update(logits, np.full(4, -1), np.ones(4, dtype=bool))
    assert metrics.result()["count"] == 0


def test_wrong_videos_and_merges_are_refused() -> None:
    logits, _, _ = batch(2)
    scores = VideoScores(CLASSES)
    with pytest.raises(UsageError, match="video 5 came with labels 0 and 1"):
        scores.update(np.array([5, 5]), logits, np.array([0, 1]), np.ones(2, dtype=bool))
    with pytest.raises(UsageError, match=r"video_ids \(1,\): expected the shape of is_real, \(2,\)"):
        scores.update(np.array([5]), logits, np.array([0, 1]), np.ones(2, dtype=bool))
    with pytest.raises(UsageError, match="figures of 3 classes into those of 7"):
        scores.merge(VideoScores(3))
    with pytest.raises(UsageError, match="figures of 3 classes into those of 7"):
        ClassificationMetrics(CLASSES).merge(ClassificationMetrics(3))
    for kind in (ClassificationMetrics, VideoScores):
        with pytest.raises(UsageError, match="num_classes 0: expected at least 1"):
            kind(0)


def test_arrays_that_are_not_all_as_long_are_no_scores() -> None:
    scores = VideoScores(3)
    scores.update(np.array([4, 5]), np.zeros((2, 3), np.float32), np.array([0, 1]), np.ones(2, dtype=bool))
    arrays = scores.arrays()
    assert VideoScores.of(3, arrays).clip_counts() == {4: 1, 5: 1}
    with pytest.raises(ValueError, match="shorter"):
        VideoScores.of(3, {**arrays, "log_sums": arrays["log_sums"][:1]})


@pytest.mark.parametrize("absent", [(), (2,), (2, 5)])
def test_figures_of_classes_are_those_of_scikit_learn(absent: tuple[int, ...]) -> None:
    logits, labels, real = batch(300)
    labels = np.where(np.isin(labels, absent), 0, labels)
    logits[:, 3] = -50.0  # never predicted
    logits[:, 5] = np.where(np.arange(300) % 2, logits[:, 5], -50.0)
    metrics = ClassificationMetrics(CLASSES)
    metrics.update(logits, labels, real)
    found = class_figures(metrics.result())
    truth, guess = labels[real], logits[real].argmax(axis=1)
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        truth, guess, labels=range(CLASSES), zero_division=np.nan
    )
    for mine, theirs, name in ((found.precision, precision, "p"), (found.recall, recall, "r"), (found.f1, f1, "f1")):
        got = [math.nan if value is None else value for value in mine]
        np.testing.assert_allclose(got, theirs, rtol=1e-12, err_msg=name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that are predicted but have no sample
        assert found.balanced_accuracy == pytest.approx(sklearn.metrics.balanced_accuracy_score(truth, guess))
    assert found.macro_f1 == pytest.approx(sklearn.metrics.f1_score(truth, guess, average="macro", zero_division=0))
    largest = sklearn.dummy.DummyClassifier(strategy="most_frequent").fit(truth[:, None], truth)
    assert found.majority == pytest.approx(largest.score(truth[:, None], truth))


def test_a_sample_without_prediction_is_a_miss_of_its_class() -> None:
    metrics = ClassificationMetrics(2)
    logits = np.array([[1.0, 0.0], [math.nan, 0.0], [0.0, 1.0]], np.float32)
    metrics.update(logits, np.array([0, 0, 1]), np.ones(3, dtype=bool))
    found = class_figures(metrics.result())
    assert (found.precision, found.recall) == ((1.0, 1.0), (0.5, 1.0))
    assert found.f1 == pytest.approx((2 / 3, 1.0))
    assert found.majority == pytest.approx(2 / 3)


def test_without_samples_there_are_no_figures_of_classes() -> None:
    found = class_figures(ClassificationMetrics(2).result())
    assert found.precision == found.recall == found.f1 == (None, None)
    assert (found.balanced_accuracy, found.macro_f1, found.majority) == (None, None, None)


def test_ten_thousand_classes_take_memory_for_the_pairs_that_occur() -> None:
    random = np.random.default_rng(0)
    tracemalloc.start()
    try:
        metrics, other = ClassificationMetrics(10_000), ClassificationMetrics(10_000)
        for each in (metrics, other):
            each.update(random.random((8, 10_000)), random.integers(0, 10_000, 8), np.ones(8, bool))
        metrics.merge(ClassificationMetrics.of(10_000, other.state()))
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()
    assert metrics.result()["confusion"].sum() == 16
