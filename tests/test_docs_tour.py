"""docs/one-clip.md, and what other pages quote of the code: it stands there today, and a clip takes that way."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tiny
from pages import ANY_LINES, REPO, Block, blocks, pages, read

from pipelines.bitstreams.packet_flags import START
from pipelines.index.video_index import VideoIndex
from pipelines.sampler import ClipSampler
from pipelines.specs import ShardSpec
from pipelines.video.packets import select
from r3d_fast.config.config import load_config
from r3d_fast.demo.videos import make_demo_dataset
from r3d_fast.preview.first_clips import EVAL_CLIPS, TRAIN_CLIPS

TOUR = "docs/one-clip.md"
QUOTES = [block for page in pages() for block in blocks(page, read(page)) if block.source]


def source_of(place: str) -> list[str]:
    """The lines of `path:Class.function`, stripped. Raises StopIteration where there is no such one."""
    path, _, name = place.partition(":")
    text = (REPO / path).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        node = next(child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part)
    assert isinstance(node, ast.FunctionDef)
    return [line.strip() for line in text.splitlines()[node.lineno - 1 : node.end_lineno]]


def steps() -> dict[int, str]:
    """The number of each step of the tour, and the function that it names first."""
    found = re.findall(r"^### (\d+)\. .+\n\n`([\w/]+\.py:[\w.]+)`\n\n```python\n", read(TOUR), re.M)
    return {int(number): place for number, place in found}


def test_the_tour_has_fourteen_steps_each_a_function() -> None:
    assert list(steps()) == list(range(1, 15))


@pytest.mark.parametrize("quote", QUOTES, ids=lambda quote: quote.source)
def test_the_lines_that_a_page_quotes_stand_in_their_function_in_that_order(quote: Block) -> None:
    left = iter(source_of(quote.source))
    for line in map(str.strip, quote.text.splitlines()):
        assert line == ANY_LINES or line in left, f"{quote} quotes what is not in {quote.source} there: {line}"


def test_the_picture_shows_every_step_with_its_function() -> None:
    tree = ElementTree.parse(REPO / "docs" / "one-clip.svg")
    texts = [(element.get("class"), element.text or "") for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(int(text) for kind, text in texts if kind == "number") == list(steps())
    functions = sorted(place.rpartition(":")[2].rpartition(".")[2] for place in steps().values())
    assert sorted(text for kind, text in texts if kind == "function") == functions


def test_a_clip_takes_the_way_of_the_tour(tmp_path: Path) -> None:
    # So few videos to test on that the evaluation makes no graph of the network.
    make_demo_dataset(tmp_path / "data", videos_per_class=1, test_per_class=1, size=(32, 32), num_frames=12)
    index = VideoIndex.build(tmp_path / "data", index=tmp_path / "data.r3dindex", workers=0)
    trace = tmp_path / "trace"
    path = os.pathsep.join([str(REPO / "tests" / "support" / "tracer"), str(REPO)])
    environment = {**os.environ, "PYTHONPATH": path, "R3D_TRACE": str(trace), "R3D_ROOT": str(REPO)}
    options = tiny.options(tiny.overrides(index, "train.epochs=1", "schedule.warmup_epochs=0"))
    (tmp_path / "run").mkdir()
    # Pictures that are there are not drawn, so that nobody plans and reads for them.
    for name in (".lock", TRAIN_CLIPS, EVAL_CLIPS):
        (tmp_path / "run" / name).touch()
    for command in (
        tiny.command("data", "index", index.root, "--index", tmp_path / "traced.r3dindex"),
        tiny.command("train", "-c", "demo", *options, "--run", tmp_path / "run"),
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
    calls = [line.split(" ", 1) for line in trace.read_text(encoding="utf-8").splitlines()]
    numbers = {place: number for number, place in steps().items()}
    passed: dict[str, list[int]] = {}  # of each process
    for process, place in calls:
        if place in numbers:
            passed.setdefault(process, []).append(numbers[place])
    indexing, training, worker, *others = passed.values()
    assert indexing == [1]
    # The graph of step 9 is built before the first task; in training a traced graph has the place of step 12.
    assert training == [9, 2, 10, 11, 13, 14, 12]
    # Step 7 asks for what step 6 reads.
    assert worker == [3, 4, 5, 7, 6, 8]
    assert others == [[3, 4, 5, 7, 6]]  # the evaluation's: whole frames, which DALI scales


@pytest.mark.real
def test_the_figures_of_the_tour_are_those_of_its_clip(real_clips: Path, tmp_path: Path) -> None:
    lists = real_clips / "ucfTrainTestlist"
    index = VideoIndex.build(real_clips / "UCF-101", lists=lists, split=1, index=tmp_path / "index", workers=0)
    config = load_config("ucf101_r3d18")
    videos, seed = index.columns("train"), config.loader.seed
    plan = ClipSampler(videos, config.clip, config.augment, seed=seed, train=True, shard=ShardSpec()).plan(0, 1)
    record = index[plan.video_id]
    table = record.packets
    runs = select(table, plan.frames)
    packets = np.concatenate([run.packets for run in runs])
    read_bytes = int(table.size[packets].sum())
    frames = ", ".join(map(str, plan.frames[:3]))
    y, x, height, width = plan.box
    page = " ".join(read(TOUR).split())
    for figure in (
        f"when {len(index)} videos of UCF-101 are indexed",
        f"`{Path(record.path).name}`: {record.num_frames} frames of {record.width} x {record.height} px",
        f"px in {record.size:,} bytes",
        f"{len(table.offset)} packets with {np.count_nonzero(table.flags & START)} key frames",
        f"key frames, in {len(record.table):,} bytes",
        f"frames {frames}, ... {plan.frames[-1]}, {plan.frames.dtype} `[{len(plan.frames)}]`",
        f"a box of {height} x {width} px with its corner at y {y}, x {x}",
        f"take {len(packets)} of the {len(table.offset)} packets, in {len(runs)} runs",
        f"come {read_bytes:,} bytes, {100 * read_bytes / record.size:.0f} % of the file",
        f"out of our {len(packets)} packets, {len(plan.frames)} frames are wanted",
    ):
        assert figure in page
