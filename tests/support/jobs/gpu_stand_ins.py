"""`bench gpu` on a made-up V100: its plan, its folder and its signals are real, each process stands for a measurement.

Run as a script with the arguments of `bench`. STAND_INS is a JSON object of words by the name of a part: `fail`,
`crash`, `hang` (its time is up after 3 s), `wait` (until it is interrupted), `no dali` (what the
doctor finds). WITHOUT names a module that counts as not
installed.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gpu_results

from bench.cli import main
from bench.gpu import execution, plan, session

# Of a part: it writes what it is given, says so, and does as it is told.
PART = """
import json, os, signal, subprocess, sys, time
file, text, word, real_command = sys.argv[1:]
if text:
    open(file, "w").write(text)
print("measuring", flush=True)
if word in ("hang", "wait"):
    if word == "hang":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    open(file + ".child", "w").write(str(child.pid))
    open(file + ".own", "w").write(str(os.getpid()))
    time.sleep(300)
if word == "crash":
    os.abort()
if word == "fail":
    print("boom: no such kernel", flush=True)
    sys.exit(4)
"""
V100 = gpu_results.a_v100()


def stand_ins(settings: plan.GpuSettings, card: plan.Card) -> list[plan.Part]:
    """The real plan, each process replaced by one that writes what such a card would have given."""
    words = json.loads(os.environ.get("STAND_INS", "{}"))
    parts = []
    for part in REAL_PLAN(settings, card):
        word = words.get(part.name, "")
        results = _without_dali(V100.results[part.name]) if word == "no dali" else V100.results.get(part.name)
        text = "" if results is None else json.dumps(results)
        file = plan.results_file(settings.out, part.name)
        command = (sys.executable, "-c", PART, str(file), text, word, part.shown)
        minutes = 0.05 if word == "hang" else part.minutes
        parts.append(replace(part, command=command, minutes=minutes, folder=None))
    return parts


def _without_dali(doctor: dict[str, Any]) -> dict[str, Any]:
    missing = {"name": "DALI", "state": "missing", "found": "DALI is not installed",
               "to_do": "pip install nvidia-dali-cuda120\nor something else"}  # fmt: skip
    return {**doctor, "checks": [*doctor["checks"], missing]}


REAL_PLAN = plan.plan

if __name__ == "__main__":
    session.plan = stand_ins
    session.find_card = lambda: plan.Card(**{key: V100.card[key] for key in asdict(plan.V100)})
    execution._PATIENCE = tuple((number, 0.5) for number, _ in execution._PATIENCE)
    if "WITHOUT" in os.environ:
        sys.modules[os.environ["WITHOUT"]] = None  # type: ignore[assignment]  # Python's own sign for it
    Path(os.environ.get("STARTED", os.devnull)).write_text(str(os.getpid()), encoding="utf-8")
    main()
