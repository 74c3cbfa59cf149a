"""`make mutants`: which changes it makes, and how it tells whether tests notice them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from mutants.__main__ import equivalent, judged, report
from mutants.concerns import MODULES, REPO, concerned
from mutants.sample import Mutant, changed_source, function_at, mutants, sample

CORE = '''
from __future__ import annotations

LIMIT = 7


class Half:
    def of(self, value: int | None) -> int | None:
        """Half of `value`, rounded down."""
        return None if value is None else value // 2
'''
TEST = "from core import Half\n\ndef test_half() -> None:\n    assert (Half().of(4), Half().of(None)) == (2, None)\n"


def all_mutants() -> list[Mutant]:
    found = {mutant for seed in range(40) for mutant in mutants("core.py", CORE, Random(seed))}
    return sorted(found)


def test_only_what_runs_is_changed_and_no_limit() -> None:
    lines = {mutant.before for mutant in all_mutants()}
    assert lines == {"return None if value is None else value // 2"}
    assert {mutant.function for mutant in all_mutants()} == {"Half.of"}
    assert len(all_mutants()) > 10


def test_a_seed_draws_the_same_changes_from_all_modules(tmp_path: Path) -> None:
    for name in ("core.py", "other.py"):
        (tmp_path / name).write_text(CORE)
    drawn = sample(tmp_path, ["core.py", "other.py"], 4, seed=1)
    assert drawn == sample(tmp_path, ["core.py", "other.py"], 4, seed=1)
    assert drawn != sample(tmp_path, ["core.py", "other.py"], 4, seed=2)
    assert {mutant.module for mutant in drawn} == {"core.py", "other.py"}


def test_the_changes_of_a_module_do_not_depend_on_which_others_are_asked_for(tmp_path: Path) -> None:
    names = ["core.py", "other.py", "third.py"]
    for number, name in enumerate(names, 1):
        (tmp_path / name).write_text(CORE + CORE * number)
    everything = sample(tmp_path, names, 9, seed=3)
    assert len(everything) >= 9
    for name in names:
        assert set(sample(tmp_path, names, 9, seed=3, only=name)) == {m for m in everything if m.module == name}
        assert {m.module for m in sample(tmp_path, names, 9, seed=3, only=name)} == {name}


def test_a_change_counts_as_noticed_where_its_tests_fail_or_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "core.py").write_text(CORE)
    (tmp_path / "test_core.py").write_text(TEST)
    monkeypatch.setitem(MODULES, "core.py", ("test_core.py",))
    assert concerned("core.py", tmp_path) == ["test_core.py"]
    change = "return None if value is None else value {} 2".format
    by_way = {mutant.after: mutant for mutant in all_mutants()}
    assert judged(by_way[change("*")], tmp_path, 1.0) == "failed"
    assert judged(by_way[change("-")], tmp_path, 1.0) == "passed"  # 4 - 2 is 2, too
    assert (tmp_path / "core.py").read_text() == CORE
    assert change("-") in changed_source(by_way[change("-")], CORE)


def test_the_report_leaves_out_what_makes_no_difference(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = all_mutants()[:3]
    known = {str(wanted[0]): "failed", str(wanted[1]): "hung", str(wanted[2]): "passed"}
    assert report(wanted, known) == 1
    assert "2 of 3 changes noticed (66.7 %), 0 make no difference" in capsys.readouterr().out
    monkeypatch.setattr("mutants.__main__.equivalent", lambda: {str(wanted[2]): "only slower"})
    assert report(wanted, known) == 0
    assert "2 of 2 changes noticed (100.0 %), 1 make no difference" in capsys.readouterr().out


def test_every_module_has_tests_and_every_change_that_is_left_out_can_still_be_made() -> None:
    for module in MODULES:
        assert concerned(module, REPO), module
        assert all((REPO / test).is_file() for test in concerned(module, REPO)), module
    for change, reason in equivalent().items():
        module, function, lines = change.split(":", 2)
        source = (REPO / module).read_text(encoding="utf-8")
        before = lines.strip().partition(" -> ")[0]
        places = [
            number for number, line in enumerate(source.splitlines(), 1) if line.strip() and line.strip() in before
        ]
        assert any(function_at(source, number) == function for number in places), change
        assert reason
