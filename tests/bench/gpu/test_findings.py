"""What `bench gpu` reads of its folder."""

from __future__ import annotations

from pathlib import Path

from bench.gpu.findings import count_tests, gather
from bench.gpu.plan import V100

JUNIT = """<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest">
<testcase classname="tests.a" name="test_one" time="0.1" />
<testcase classname="tests.a" name="test_two"><failure message="assert 3 &lt; 2&#10;where">trace</failure></testcase>
<testcase classname="tests.a" name="test_three"><error message="fixture failed">trace</error></testcase>
<testcase classname="tests.a" name="test_four"><skipped type="pytest.skip" message="no encoder">x</skipped></testcase>
</testsuite></testsuites>
"""


def test_tests_are_counted(tmp_path: Path) -> None:
    (tmp_path / "tests.xml").write_text(JUNIT)
    assert count_tests(tmp_path / "tests.xml") == {
        "passed": 1,
        "failed": [
            {"test": "tests.a.test_two", "why": "assert 3 < 2"},
            {"test": "tests.a.test_three", "why": "fixture failed"},
        ],
        "skipped": [{"test": "tests.a.test_four", "why": "no encoder"}],
    }
    (tmp_path / "tests.xml").write_text(JUNIT[:200])
    assert count_tests(tmp_path / "tests.xml") is None
    assert count_tests(tmp_path / "none.xml") is None


def test_what_is_damaged_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "good.json").write_text('{"a": 1}')
    (tmp_path / "results" / "half.json").write_text('{"a": ')
    (tmp_path / "results" / "list.json").write_text("[]")
    found = gather(tmp_path, V100)
    assert found.results == {"good": {"a": 1}}
    assert (found.parts, found.tests) == ({}, None)
    assert found.why_not("kernels") == "not asked for"
