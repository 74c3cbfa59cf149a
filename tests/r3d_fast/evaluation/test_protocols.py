from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
import tiny
from from_config import eval_clips
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, recall_score, top_k_accuracy_score

from pipelines.errors import DataError
from pipelines.index.video_index import VideoIndex
from r3d_fast import train as run_training
from r3d_fast.backend.feed import feed
from r3d_fast.evaluation.protocols import check_splits
from r3d_fast.weights.checkpoint import load_checkpoint
from r3d_fast.weights.stored_model import restore

# 12 frames a video: windows of 5, 5 and, looped, 2.
SETTINGS = ("clip.sampling=consecutive", "clip.stride=1", "clip.num_frames=5", "clip.short=loop", "train.epochs=2")


@pytest.fixture(scope="module")
def run(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.trained(tmp_path_factory.mktemp("runs") / "run", index, *SETTINGS)


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = exponents / exponents.sum(axis=-1, keepdims=True)
    return shares


def clip_by_clip(run: Path, index: VideoIndex, *overrides: str) -> tuple[dict[int, list[NDArray[Any]]], dict[int, int]]:
    """Softmax of each clip by video, and labels, one clip at a time through the plain model."""
    model = restore(run).model
    found, labels = defaultdict(list), {}
    with eval_clips(tiny.tiny_config(index, *SETTINGS, "eval.batch_size=1", *overrides), index) as loader:
        for batch in loader.epoch(0):
            video = int(batch.video_ids[0])
            found[video].append(softmax(model(feed(batch, "cpu").clips).numpy()[0]))
            labels[video] = int(batch.labels[0])
    return dict(found), labels


def figures_of(probabilities: NDArray[np.float64], labels: list[int], classes: int) -> dict[str, Any]:
    """The figures that scikit-learn gives."""
    every = np.arange(classes)
    predicted = probabilities.argmax(axis=1)
    return {
        "loss": log_loss(labels, probabilities, labels=every),
        "top1": accuracy_score(labels, predicted),
        "top5": top_k_accuracy_score(labels, probabilities, k=5, labels=every),
        "per_class": recall_score(labels, predicted, labels=every, average=None),
        "confusion": confusion_matrix(labels, predicted, labels=every),
    }


def check_figures(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in ("loss", "top1", "top5"):
        assert found[name] == pytest.approx(wanted[name], rel=1e-4), name
    assert found["mean_top1_top5"] == pytest.approx((wanted["top1"] + wanted["top5"]) / 2, rel=1e-4)
    assert list(found["per_class"].values()) == pytest.approx(wanted["per_class"])


@pytest.mark.parametrize(
    ("options", "overrides", "clips"),
    [
        (["--protocol", "clip"], ["eval.views=1"], 1),
        (["--protocol", "video"], ["eval.views=paper"], 3),
        (["--protocol", "video-all"], ["eval.views=all"], 3),
        (["--views", "2", "--crops", "3"], ["eval.views=2", "eval.crops=3"], 6),
        (["--protocol", "video", "--crops", "10"], ["eval.views=paper", "eval.crops=10"], 30),
    ],
)
def test_every_figure_is_what_scikit_learn_says(
    capsys: pytest.CaptureFixture[str], run: Path, index: VideoIndex, tmp_path: Path, options: list[str],
    overrides: list[str], clips: int,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    code, told, _ = tiny.said(capsys, "eval", "--run", run, "-o", "eval.batch_size=7", *options, "--out", out)
    assert code == 0
    found, labels = clip_by_clip(run, index, *overrides)
    assert {len(shares) for shares in found.values()} == {clips}
    of_videos = figures_of(np.array([np.mean(found[v], axis=0) for v in found]), [labels[v] for v in found], 8)
    every = [(labels[video], share) for video, shares in found.items() for share in shares]
    of_clips = figures_of(np.array([share for _, share in every]), [label for label, _ in every], 8)

    report = json.loads((out / "figures.json").read_text(encoding="utf-8"))
    check_figures(report["video"], of_videos)
    check_figures(report["clip"], of_clips)
    assert (report["video"]["count"], report["clip"]["count"]) == (16, 16 * clips)
    assert report["video"]["confusion"] == of_videos["confusion"].tolist()
    for kind, figures in (("clip", of_clips), ("video", of_videos)):
        top1, top5 = 100 * figures["top1"], 100 * figures["top5"]
        assert f"{kind:6} top1 {top1:6.2f} %   top5 {top5:6.2f} %" in told
    assert "evaluated 16 of 16 videos: split test of folders" in told
    assert "mean of top1 and top5" not in told  # only of Kinetics and ActivityNet

    with (out / "confusion.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == [row[0] for row in rows] == list(index.classes)
    assert [list(map(int, row[1:])) for row in rows] == of_videos["confusion"].tolist()
    with (out / "per_class.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["top1"]) for row in table] == pytest.approx(of_videos["per_class"], abs=1e-6)
    assert {row["videos"] for row in table} == {"2"}
    for row in table:
        for column, key in (("precision", "precision"), ("f1", "f1")):
            share = report["video"][key][row["class"]]
            assert row[column] == ("" if share is None else f"{share:.6f}")
    assert f"balanced accuracy {100 * report['video']['balanced_accuracy']:6.2f} %" in told
    assert report["video"]["majority"] == 2 / 16
    assert f"\nwrote {out}: figures.json, per_class.csv, confusion.csv, predictions.jsonl, confusion.png\n" in told
    assert (out / "confusion.png").read_bytes().startswith(b"\x89PNG")

    lines = json_lines(out / "predictions.jsonl")
    assert [line["video"] for line in lines] == [index[v].path for v in sorted(found)]
    for line, video in zip(lines, sorted(found), strict=True):
        mean = np.mean(found[video], axis=0)
        assert line["label"] == index.classes[labels[video]]
        assert line["predicted"] == line["top"][0]["class"] == index.classes[int(mean.argmax())]
        assert line["correct"] is (int(mean.argmax()) == labels[video])
        assert line["clips"] == clips
        assert line["label_probability"] == pytest.approx(mean[labels[video]], rel=1e-3)
        assert [entry["probability"] for entry in line["top"]] == pytest.approx(sorted(mean)[:2:-1], rel=1e-3)


def test_two_processes_find_what_one_finds(run: Path, tmp_path: Path) -> None:
    options = ("--protocol", "video", "--crops", "3")
    one = tiny.call("eval", "--run", run, *options, "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    command = ("-m", "r3d_fast", "eval", "--run", run, *options, "--out", tmp_path / "two", "-o", "eval.batch_size=5")
    done = ranks.launch(2, tmp_path / "logs", *command)
    assert done.returncode == 0, done.stderr
    for name in ("per_class.csv", "confusion.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    both = [json.loads((tmp_path / name / "figures.json").read_text(encoding="utf-8")) for name in ("one", "two")]
    for kind in ("clip", "video"):
        assert both[0][kind]["count"] == both[1][kind]["count"]
        assert [both[0][kind][key] for key in ("top1", "top5")] == [both[1][kind][key] for key in ("top1", "top5")]
        assert both[0][kind]["loss"] == pytest.approx(both[1][kind]["loss"], rel=1e-5)
    videos = [[line["video"] for line in json_lines(tmp_path / name / "predictions.jsonl")] for name in ("one", "two")]
    assert videos[0] == videos[1]
    assert len(videos[0]) == 16


def test_a_video_that_cannot_be_read_is_told_and_counts_nowhere(
    capsys: pytest.CaptureFixture[str], run: Path, index: VideoIndex, tmp_path: Path
) -> None:
    shutil.copytree(index.root, tmp_path / "data")
    other = VideoIndex.build(tmp_path / "data", index=tmp_path / "i", workers=0)
    bad = index[int(index.columns("test").video_id[3])].path
    (tmp_path / "data" / bad).write_bytes(b"no video any more")
    options = tiny.options([f"data.root={other.root}", f"data.index={other.path}"])
    code, told, err = tiny.said(capsys, "eval", "--run", run, *options, "--out", tmp_path / "out")
    assert code == 3
    assert "evaluated 15 of 16 videos" in told
    assert "1 clip could not be read; the figures are of the others" in err
    lines = json_lines(tmp_path / "out" / "predictions.jsonl")
    assert len(lines) == 16
    (failed,) = [line for line in lines if "error" in line]
    assert failed["video"] == bad
    assert "label" not in failed
    report = json.loads((tmp_path / "out" / "figures.json").read_text(encoding="utf-8"))
    assert report["video"]["count"] == 15
    assert [item["video"] for item in report["bad"]] == [bad]


def split_of(index: VideoIndex, folder: Path, number: int) -> VideoIndex:
    """The data set with other videos held out: those of the training split whose number is `number`."""
    rows = []
    for i in range(len(index)):
        record = index[i]
        held_out = int(Path(record.path).stem) == number and record.path.startswith("train")
        rows.append(f"{record.path},{index.classes[record.label]},{'test' if held_out else 'train'}\n")
    (folder / f"list{number}.csv").write_text("".join(rows), encoding="utf-8")
    return VideoIndex.build(
        index.root, lists=folder / f"list{number}.csv", index=folder / f"split{number}.r3dindex", workers=0
    )


def test_the_mean_over_splits_counts_each_split_once(
    capsys: pytest.CaptureFixture[str], index: VideoIndex, tmp_path: Path
) -> None:
    for number in (1, 2):
        found = split_of(index, tmp_path, number)
        config = tiny.tiny_config(found, *SETTINGS, f"train.seed={number}")
        run_training(config, run=tmp_path / f"run{number}")
    arguments = ["eval", "--splits", "1,2", "--run", tmp_path / "run{split}", "--out", tmp_path / "out"]
    code, told, err = tiny.said(capsys, *arguments, "--json", tmp_path / "all.json")
    assert code == 0, err
    values = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert list(values["splits"]) == ["1", "2"]
    for number in ("1", "2"):
        alone = json.loads((tmp_path / "out" / f"split{number}" / "figures.json").read_text(encoding="utf-8"))
        assert values["splits"][number]["video"] == alone["video"]
        assert alone["index"] == str(tmp_path / f"split{number}.r3dindex")
    top1 = [values["splits"][number]["video"]["top1"] for number in ("1", "2")]
    assert values["mean"]["video"]["top1"] == {"mean": sum(top1) / 2, "low": min(top1), "high": max(top1)}
    assert f"mean of splits 1, 2: video  top1 {50 * sum(top1):6.2f} %" in told

    same = [*arguments, "-o", f"data.index={tmp_path / 'split1.r3dindex'}"]
    code, told, err = tiny.said(capsys, *same)
    assert code == 3
    assert "holds the same split as" in err
    assert told == ""  # said before anything is evaluated


def test_of_kinetics_the_mean_of_top1_and_top5_has_a_line(
    capsys: pytest.CaptureFixture[str], run: Path, index: VideoIndex, tmp_path: Path
) -> None:
    rows = ["label,youtube_id,time_start,time_end,split"]
    (tmp_path / "videos").mkdir()
    for number, row in enumerate(index[i] for i in range(len(index)) if index[i].split == "test"):
        name = f"v{number}_000000_000010{Path(row.path).suffix}"
        shutil.copy(Path(index.root) / row.path, tmp_path / "videos" / name)
        rows.append(f"{index.classes[row.label]},v{number},0,10,test")
    (tmp_path / "test.csv").write_text("\n".join(rows) + "\n")
    kinetics = VideoIndex.build(tmp_path / "videos", lists=tmp_path / "test.csv", workers=0)
    place = ["-o", f"data.index={kinetics.path}", "-o", f"data.root={kinetics.root}"]
    code, told, err = tiny.said(capsys, "eval", "--run", run, *place, "--json", tmp_path / "json")
    assert code == 0, err
    figures = json.loads((tmp_path / "json").read_text())["video"]
    assert figures["mean_top1_top5"] == (figures["top1"] + figures["top5"]) / 2
    assert f"\nvideo  mean of top1 and top5 {100 * figures['mean_top1_top5']:6.2f} %\n" in told


def test_a_protocol_that_contradicts_itself_is_refused(capsys: pytest.CaptureFixture[str], run: Path) -> None:
    for options, text in (
        (["--protocol", "video", "--views", "3"], "--protocol and --views both set the number of clips of a video"),
        (["--protocol", "clip", "--crops", "3"], "--protocol clip takes one crop of each video, --crops 3 asks for 3"),
        (["--splits", "1,2"], "one model for splits 1,2 would be tested on videos that it was trained on"),
        (["--splits", "1,x"], "--splits 1,x: expected numbers of splits, each once, such as 1,2,3"),
        (["--splits", "2,2"], "each once"),
        (["--splits", "0"], "expected numbers of splits"),
        (["--protocol", "video", "-o", "clip.sampling=segments"], "eval.views 'paper' needs clip.sampling consecutive"),
        (["--protocol", "video-all", "-o", "clip.sampling=segments"], "expected a number of views"),
        (["--protocol", "paper"], "'paper' is not one of 'clip', 'video', 'video-all'"),
        (["--crops", "5"], "'5' is not one of '1', '3', '10'"),
    ):
        code, out, err = tiny.said(capsys, "eval", "--run", run, *options)
        assert (code, out) == (2, ""), options
        assert text in err, options


def test_a_folder_that_cannot_be_written_is_said(capsys: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = tiny.said(capsys, "eval", "--run", run, "--out", tmp_path / "file")
    assert code == 2
    assert f"{tmp_path / 'file'}: can't be written" in err


def test_files_are_there_though_whoever_read_the_table_has_gone(run: Path, tmp_path: Path) -> None:
    command = [str(part) for part in tiny.command("eval", "--run", run, "--out", tmp_path / "out")]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        environment = {**os.environ, "PYTHONPATH": str(tiny.REPO)}
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, timeout=120, check=False)
    finally:
        os.close(writer)
    assert done.returncode == 0, done.stderr
    assert len(json_lines(tmp_path / "out" / "predictions.jsonl")) == 16
    assert (tmp_path / "out" / "confusion.png").is_file()


@pytest.mark.real
def test_an_index_of_another_split_is_refused(real_clips: Path, tmp_path: Path) -> None:
    lists = real_clips / "ucfTrainTestlist"
    index = VideoIndex.build(real_clips / "UCF-101", lists=lists, split=1, index=tmp_path / "i", workers=0)
    check_splits([index], [1])
    with pytest.raises(DataError, match="was built from split 1 of its lists, expected split 2"):
        check_splits([index], [2])


def test_a_run_goes_on_whatever_its_evaluation_was(run: Path, index: VideoIndex, tmp_path: Path) -> None:
    """`eval.crops` changes nothing of what a run computes in training."""
    shutil.copytree(run, tmp_path / "run")
    config = tiny.tiny_config(index, *SETTINGS, "train.epochs=3", "eval.crops=3")
    result = run_training(config, run=tmp_path / "run", resume=True)
    assert result.steps == 12
    assert load_checkpoint(tmp_path / "run" / "best").state["step"] in (4, 8, 12)
