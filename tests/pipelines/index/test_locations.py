from __future__ import annotations

from inspect import signature
from pathlib import Path

from pipelines.index.locations import rebuild_command
from pipelines.index.video_index import VideoIndex

# They decide nothing that an index keeps.
_OF_ONE_BUILD = {"root", "index", "workers", "retry", "anew", "full", "progress", "watch"}


def test_the_command_has_each_option_of_a_build_that_is_not_at_its_default(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    place = tmp_path / "data.r3dindex"
    place.touch()
    plain = ["r3d-fast", "data", "index", str(root)]
    options = {
        name: p.default for name, p in signature(VideoIndex.build).parameters.items() if name not in _OF_ONE_BUILD
    }
    assert rebuild_command(place, root, options) == plain
    for name in options:
        option = f"--{name.replace('_', '-')}"
        assert rebuild_command(place, root, {**options, name: "other"}) == [*plain, option, "other"]
    assert rebuild_command(place, root, {"allow_partial": True}) == [*plain, "--allow-partial"]


def test_an_index_in_another_place_is_made_again_there(tmp_path: Path) -> None:
    command = rebuild_command(tmp_path / "i.r3dindex", tmp_path, {})
    assert command[3:] == [str(tmp_path), "--index", str(tmp_path / "i.r3dindex")]
    assert rebuild_command(tmp_path / "i.r3dindex", None, {"no option": 1})[3] == "ROOT"
