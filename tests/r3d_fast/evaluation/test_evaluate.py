"""Which rows of a batch an evaluation computes at once."""

from __future__ import annotations

import pytest
import tiny
from from_config import a_model

from pipelines.index.video_index import VideoIndex
from r3d_fast.evaluation.evaluate import evaluate_model
from r3d_fast.loaders import eval_loader


@pytest.mark.parametrize(
    ("views", "batch", "sizes"), [(1, 5, [5, 5, 5, 1]), (1, 64, [8, 8]), (3, 20, [8, 8, 4, 8, 8, 4, 8])]
)
def test_a_cpu_computes_few_clips_at_once_and_none_that_only_fill_a_batch(
    index: VideoIndex, views: int, batch: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 16 test videos; more clips at once are no faster, and take more memory than training does."""
    monkeypatch.setattr("r3d_fast.acceleration.cpu._WORTH_TRACING", 1000)
    config = tiny.tiny_config(index, f"eval.views={views}", f"eval.batch_size={batch}")
    model = a_model(config, len(index.classes))
    computed: list[int] = []
    model.register_forward_pre_hook(lambda layer, inputs: computed.append(int(inputs[0].shape[0])))
    with eval_loader(index, "test", *config.eval_specs()) as clips:
        evaluation = evaluate_model(model, clips, len(index.classes), "cpu")
    assert computed == sizes
    assert (evaluation.clip["count"], evaluation.num_evaluated) == (16 * views, 16)
