from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from clips import write_stamped_video
from pages import (
    LANGUAGES,
    NEEDS,
    OUTPUTS,
    REPO,
    SECTIONS,
    Block,
    blocks,
    called,
    check_options,
    console_steps,
    found_command,
    matches,
    pages,
    read,
    spans,
    with_checked_shapes,
)

import bench.cli
from pipelines.index.video_index import VideoIndex
from r3d_fast import load_config, train
from r3d_fast.cli import cli
from r3d_fast.config.config import Config
from r3d_fast.config.yaml_files import shipped_configs
from r3d_fast.demo.videos import make_demo_dataset

PROGRAMS = {"r3d-fast": cli, "bench": bench.cli.cli}
# What the tests add to each `r3d-fast train` of a page: the same way, with less to compute.
SMALLER = ("train.epochs=2", "model.width=4", "augment.size_px=32", "loader.batch_size=4", "train.device=cpu")
UCF_CLASSES = ("ApplyEyeMakeup", "Basketball")
SUFFIXES = ("py", "csv", "json", "jsonl", "png", "onnx", "safetensors", "pdmodel", "pdiparams")
MARK = "@@ exit code"
# Pages whose commands take more than 20 s.
_SLOW = ("evaluation", "models", "predicting", "reports", "training", "weights")
SLOW_PAGES = ("README.md", *(f"docs/{name}.md" for name in _SLOW))

# ---- The pages as they are


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks(page, read(page))]


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len(read("README.md").splitlines()) <= 250


def test_every_block_says_what_it_is_and_what_it_takes() -> None:
    found = all_blocks()
    assert len(found) > 30
    wrong = [
        str(block)
        for block in found
        if block.language not in LANGUAGES
        or (block.needs and block.needs not in NEEDS)
        or (block.output and block.output not in OUTPUTS)
        # What can't be copied and run is no text: it would be a command that nobody tests.
        or (block.language == "text" and re.search(r"^(\$ |r3d-fast |bench |pip |make )", block.text, re.M))
    ]
    assert wrong == [], f"expected ```LANGUAGE of {LANGUAGES}, needs of {NEEDS}, output of {OUTPUTS}"


@pytest.mark.parametrize("page", pages())
def test_commands_that_are_not_run_here_exist_with_their_options(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", read("Makefile"), re.M)
    for block in blocks(page, read(page)):
        for program, *words in called(block.text) if block.language in ("sh", "console") and not block.file else ():
            try:
                if program == "make":
                    assert set(words) <= set(targets)
                    continue
                command, rest = found_command(PROGRAMS[program], words)
                command.make_context(program, rest)
                check_configs(rest)
            except Exception as error:
                pytest.fail(f"{block}: {shlex.join([program, *words])}: {error}")


def check_configs(words: list[str]) -> None:
    """Raise where a config that is named is not shipped, or a key that is overridden does not exist."""
    for option, value in pairwise(words):
        if option == "-c" and value != "CFG" and not value.endswith(".yaml"):
            assert value in shipped_configs()
        if option == "-o" and "=" in value:
            check_key(value.partition("=")[0])


def check_key(key: str) -> None:
    section, _, name = key.partition(".")
    known = Config.model_validate({}).model_dump()
    assert name in known[section], f"no setting {key}"


def test_a_block_that_shows_a_file_is_that_file() -> None:
    shown = [block for block in all_blocks() if block.file]
    assert len(shown) == 2
    assert [str(block) for block in shown if block.text != read(block.file)] == [], "copy the file into the page again"


@pytest.mark.parametrize("page", pages())
def test_what_the_text_names_is_there(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", read("Makefile"), re.M)
    wrong = []
    for span in spans(read(page)):
        program, _, rest = span.partition(" ")
        try:
            if program in PROGRAMS and rest:
                command, words = found_command(PROGRAMS[program], re.split(r"[\s|]+", rest))
                check_options(command, words)
            elif program == "make" and rest:
                assert rest in targets
            elif key := re.fullmatch(r"((?:" + "|".join(SECTIONS) + r")\.[a-z_]+)(?:[:=] ?.+)?", span):
                if key[1].rpartition(".")[2] not in SUFFIXES:
                    check_key(key[1])
            elif re.fullmatch(r"(bench|configs|docker|docs|examples|pipelines|r3d_fast|tests)/[\w./-]*", span):
                assert (REPO / span).exists()
        except (AssertionError, KeyError, ValueError) as error:
            wrong.append(f"`{span}`: {error}")
    assert wrong == []


def test_the_extras_that_are_to_be_installed_exist() -> None:
    setup = ConfigParser()
    setup.read(REPO / "setup.cfg", encoding="utf-8")
    named = re.findall(r"(?:'\.|r3d-fast)\[([a-z0-9,]+)\]'", "".join(map(read, pages())))
    assert len(named) > 8
    assert set(",".join(named).split(",")) <= set(setup["options.extras_require"])


@pytest.mark.parametrize("page", pages())
def test_the_text_needs_no_folder_beside_the_project(page: str) -> None:
    assert "../shared" not in read(page)
    assert "python -m bench" not in read(page)


# ---- Tables that follow from the code


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", REPO / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_tables_of_the_pages_are_what_the_code_gives() -> None:
    stale = [str(path.relative_to(REPO)) for path, _ in generator().stale()]
    assert stale == [], "their tables are of an older code: run `make docs`, and commit what it writes"


def test_a_table_is_written_between_its_two_lines() -> None:
    filled = generator().filled
    page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n"
    assert filled(page, "x", "new\n") == "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"
    with pytest.raises(ValueError, match="expected the lines <!-- y --> and <!-- end of y -->"):
        filled(page, "y", "new")


# ---- The site


def built(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """A finished build of the pages in `folder`, as `make docs` does it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_site_has_no_dead_link_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = built(REPO, tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//")
    assert [path.name for path in tmp_path.rglob("*.html") if loaded.search(path.read_text(encoding="utf-8"))] == []
    for page in pages():
        html = tmp_path / page.replace("README", "index").replace(".md", ".html")
        assert "<h1" in html.read_text(encoding="utf-8"), page
    assert (tmp_path / "bench" / "results" / "loader.png").is_file()


def test_a_dead_link_and_a_missing_anchor_are_told(tmp_path: Path) -> None:
    shutil.copy(REPO / "mkdocs.yml", tmp_path)
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "docs", "bench/results", "configs"):
        copy = shutil.copytree if (REPO / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy(REPO / name, tmp_path / name)
    with (tmp_path / "README.md").open("a") as readme, (tmp_path / "docs" / "data.md").open("a") as page:
        readme.write("\n[a](docs/nothing.md) [b](docs/data.md#nothing)\n")
        page.write("\n[c](training.md#nothing) ![d](../bench/results/nothing.png)\n")
    done = built(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    for link in ("docs/nothing.md", "docs/data.md#nothing", "training.md#nothing", "../bench/results/nothing.png"):
        assert f"'{link}'" in done.stderr


# ---- The commands, run


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has after `make demo`, made with less work, and a small data set in the form of UCF-101."""
    folder = tmp_path_factory.mktemp("house")
    data, root = folder / "demo" / "data", folder / "UCF-101"
    make_demo_dataset(data, videos_per_class=2, test_per_class=8)
    index = VideoIndex.build(data, index=folder / "demo" / "data.r3dindex", workers=0)
    options = ("data.root=demo/data", f"data.index={index.path}", "train.epochs=2", "train.log_to=[]")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(load_config("demo", options), run=Path("demo/run"))
    (folder / "demo" / "empty.avi").touch()
    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(UCF_CLASSES, 1)))
    for number, name in enumerate(UCF_CLASSES, 1):
        (root / name).mkdir(parents=True)
        for group in (1, 2, 3, 4):
            video = f"{name}/v_{name}_g{group:02d}_c01.avi"
            write_stamped_video(root / video, num_frames=20, size=(320, 240))
            for split in (1, 2, 3):
                kind, label = ("test", "") if group == split else ("train", f" {number}")
                with (lists / f"{kind}list{split:02d}.txt").open("a") as file:
                    file.write(f"{video}{label}\n")
    shutil.copytree(data / "train", folder / "videos")
    (folder / "bench").mkdir()
    (folder / "bench" / "results").symlink_to(REPO / "bench" / "results")
    write_stamped_video(folder / "long.mp4", codec="h264", num_frames=72, size=(128, 96), fps=12)
    for name in ("video.avi", "a.avi", "b.mp4"):
        shutil.copy(root / "ApplyEyeMakeup" / "v_ApplyEyeMakeup_g01_c01.avi", folder / name)
    programs = folder / "bin"
    programs.mkdir()
    more = " ".join(f"-o {option}" for option in SMALLER)
    python = shlex.quote(sys.executable)
    for name, text in (
        ("python", f'exec {python} "$@"'),
        ("bench", f'exec {python} -m bench.cli "$@"'),
        ("r3d-fast", f'[ "$1" = train ] && set -- "$@" {more}\nexec {python} -m r3d_fast "$@"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    return folder


def shell(script: str, folder: Path, house: Path) -> subprocess.CompletedProcess[str]:
    """A finished bash script in `folder`, stderr with stdout, with the project's commands on its path."""
    path = f"{house / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(REPO), "PYTHONSAFEPATH": "1"}
    command = ["bash", "-uo", "pipefail", "-c", script]
    return subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def run_console(block: Block, folder: Path, house: Path) -> None:
    """Run each command of a console block in one shell, and compare what it prints with what is shown."""
    steps = console_steps(block.text)
    script = "".join(f"{command}\nlast=$?; echo; echo '{MARK}' $last; (exit $last)\n" for command, _ in steps)
    printed = re.split(rf"^{MARK} (\d+)\n", shell(script, folder, house).stdout, flags=re.M)
    outputs, codes = printed[0::2], printed[1::2]
    assert len(codes) == len(steps), f"{block}: {''.join(printed)}"
    for number, (command, shown) in enumerate(steps):
        says_code = number + 1 < len(steps) and steps[number + 1][0] == "echo $?"
        assert codes[number] == "0" or says_code, f"{block}: {command}: {outputs[number]}"
        assert matches(shown, outputs[number], block.output or "exact"), f"{block}: {command} prints\n{outputs[number]}"


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW_PAGES)) for page in pages()]
)
def test_every_command_of_a_page_runs(page: str, house: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    found = [block for block in blocks(page, read(page)) if not (block.needs or block.source or block.file)]
    if any(block.language in ("sh", "console", "python") for block in found):
        shutil.copytree(house, folder, symlinks=True, ignore=shutil.ignore_patterns("bin"))
    printed = ""
    for block in found:
        if block.language == "console":
            run_console(block, folder, house)
        elif block.language == "sh":
            done = shell("set -e\n" + block.text, folder, house)
            assert done.returncode == 0, f"{block}: {done.stdout}"
            printed = done.stdout
        elif block.language == "python":
            (folder / "example.py").write_text(with_checked_shapes(block.text), encoding="utf-8")
            done = shell("python example.py", folder, house)
            assert done.returncode == 0, f"{block}: {done.stdout}"
            printed = done.stdout
        elif block.language == "yaml":
            (tmp_path / "config.yaml").write_text(block.text, encoding="utf-8")
            load_config(tmp_path / "config.yaml")
        elif block.output:
            assert matches(block.text, printed, block.output), f"{block}: the commands before it print\n{printed}"


# ---- How pages are read


def test_blocks_are_found_with_what_the_comment_before_them_says() -> None:
    text = (
        "a\n\n<!-- needs: gpu -->\n```sh\nb \\\n  c\n```\ntext\n```text\nd\n```\n"
        "<!-- needs: download -->\nno\n```\ne\n```\n\n`a/b.py:C.d`\n\n```python\nf\n```\n"
        "<!-- file: g/h.sh -->\n```sh\ni\n```\n"
    )
    assert blocks("p.md", text) == [
        Block("p.md", 4, "sh", "b \\\n  c\n", needs="gpu"),
        Block("p.md", 9, "text", "d\n"),
        Block("p.md", 14, "", "e\n"),
        Block("p.md", 20, "python", "f\n", source="a/b.py:C.d"),
        Block("p.md", 24, "sh", "i\n", file="g/h.sh"),
    ]
    with pytest.raises(ValueError, match=r"p\.md:1: a fence that is not closed"):
        blocks("p.md", "```sh\nx\n")


def test_calls_are_found_wherever_they_stand_in_a_line() -> None:
    text = (
        "pip install x && r3d-fast train -c a -o 'b=c d' \\\n  --run e  # r3d-fast no\n"
        "for k in 1; do bench report $k; done\nsrun bash -c 'exec r3d-fast eval --run $(f)'\nmake demo\n"
        "docker build -t r3d-fast:v100 .\ndocker run --gpus all r3d-fast:v100 doctor\n"
        "docker run r3d-fast:measure /data\n"
    )
    assert list(called(text)) == [
        ["r3d-fast", "train", "-c", "a", "-o", "b=c d", "--run", "e"],
        ["bench", "report", "1"],
        ["r3d-fast", "eval", "--run", "$"],
        ["make", "demo"],
        ["r3d-fast", "doctor"],
        ["bench", "gpu", "/data"],
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("trian -c demo", "no command trian; expected one of"),
        ("data idnex x", "no command idnex"),
        ("predict MODEL --tpo 2", "no option --tpo; expected one of"),
        ("eval --views=2 --vews=3", "no option --vews"),
    ],
)
def test_commands_and_options_that_do_not_exist_are_told(words: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_options(*found_command(cli, words.split()))


@pytest.mark.parametrize(
    ("shown", "printed", "how", "same"),
    [
        ("a 1\n...\nc 3\n", "x\na 1\nb\nb\nc  3\n", "exact", True),
        ("a 1\nc 3\n", "a 1\nb\nc 3\n", "exact", False),
        ("a 1.5 %\n", "a 22.75 %\n", "exact", False),
        ("a 1.5 %\n", "a 22.75 %\n", "numbers vary", True),
        ("a 1.5 %\n", "b 22.75 %\n", "numbers vary", False),
        ("up 1 at 0:01\n", "rotate_left 2 at 10:03\n", "predictions vary", True),
        ("up 1 at 0:01\n", "rotate 2 at 10:03\n", "predictions vary", False),
    ],
)
def test_shown_output_is_compared_as_far_as_it_can_be_foreseen(shown: str, printed: str, how: str, same: bool) -> None:
    assert matches(shown, printed, how) is same


def test_shapes_in_comments_are_checked() -> None:
    code = "import numpy as np\nif True:\n    x = np.zeros((2, 3), np.uint8)  # uint8 [2, 3]\n    x[0]  # uint8 [3]\n"
    exec(with_checked_shapes(code), {})  # noqa: S102 - our own text
    for wrong in (code.replace("uint8 [2, 3]", "uint8 [2, 4]"), code.replace("# uint8 [3]", "# int8 [3]")):
        with pytest.raises(AssertionError):
            exec(with_checked_shapes(wrong), {})  # noqa: S102 - our own text
