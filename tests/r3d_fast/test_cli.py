from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import tiny
from from_config import eval_clips

from pipelines.index.video_index import VideoIndex
from r3d_fast import evaluate
from r3d_fast.backend.feed import feed
from r3d_fast.config.config import load_config
from r3d_fast.config.yaml_files import shipped_configs
from r3d_fast.prediction.predictor import Predictor
from r3d_fast.weights.stored_model import restore


@pytest.fixture(scope="module")
def run(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.trained(tmp_path_factory.mktemp("runs") / "run", index)


def test_a_folder_without_videos(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    code, _, err = tiny.said(capsys, "data", "index", tmp_path)
    assert code == 3
    assert str(tmp_path) in err
    assert ".txt" in err


def test_bad_files_are_left_out_with_their_reasons(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "a").mkdir(parents=True)
    for i in range(3):
        clips.write_stamped_video(root / "a" / f"{i}.avi", num_frames=5)
    (root / "a" / "empty.avi").touch()
    (root / "a" / "text.avi").write_text("no video", encoding="utf-8")
    clips.write_audio_only(root / "a" / "sound.avi")
    whole = clips.write_stamped_video(root / "a" / "cut.avi").read_bytes()
    (root / "a" / "cut.avi").write_bytes(whole[: len(whole) // 2])
    os.mkfifo(root / "a" / "pipe.avi")
    code, out, _ = tiny.said(capsys, "data", "index", root, "--json", tmp_path / "s.json")
    assert code == 0
    assert "videos   3 (" in out
    assert "left out 5" in out
    for line in (
        "  empty: a/empty.avi",
        "  not a readable video: a/text.avi",
        "  no video stream: a/sound.avi",
        "  truncated: a/cut.avi",
        "  not a regular file (FIFO): a/pipe.avi",
    ):
        assert line in out
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["videos"] == 3
    assert (tmp_path / "data.r3dindex").is_file()


def test_the_index_goes_to_the_current_folder_where_the_data_set_is_read_only(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ro" / "data" / "a").mkdir(parents=True)
    clips.write_stamped_video(tmp_path / "ro" / "data" / "a" / "x.avi", num_frames=3)
    (tmp_path / "ro").chmod(0o555)
    monkeypatch.chdir(tmp_path)
    code, out, err = tiny.said(capsys, "data", "index", tmp_path / "ro" / "data")
    (tmp_path / "ro").chmod(0o755)
    assert code == 0
    assert "can't be written; so the index (data.r3dindex) is in the current folder" in err
    assert f"index    {tmp_path / 'data.r3dindex'}" in out


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a/0.avi,0\na/missing.avi,0\n", "1 of 2 listed videos"),
        ("a/0.avi,-1\n", "-1"),
        ("a/0.avi,0\na/0.avi,1\n", "a/0.avi"),
    ],
)
def test_bad_lists(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "0.avi").write_bytes(b"x")
    (tmp_path / "list.csv").write_text(content, encoding="utf-8")
    code, _, err = tiny.said(capsys, "data", "index", tmp_path / "data", "--lists", tmp_path / "list.csv")
    assert code == 3
    assert text in err
    assert "Traceback" not in err


@pytest.mark.parametrize("content", [b"", b"garbage" * 500])
def test_a_file_that_is_no_index(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.r3dindex").write_bytes(content)
    code, _, err = tiny.said(capsys, "train", "-c", "demo", "-o", f"data.index={tmp_path / 'x.r3dindex'}")
    assert code == 3
    assert f"{tmp_path / 'x.r3dindex'}: not a readable index" in err
    assert "r3d-fast data index" in err


def test_every_problem_of_a_config_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("train:\n  epochs: 0\n  epoch: 3\nloader:\n  batch_size: many\n", encoding="utf-8")
    code, _, err = tiny.said(capsys, "train", "-c", path, "-o", "optimizer.lr=-1")
    assert code == 2
    assert len(err.strip().splitlines()) == 4
    for text in ("train.epochs (line 2)", "did you mean epochs?", "loader.batch_size (line 5)", "-o optimizer.lr=-1"):
        assert text in err


def test_yaml_runs_no_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "c.yaml"
    path.write_text(f"train: !!python/object/apply:os.system ['touch {mark}']\n", encoding="utf-8")
    code, _, err = tiny.said(capsys, "train", "-c", path)
    assert code == 2
    assert "python/object/apply" in err
    assert not mark.exists()


def test_the_commands_run_in_order(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    code, out, _ = tiny.said(capsys, "eval", "--run", run, "--json", tmp_path / "e.json")
    assert code == 0
    assert "evaluated 16 of 16 videos" in out
    figures = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert figures["video"]["count"] == 16
    assert np.sum(figures["video"]["confusion"]) == 16


def test_evaluation_is_exact_whatever_the_batch(index: VideoIndex, run: Path) -> None:
    """Against a plain loop over single videos, with a last batch that is not full."""
    config = tiny.tiny_config(index, "eval.batch_size=5")
    evaluation, _ = evaluate(run, config)
    restored = restore(run)
    right, losses = 0, []
    with eval_clips(tiny.tiny_config(index, "eval.batch_size=1"), index) as loader:
        for batch in loader.epoch(0):
            logits = restored.model(feed(batch, "cpu").clips).numpy().astype(np.float64)[0]
            log_probs = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
            right += int(logits.argmax() == batch.labels[0])
            losses.append(-log_probs[batch.labels[0]])
    assert evaluation.video["count"] == len(losses) == 16
    assert evaluation.video["top1"] == right / 16
    assert evaluation.video["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_model_of_another_class_count(
    capsys: pytest.CaptureFixture[str], index: VideoIndex, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(index.root, tmp_path / "data")
    for split in ("train", "test"):
        shutil.rmtree(tmp_path / "data" / split / "zoom_out")
    other = VideoIndex.build(tmp_path / "data", index=tmp_path / "i", workers=0)
    options = tiny.options([f"data.root={other.root}", f"data.index={other.path}"])
    code, _, err = tiny.said(capsys, "eval", "--run", run, *options)
    assert code == 5
    assert "the model has 8 classes, the data set" in err


def test_a_flipped_byte_in_a_model(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run" / "best" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-9] ^= 1
    weights.write_bytes(content)
    code, _, err = tiny.said(capsys, "eval", "--run", tmp_path / "run")
    assert code == 0
    assert f"warning: {weights}: SHA-256 differs from the manifest" in err
    assert "is not damaged, and is used instead" in err
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    code, _, err = tiny.said(capsys, "eval", "--run", tmp_path / "run")
    assert code == 5
    assert "SHA-256 differs from the manifest" in err


def test_predict_names_classes_and_lists_failures(
    capsys: pytest.CaptureFixture[str], index: VideoIndex, run: Path, tmp_path: Path
) -> None:
    good = index.root / index[int(index.columns("test").video_id[0])].path
    (tmp_path / "bad.avi").write_bytes(b"no video")
    code, out, err = tiny.said(
        capsys,
        "predict",
        run,
        good,
        tmp_path / "bad.avi",
        tmp_path / "none.avi",
        "--top",
        "3",
        "--json",
        tmp_path / "p",
    )
    assert code == 3
    assert out.startswith(f"{good}: ")
    assert f"{tmp_path / 'bad.avi'}: error: not a readable video" in err
    assert "2 of 3 videos could not be read" in err
    items: list[dict[str, Any]] = json.loads((tmp_path / "p").read_text(encoding="utf-8"))
    assert [item["error"] is None for item in items] == [True, False, False]
    assert len(items[0]["classes"]) == 3
    assert items[0]["classes"][0]["class"] in index.classes


def test_one_weights_file_is_enough_to_predict(index: VideoIndex, run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "best" / "model.safetensors", tmp_path / "m.safetensors")
    videos = [index.root / index[int(i)].path for i in index.columns("test").video_id[:3]]
    alone, whole = Predictor(tmp_path / "m.safetensors")(videos), Predictor(run)(videos)
    assert alone == whole
    assert sum(probability for _, probability in Predictor(run)(videos[:1], top=8)[0].classes) == pytest.approx(1.0)


def test_usage_is_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, text in (
        (["train"], "nothing to train on: expected a folder of videos"),
        (["eval"], "expected either --run DIR, or -c CFG with --weights FILE"),
        (["train", "-c", "ucf101_r3d1"], "did you mean ucf101_r3d18 "),
        (["predict", str(tmp_path / "x"), "v.avi"], "no such file or folder; expected a run folder"),
        (["predict", "m", "v.avi", "--hop", "2"], "are used only with --timeline, --events, --strip or --annotate"),
        (["predict", "m", "v.avi", "--window", "2"], "are used only with --timeline, --events, --strip or --annotate"),
        (
            ["predict", "m", "v.avi", "--timeline", "--hop", "0"],
            "hop 0.0: expected a finite number of seconds, at least 0.01",
        ),
        (
            ["predict", "m", "v.avi", "--events", "--window", "-1"],
            "window -1.0: expected a finite number of seconds",
        ),
        (["predict", "m", "v.avi", "--timeline", "--hop", "-1"], "hop -1.0: expected a finite number of seconds"),
        (["data", "make-demo", "d", "--videos-per-class", "0"], "Invalid value for '--videos-per-class': 0 is not in"),
        (["nonsense"], "r3d-fast: No such command 'nonsense' (see r3d-fast --help)\n"),
        (["data", "index"], "r3d-fast: Missing argument 'ROOT' (see r3d-fast data index --help)\n"),
        (["data"], "Usage: r3d-fast data [OPTIONS] COMMAND [ARGS]..."),
    ):
        code, _, err = tiny.said(capsys, *arguments)
        assert code == 2, arguments
        assert text in err


def test_a_data_set_that_is_not_indexed_yet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = tiny.said(capsys, "train", "-c", "demo", "-o", f"data.root={tmp_path}", "--run", tmp_path / "r")
    assert code == 3
    assert f"not indexed yet; first run: r3d-fast data index {tmp_path}" in err


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU")  # noqa: PTH110
def test_a_missing_gpu_is_said(capsys: pytest.CaptureFixture[str], index: VideoIndex, tmp_path: Path) -> None:
    options = tiny.options(tiny.overrides(index, "train.device=gpu"))
    code, _, err = tiny.said(capsys, "train", "-c", "demo", "--run", tmp_path / "r", *options)
    assert code == 4
    assert "train.device gpu:" in err


@pytest.mark.real
def test_the_real_lists(capsys: pytest.CaptureFixture[str], real_clips: Path, tmp_path: Path) -> None:
    lists = real_clips / "ucfTrainTestlist"
    arguments = ["--lists", lists, "--split", "1", "--index", tmp_path / "i"]
    code, out, _ = tiny.said(capsys, "data", "index", real_clips / "UCF-101", *arguments)
    assert code == 0
    assert "videos   96 (64 train, 32 test)" in out
    assert "classes  8:" in out
    assert "frames   13927" in out


def test_shipped_configs_load() -> None:
    names = set(shipped_configs())
    assert names >= {"demo", "ucf101_r3d18", "ucf101_r3d18_paper", "hmdb51_r3d18", "folder_r3d18"}
    for name in names:
        assert load_config(name).data.root is not None


@pytest.mark.parametrize("classes", [400, 700])
def test_kinetics_evaluates_on_what_its_lists_call_val(classes: int) -> None:
    config = load_config(f"kinetics{classes}_r3d18")
    assert (config.data.root, config.data.eval_split, config.eval.views) == (Path(f"kinetics{classes}"), "val", 3)
    assert config.clip.views == "paper"


def test_doctor_says_that_this_machine_can_train() -> None:
    done = tiny.call("doctor")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ok +DALI +nvidia-dali-cuda\d+ [\d.]+, CPU decoder: mjpeg, vp8, vp9", done.stdout, re.M)
    assert "This machine can train on the " in done.stdout
    done = tiny.call("doctor", "--json")
    values = json.loads(done.stdout)
    assert values["exit_code"] == done.returncode == 0
    assert {check["name"] for check in values["checks"]} >= {"PyAV", "DALI", "Paddle", "GPU", "NVDEC", "archives"}
