from __future__ import annotations

import os
from pathlib import Path

import pytest
from written import names, python

from pipelines.output.files import write_file, write_json


def test_an_open_file_of_this_process_is_written_by_its_number(tmp_path: Path) -> None:
    for number, path in ((None, "/proc/self/fd/{}"), (None, "/dev/fd/{}"), ("link", "/dev/fd/{}")):
        read, write = os.pipe()
        place = Path(path.format(write))
        if number:
            (tmp_path / "link").symlink_to(place)
            place = tmp_path / "link"
        write_file(place, b"through")
        os.close(write)
        assert os.read(read, 100) == b"through"
        os.close(read)


STDOUT = ["-", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1", "link"]


@pytest.mark.parametrize("name", STDOUT)
def test_stdout_takes_it_after_what_was_printed(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    name = str(tmp_path / "link") if name == "link" else name
    code = "print('before')\nwrite_json(Path(sys.argv[1]), [1], indent=None)\nprint('after')"
    done = python(code, name)
    assert (done.stdout, done.stderr) == (b"before\n[1]\nafter\n", b"")
    out = tmp_path / "out"
    out.write_text("kept\n")
    with out.open("ab") as file:  # a regular file that goes on after what it holds
        done = python(code, name, stdout=file)
    assert (out.read_text(), done.stderr) == ("kept\nbefore\n[1]\nafter\n", b"")
    with out.open("wb") as file:
        python(code, name, stdout=file)
    assert out.read_text() == "before\n[1]\nafter\n"
    assert names(tmp_path) == ["link", "out"]


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_stdout_that_is_full_or_closed_is_said(name: str) -> None:
    code = "write_json(Path(sys.argv[1]), [1])"
    with Path("/dev/full").open("wb") as full:
        done = python(code, name, stdout=full)
    said = "stdout" if name == "-" else name
    assert f"UsageError: {said}: can't be written: No space left on device".encode() in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert done.returncode == 1
    done = python(f"os.close(1); sys.stdout = None\n{code}", name)
    assert f"UsageError: {said}: can't be written: ".encode() in done.stderr


def test_a_reader_that_has_gone_is_no_error_of_writing() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        write_file(Path(f"/dev/fd/{write}"), b"x")
    os.close(write)


def test_stdout_that_is_no_file_is_written_too(capsys: pytest.CaptureFixture[str]) -> None:
    print("before")
    write_json(Path("-"), {"a": 1})
    assert capsys.readouterr().out == 'before\n{\n "a": 1\n}\n'
