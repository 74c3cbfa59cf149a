from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from r3d_fast.backend.paddle import import_paddle
from r3d_fast.errors import CheckpointError
from r3d_fast.prediction.restored_network import EXPORTED, RestoredNetwork, open_network


@pytest.fixture(scope="module")
def run(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.trained(tmp_path_factory.mktemp("runs") / "run", index)


def clips(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).normal(size=(count, 3, 4, 16, 16)).astype(np.float32)


def opened(run: Path) -> RestoredNetwork:
    network = open_network(run, "cpu")
    assert isinstance(network, RestoredNetwork)
    return network


def test_a_run_gives_logits_and_the_features_that_its_last_layer_takes(run: Path) -> None:
    network = opened(run)
    logits, features = network(clips(5))
    assert (logits.shape, features.shape) == ((5, 8), (5, 32))
    assert logits.dtype == features.dtype == np.float32
    fc = network.restored.model.head.fc
    np.testing.assert_allclose(features @ fc.weight.numpy() + fc.bias.numpy(), logits, atol=1e-5)
    np.testing.assert_allclose(network.restored.model(import_paddle().to_tensor(clips(5))).numpy(), logits, atol=1e-6)
    assert (len(network.classes), network.device, network.clip_dtype) == (8, "cpu", "float32")
    assert network.config.clip.num_frames == 4


def test_with_many_clips_to_come_a_graph_gives_the_same(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain, fast = opened(run), opened(run)
    plain.expect(15)
    fast.expect(16)
    assert plain._graph is None
    assert fast._graph is not None
    for count in (6, 3):
        for one, other in zip(plain(clips(count)), fast(clips(count)), strict=True):
            np.testing.assert_allclose(other, one, atol=1e-4)
    assert "warning" not in capfd.readouterr().err  # else it was the plain path twice


def test_what_is_given_may_be_written_again(run: Path) -> None:
    network = opened(run)
    buffer = clips(2)
    first = [value.copy() for value in network(buffer)]
    again = network(buffer)
    buffer[:] = 0
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["m.pdmodel", "m.pdiparams", "model.json"])
def test_a_static_model_without_its_description_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=rf"static model without its {EXPORTED}.*r3d-fast export RUN") as caught:
        open_network(tmp_path)
    assert caught.value.exit_code == 5


def test_no_model_at_all(tmp_path: Path, run: Path) -> None:
    for path, text in ((tmp_path / "none", "no such file"), (tmp_path, "a folder without a model")):
        with pytest.raises(UsageError, match=text):
            open_network(path)
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run" / "best" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    assert open_network(tmp_path / "run").classes  # the weights of its last step
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(CheckpointError):
        open_network(tmp_path / "run")
