from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from pipelines.index.video_index import VideoIndex
from r3d_fast.evaluation.evaluate import MANY_CLASSES, EvaluatedClips, Evaluation
from r3d_fast.evaluation.result_files import write_evaluation
from r3d_fast.metrics import ClassificationMetrics, VideoScores


@pytest.mark.parametrize("count", [MANY_CLASSES - 1, MANY_CLASSES, 3000])
def test_of_many_classes_the_pairs_that_occur_are_written(tmp_path: Path, index: VideoIndex, count: int) -> None:
    classes = tuple(f"c{number}" for number in range(count))
    logits, labels = np.zeros((4, count), np.float32), np.array([3, 3, 150, 7])
    logits[range(4), [3, 9, 150, 198]] = 5
    clips, videos = ClassificationMetrics(count), VideoScores(count)
    clips.update(logits, labels, np.ones(4, bool))
    videos.update(np.arange(4), logits, labels, np.ones(4, bool))
    clip, augment, _ = tiny.tiny_config(index).eval_specs()
    source = EvaluatedClips(index, None, (0, 1, 2, 3), clip, augment)
    evaluation = Evaluation(clips.result(), videos.result(), videos, (), source)
    written = write_evaluation(tmp_path, evaluation, classes, picture=count > 2000)
    assert set(written) == {"figures.json", "per_class.csv", "confusion.csv", "predictions.jsonl"}
    video = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["video"]
    with (tmp_path / "confusion.csv").open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    if count < MANY_CLASSES:
        assert np.array_equal(video["confusion"], evaluation.video["confusion"])
        assert (header[1:], len(lines)) == (list(classes), count)
        return
    assert "confusion" not in video
    assert video["confusion_cells"] == [[3, 3, 1], [3, 9, 1], [7, 198, 1], [150, 150, 1]]
    assert header == ["label", "predicted", "videos"]
    assert lines == [["c3", "c3", "1"], ["c3", "c9", "1"], ["c7", "c198", "1"], ["c150", "c150", "1"]]
    assert sum((tmp_path / name).stat().st_size for name in ("figures.json", "confusion.csv")) < 500 * count
