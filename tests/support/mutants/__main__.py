"""Makes small random changes of the core and runs the tests that concern each: `python -m mutants --count 600`.

What becomes of each change is appended to a file of JSON lines; the same command goes on where it was ended.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from time import perf_counter

from mutants.concerns import MODULES, REPO, concerned
from mutants.sample import Mutant, changed_source, sample

EQUIVALENT = Path(__file__).with_name("equivalent.txt")
_SLOWER = 5.0  # a run of the tests that takes so many times as long as without a change hangs,
_PATIENCE = 60.0  # if it takes so many seconds more, too


def copy_of_the_project(folder: Path) -> Path:
    """A copy of the files of the project, as they are now, in `folder`."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0")[:-1]:
        if (REPO / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, folder / name)
    return folder


def run_tests(folder: Path, tests: list[str], limit: float | None) -> tuple[str, float]:
    """("passed", "failed" or "hung"; seconds) of running `tests` in the copy of the project in `folder`."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
    begin = perf_counter()
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            process.communicate(timeout=limit)
            outcome = "failed" if process.returncode else "passed"
        except subprocess.TimeoutExpired:
            outcome = "hung"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # processes of a test that hung, or left them
    return outcome, perf_counter() - begin


def equivalent() -> dict[str, str]:
    """The reason of each change that makes no difference, by the change in words."""
    lines = EQUIVALENT.read_text(encoding="utf-8").splitlines()
    pairs = [line.rsplit(" # ", 1) for line in lines if line and not line.startswith("#")]
    return dict(pairs)


def usual_seconds(folder: Path, modules: list[str]) -> dict[str, float]:
    """How long the tests of each module take without a change. Ends the program where they fail."""
    found = {}
    for module in modules:
        outcome, found[module] = run_tests(folder, concerned(module, REPO), None)
        if outcome != "passed":
            sys.exit(f"{module}: its tests fail without any change: {' '.join(concerned(module, REPO))}")
        print(f"{module}: tests take {found[module]:.1f} s", flush=True)
    return found


def judged(mutant: Mutant, folder: Path, usual: float) -> str:
    """What the tests say of a change: "failed" or "hung" where they notice it, "passed" where they don't."""
    place = folder / mutant.module
    source = place.read_text(encoding="utf-8")
    try:
        place.write_text(changed_source(mutant, source), encoding="utf-8")
        return run_tests(folder, concerned(mutant.module, folder), _SLOWER * usual + _PATIENCE)[0]
    finally:
        place.write_text(source, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=600, help="changes to make")
    parser.add_argument("--seed", type=int, default=0, help="other changes for each seed")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="changes tried at once")
    parser.add_argument(
        "--only", default="", metavar="WORD", help="of these changes only those of modules whose path has this word"
    )
    parser.add_argument("--out", type=Path, default=Path("build/mutants.jsonl"), help="the file of what was found")
    arguments = parser.parse_args()
    wanted = sample(REPO, MODULES, arguments.count, arguments.seed, arguments.only)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    known = {}
    if arguments.out.is_file():
        known = {line["mutant"]: line["outcome"] for line in map(json.loads, arguments.out.read_text().splitlines())}
    todo = [mutant for mutant in wanted if str(mutant) not in known]
    with TemporaryDirectory(prefix="r3d-mutants-") as temporary, arguments.out.open("a") as out:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(arguments.jobs):
            copies.put(copy_of_the_project(Path(temporary) / str(number)))
        first = copies.get()
        usual = usual_seconds(first, sorted({mutant.module for mutant in todo}))
        copies.put(first)

        def judge(mutant: Mutant) -> None:
            folder = copies.get()
            try:
                known[str(mutant)] = judged(mutant, folder, usual[mutant.module])
            finally:
                copies.put(folder)
            out.write(json.dumps({"mutant": str(mutant), "outcome": known[str(mutant)]}) + "\n")
            out.flush()
            if known[str(mutant)] == "passed":
                print(f"not noticed: {mutant}", flush=True)

        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(judge, todo))
    return report(wanted, known)


def report(wanted: list[Mutant], known: dict[str, str]) -> int:
    """Print for each module how many changes were noticed; 0 if at least 95 % of those that are not equivalent were."""
    same = equivalent()
    noticed, count = Counter[str](), Counter[str]()
    for mutant in wanted:
        if str(mutant) not in same:
            count[mutant.module] += 1
            noticed[mutant.module] += known[str(mutant)] != "passed"
    for module, total in sorted(count.items()):
        print(f"{noticed[module]:4} of {total:4}  {module}")
    share = noticed.total() / max(1, count.total())
    left_out = sum(str(mutant) in same for mutant in wanted)
    print(f"{noticed.total()} of {count.total()} changes noticed ({100 * share:.1f} %), {left_out} make no difference")
    return 0 if share >= 0.95 else 1


if __name__ == "__main__":
    sys.exit(main())
