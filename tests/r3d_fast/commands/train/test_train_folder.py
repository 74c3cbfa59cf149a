"""`r3d-fast train DATA`: a folder or an index, runs that are numbered, runs to go on with, and what can't be meant."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny
from clips import write_classes, write_stamped_video
from runs import records

from pipelines.index.video_index import VideoIndex
from r3d_fast.commands.train.data_source import data_overrides
from r3d_fast.config.config import load_config
from r3d_fast.weights import known_weights

SMALL = ("clip.num_frames=4", "augment.size_px=16", "loader.workers=1", "loader.threads=1", "model.width=4")
MORE = tiny.options([*SMALL, "train.device=cpu", "train.log_to=[]"])


@pytest.fixture
def here(index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder beside the folder `videos`, which is not indexed; no weights have been fetched."""
    shutil.copytree(index.root, tmp_path / "videos")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_is_indexed_and_trained_on_and_each_run_has_a_folder_of_its_own(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("train", "videos", "--epochs", "1", "--batch", "16", "--lr", "1e-3", *MORE)
    code, out, err = tiny.said(capsys, *arguments)
    assert code == 0, err
    assert out.startswith("runs/videos: 2 steps, best top1")
    assert "indexing videos, once" in err
    assert "videos   40 (24 train, 16 test)" in err
    assert "training as folder_r3d18 says, in runs/videos" in err
    assert "to fine-tune r3d18-kinetics400, which takes fewer videos, first run: r3d-fast data weights" in err
    assert [record["count"] for record in records(here / "runs" / "videos", "train")] == [12, 12]
    config = load_config(here / "runs" / "videos" / "config.yaml")
    assert (config.train.epochs, config.loader.batch_size, config.optimizer.lr) == (1, 16, 1e-3)
    assert (config.data.root, config.data.index) == (Path("videos"), None)
    code, out, err = tiny.said(capsys, *arguments)
    assert code == 0, err
    assert "indexing" not in err
    assert out.startswith("runs/videos-2: 2 steps")
    one = next((here / "videos" / "train").rglob("*.avi"))
    shutil.copy(one, one.with_name("another.avi"))
    code, out, err = tiny.said(capsys, "train", "videos", "--resume", "auto", "-o", "train.epochs=2")
    assert code == 0, err
    assert "; the run goes on with those it knows" in err
    assert "going on with runs/videos-2, the newest run of that name" in err
    assert "runs/videos-2: going on at step 2, epoch 2" in err
    assert out.startswith("runs/videos-2: 4 steps")
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["videos", "videos-2"]


def test_an_index_says_where_its_videos_are(here: Path, index: VideoIndex, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = tiny.said(capsys, "train", index.path, "--name", "mine", "--epochs", "1", "--batch", "64", *MORE)
    assert code == 0, err
    assert out.startswith("runs/mine: 1 step,")
    config = load_config(here / "runs" / "mine" / "config.yaml")
    assert (config.data.root, config.data.index) == (None, index.path)


def test_fetched_weights_make_fine_tuning_the_default(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = known_weights.fetched_file(known_weights.FINETUNED)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no weights")
    code, _, err = tiny.said(capsys, "train", "videos", "--batch", "4", *MORE, "-o", "eval.batch_size=4")
    assert code == 5  # they are none
    assert f"fine-tuning {file}; to start from random weights: -c folder_r3d18" in err


def test_weights_that_are_named_are_fine_tuned_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = tiny.said(capsys, "train", "videos", "-o", "init.weights=mine.pth")
    assert code == 2
    assert "training as folder_finetune says, in runs/videos" in err
    assert "init.weights mine.pth: no such file or folder" in err


def test_what_is_wrong_is_said_before_anything_is_made(
    here: Path, index: VideoIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "videos.csv").write_text("path,label\n")
    shutil.copy(next((here / "videos").rglob("*.avi")), here / "one.avi")
    for words, code, text in (
        ((), 2, "nothing to train on: expected a folder of videos (r3d-fast train videos), a config (-c ucf101_r3d18)"),
        (("--resume", "auto"), 2, "nothing to train on"),
        (("ucf101_r3d18",), 2, "ucf101_r3d18 is a config, not a folder of videos; expected -c ucf101_r3d18"),
        (("nothing",), 3, "nothing: no such folder; expected a folder of videos, or its index"),
        (("one.avi",), 2, "one.avi: is a single video; expected a folder that has a folder of videos for each class"),
        (("videos.csv",), 2, "videos.csv: is a list of videos; index them first: r3d-fast data index ROOT --lists"),
        (("videos", "-o", "data.root=x"), 2, "videos and -o data.root=x both name the videos; give only one of them"),
        (("videos", "--epochs", "2", "-o", "train.epochs=3"), 2, "--epochs 2 and -o train.epochs=3 contradict each"),
        (("videos", "--epochs", "2", "-o", "train={epochs: 3}"), 2, "--epochs 2 and -o train={epochs: 3} contradict"),
        (("-c", "demo", "--epochs", "many"), 2, "--epochs many: expected a valid integer, got 'many'"),
        (("-c", "demo", "--size", "0"), 2, "--size 0: expected greater than or equal to 8, got 0"),
        (("-c", "demo", "--name", "a/b"), 2, "--name 'a/b': expected the name of a folder in runs/, without a slash"),
        (("-c", "demo", "--name", "a", "--run", "b"), 2, "--name a and --run b both say where the run lies"),
        (("--resume", "videos"), 2, "--resume videos: not a run folder (no config.yaml there)"),
    ):
        found, out, err = tiny.said(capsys, "train", *words)
        assert (found, out) == (code, ""), words
        assert text in err.splitlines()[-1], words
    assert not (here / "runs").exists()


def test_the_same_value_twice_is_no_contradiction(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("train", "-c", "demo", "--epochs", "3", "-o", "train.epochs=3", "-o", "data.root=nothing")
    code, _, err = tiny.said(capsys, *words)
    assert code == 3
    assert err.splitlines()[-1].startswith("r3d-fast: nothing: no such folder")


def test_a_folder_whose_files_have_changed_is_indexed_again_in_the_same_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_classes(tmp_path / "videos", 8, num_frames=4)
    VideoIndex.build(root, workers=0, val_fraction=0.5)
    assert data_overrides(root, (), print) == [f'data.root="{root}"', "data.index=null"]
    assert capsys.readouterr().out == ""
    write_stamped_video(root / "a" / "new.avi", num_frames=5)
    data_overrides(root, (), print)
    out = capsys.readouterr().out
    assert "have changed since it was indexed (1 new): indexing it again, in the same way\n" in out
    assert "held out 50% of each class" in out
    assert len(VideoIndex.open(root.with_suffix(".r3dindex"))) == 9
