from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import ranks
import tiny
from from_config import eval_clips, train_clips
from runs import records, wait_for_step

from pipelines.errors import UsageError
from pipelines.index.video_index import VideoIndex
from pipelines.specs import LoaderSpec
from r3d_fast.loaders import _for_rank
from r3d_fast.ranks.group import Group
from r3d_fast.weights.checkpoint import latest_checkpoint


@pytest.fixture(scope="module")
def alone(index: VideoIndex) -> dict[str, np.ndarray]:
    return {key: np.asarray(value) for key, value in ranks.one_rank(index.path.parent, Group()).items()}


@pytest.fixture(scope="module", params=[2, 3])
def together(
    request: pytest.FixtureRequest, index: VideoIndex, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, np.ndarray]]:
    """What each of 2 and of 3 ranks found."""
    out = tmp_path_factory.mktemp("ranks")
    done = ranks.launch(request.param, out / "logs", Path(ranks.__file__), "steps", index.path.parent, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return [dict(np.load(out / f"rank{rank}.npz")) for rank in range(request.param)]


def test_ranks_hold_equal_weights_statistics_and_moments(together: list[dict[str, np.ndarray]]) -> None:
    held = [key for key in together[0] if key.startswith(("before.", "after.", "m."))]
    assert any(key.endswith("_variance") for key in held)
    assert any(key.startswith("m.") for key in held)
    for other in together[1:]:
        for key in held:
            np.testing.assert_array_equal(other[key], together[0][key], err_msg=key)


def test_gradients_and_loss_are_those_of_one_process(
    together: list[dict[str, np.ndarray]], alone: dict[str, np.ndarray]
) -> None:
    keys = [key for key in alone if key.startswith(("gradient.", "loss."))]
    assert len(keys) > ranks.STEPS * 20
    for rank in together:
        for key in keys:
            scale = max(1e-3, float(np.abs(alone[key]).max()))
            np.testing.assert_allclose(rank[key], alone[key], rtol=1e-4, atol=1e-5 * scale, err_msg=key)


def test_ranks_share_the_clips_of_one_process(
    together: list[dict[str, np.ndarray]], alone: dict[str, np.ndarray]
) -> None:
    mixed = np.stack([rank["videos"] for rank in together], axis=1).ravel()
    np.testing.assert_array_equal(mixed, alone["videos"])


def test_a_step_that_breaks_on_one_rank_moves_none(together: list[dict[str, np.ndarray]]) -> None:
    for rank in together:
        assert not rank["applied"].any()
        assert np.isfinite(rank["broken"]).tolist() == [False, True]
        for key in rank:
            if key.startswith("before."):
                np.testing.assert_array_equal(rank[key.replace("before.", "after.")], rank[key], err_msg=key)


def test_draws_differ_by_rank_and_step_and_come_again(
    together: list[dict[str, np.ndarray]], alone: dict[str, np.ndarray]
) -> None:
    draws = [rank[f"draw.{step}"].tobytes() for rank in together for step in range(ranks.STEPS)]
    assert len(set(draws)) == len(draws)
    np.testing.assert_array_equal(together[0]["draw.1"], alone["draw.1"])  # rank 0 of any number of ranks


def test_evaluation_counts_each_video_once(together: list[dict[str, np.ndarray]], alone: dict[str, np.ndarray]) -> None:
    """16 videos in batches of 5: 2 ranks pad the last batch, 3 as well."""
    assert alone["video.count"] == 16
    for rank in together:
        assert rank["eval_batches"] == together[0]["eval_batches"]
        for kind in ("clip", "video"):
            assert rank[f"{kind}.count"] == 16
            assert rank[f"{kind}.confusion"].sum() == 16
            for key in ("loss", "top1", "top5", "confusion"):
                np.testing.assert_array_equal(rank[f"{kind}.{key}"], together[0][f"{kind}.{key}"])


@pytest.mark.slow
def test_evaluation_under_the_launcher_equals_that_of_one_process(index: VideoIndex, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = tiny.call("train", "-c", "demo", "--run", run, *tiny.options(tiny.overrides(index, "train.epochs=2")))
    assert done.returncode == 0, done.stderr
    done = tiny.call("eval", "--run", run, "--json", tmp_path / "one.json")
    assert done.returncode == 0, done.stderr
    command = ("-m", "r3d_fast", "eval", "--run", run, "--json", tmp_path / "two.json", "-o", "eval.batch_size=3")
    done = ranks.launch(2, tmp_path / "logs", *command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("evaluated 16 of 16 videos") == 1
    one, two = (json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("one.json", "two.json"))
    for kind in ("clip", "video"):
        assert two[kind].pop("loss") == pytest.approx(one[kind].pop("loss"), rel=1e-5)
    assert two == one


@pytest.mark.parametrize("count", [2, 3, 4])
def test_steps_are_as_many_on_every_rank(index: VideoIndex, count: int) -> None:
    """24 videos to train on, 16 to evaluate: batches of 10 and of 5 fit neither."""
    config = tiny.tiny_config(index, f"loader.batch_size={10 // count * count}", "eval.batch_size=5")
    train, evaluation = [], []
    for rank in range(count):
        group = Group(rank, count)
        with train_clips(config, index, group=group) as loader, eval_clips(config, index, group=group) as checks:
            train.append(len(loader))
            evaluation.append(len(checks))
    assert len(set(train)) == len(set(evaluation)) == 1
    assert train[0] == 24 // (10 // count * count)


def test_a_batch_that_the_ranks_cant_share_is_refused(index: VideoIndex) -> None:
    with pytest.raises(UsageError, match=r"loader.batch_size 6 can't be shared by 4 ranks.* such as 8"):
        train_clips(tiny.tiny_config(index), index, group=Group(0, 4))


def test_ranks_share_the_cpus_of_their_machine(index: VideoIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r3d_fast.loaders.usable_cpus", lambda: 8)
    config = tiny.tiny_config(index, "loader.workers=auto", "loader.threads=auto")
    with train_clips(config, index, group=Group(1, 2, 2)) as loader:
        assert (loader.spec.workers, loader.spec.threads, loader.spec.batch_size) == (4, 4, 3)
    with train_clips(config, index, group=Group(1, 2, 1)) as loader:  # the only one on its machine
        assert (loader.spec.workers, loader.spec.threads) == ("auto", "auto")


def test_ranks_leave_the_threads_of_a_gpu_to_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows the engines of NVDEC, and tries two numbers of threads for them."""
    monkeypatch.setattr("r3d_fast.loaders.usable_cpus", lambda: 8)
    of_gpu, of_cpu = (_for_rank(LoaderSpec(), 3, Group(1, 2, 2), device) for device in ("gpu", "cpu"))
    assert (of_gpu.workers, of_gpu.threads, of_gpu.batch_size) == (4, "auto", 3)
    assert (of_cpu.workers, of_cpu.threads) == (4, 4)
    set_by_hand = _for_rank(LoaderSpec(threads=5), 3, Group(1, 2, 2), "gpu")
    assert set_by_hand.threads == 5


def test_an_error_on_one_rank_ends_all_with_its_code_and_one_message(index: VideoIndex, tmp_path: Path) -> None:
    done = ranks.launch(3, tmp_path / "logs", Path(ranks.__file__), "error", index.path.parent, tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    logs = [(tmp_path / "logs" / f"workerlog.{rank}").read_text(encoding="utf-8") for rank in range(3)]
    said = [[line for line in log.splitlines() if line.startswith("rank: ")] for log in logs]
    assert said == [["rank: rank 1: the disk of this rank is gone"], ["rank: the disk of this rank is gone"], []]
    assert not any("Traceback" in log for log in logs)


@pytest.mark.slow
def test_a_signal_stops_all_at_one_step_and_the_run_goes_on_to_the_same_bits(index: VideoIndex, tmp_path: Path) -> None:
    more = ("model.width=8", "train.epochs=6", "train.log_every_steps=1")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    done = ranks.train(index, whole, 2, *more)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{whole}: 24 steps, best top1"), done.stdout
    assert "train 24/24" in done.stderr
    child = ranks.start(index, parts, 2, *more)
    wait_for_step(parts, 1, child)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=ranks.LIMIT)
    assert child.returncode == 75, err
    assert out == ""
    assert err.count("stopped by a signal after step") == 1
    done = ranks.train(index, parts, 2, *more)
    assert done.returncode == 0, done.stderr
    assert f"{parts}: going on at step" in done.stderr
    assert [r["step"] for r in records(parts, "train")] == list(range(1, 25))
    assert {r["count"] for r in records(parts, "train")} == {6}
    assert {r["count"] for r in records(parts, "eval")} == {16}
    ours, theirs = latest_checkpoint(whole), latest_checkpoint(parts)
    assert ours is not None
    assert theirs is not None
    for mine, yours in ((ours[1].weights, theirs[1].weights), (ours[1].optimizer, theirs[1].optimizer)):
        for name, array in mine.items():
            np.testing.assert_array_equal(array, yours[name], err_msg=name)
    assert not any((parts / "ranks").glob("*env*"))


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_and_another_number_of_ranks_goes_on(index: VideoIndex, tmp_path: Path) -> None:
    run, more = tmp_path / "run", ("model.width=8", "train.epochs=6")
    child = ranks.start(index, run, 2, *more)
    wait_for_step(run, 3, child)
    ranks.os.kill(ranks.rank_pids(child.pid)[1], signal.SIGKILL)
    _, err = child.communicate(timeout=ranks.LIMIT)
    assert child.returncode == 4, err
    assert err.count("rank 1 is gone") == 1, err
    refused = ranks.train(index, run, 2, *more, "loader.batch_size=4")
    assert refused.returncode == 2, refused.stderr
    assert "loader.batch_size: 6 -> 4" in refused.stderr
    done = ranks.train(index, run, 3, *more)
    assert done.returncode == 0, done.stderr
    assert [r["step"] for r in records(run, "train")] == list(range(1, 25))
    assert {r["count"] for r in records(run, "train")} == {6}


@pytest.mark.slow
def test_a_stalled_rank_ends_the_job(index: VideoIndex, tmp_path: Path) -> None:
    run = tmp_path / "run"
    child = ranks.start(index, run, 2, "train.epochs=60", "train.rank_timeout_seconds=2")
    wait_for_step(run, 2, child)
    ranks.os.kill(ranks.rank_pids(child.pid)[1], signal.SIGSTOP)
    _, err = child.communicate(timeout=ranks.LIMIT)
    assert child.returncode == 4, err
    assert "rank 1 has given no sign of life" in err


@pytest.mark.slow
def test_the_launcher_alone_passes_a_signal_on(index: VideoIndex, tmp_path: Path) -> None:
    """It sends three at once, which must not count as a second one, and ends with the number of the signal."""
    run = tmp_path / "run"
    options = tiny.options(tiny.overrides(index, "train.epochs=60", "model.width=8"))
    command = ranks.launcher(2, tmp_path / "logs", "-m", "r3d_fast", "train", "-c", "demo", "--run", run, *options)
    child = ranks.subprocess.Popen(
        command, env=ranks.environment(), stdout=ranks.subprocess.PIPE, stderr=ranks.subprocess.STDOUT, text=True
    )
    wait_for_step(run, 2, child)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=ranks.LIMIT)
    assert child.returncode == signal.SIGTERM
    log = (tmp_path / "logs" / "workerlog.0").read_text(encoding="utf-8")
    assert "stopped by a signal after step" in log
    found = latest_checkpoint(run)
    assert found is not None
    assert found[1].state["step"] == len(records(run, "train"))
