"""The tables of the pages that follow from the code or from the results files, written into their places.

`make docs` runs it. A table stands between the lines `<!-- NAME -->` and `<!-- end of NAME -->`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path

from bench.reporting.accuracy_tables import accuracy_tables
from bench.reporting.recipe_costs import FROM_SCRATCH, KINETICS_MEANS, OF_64_FRAMES, recipe_table
from bench.reporting.results import StudyReport, ThroughputReport, load, load_any
from bench.reporting.tables import load_folder, tables
from bench.reporting.text import as_rate, markdown
from bench.studies.models import PUBLISHED, stored_results
from bench.studies.models import table as model_table
from pipelines.datasets.video_files import VIDEO_EXTENSIONS
from r3d_fast.config.reference import config_reference
from r3d_fast.errors import exit_code_table
from r3d_fast.models.cost import summarise_all
from r3d_fast.models.cost_table import COSTS, costs_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"


def headline() -> str:
    """The README's table: what r3d-fast does a second, beside what a user would run instead."""
    rows = [["on 2 CPU cores", "r3d-fast, clips/s", "beside it, clips/s", "r3d-fast is"]]
    loader = load(RESULTS / "loader.json")
    for sampling, what, peer, shown in (
        ("segments", "loading, frames spread over the video", "torchcodec approximate", "torchcodec"),
        ("segments", "the same", "decord", "decord"),
        ("segments", "the same", "jpg frames", "jpg frames, extracted beforehand"),
        ("consecutive", "loading, frames in a row", "torchcodec approximate", "torchcodec"),
    ):
        rows.append(_loader_row(loader, sampling, what, peer, shown))
    compute = json.loads((RESULTS / "cpu.json").read_text(encoding="utf-8"))
    for part, what in (("train", "training the reference model"), ("eval", "evaluating it")):
        ours, plain = (compute[f"{part}, {who}"] for who in ("r3d-fast", "paddle"))
        middle, low, high = ours["x plain Paddle, median, low, high"]
        times = f"{middle:.2f} x ({low:.2f} to {high:.2f})"
        rows.append([what, as_rate(ours["clips/s"]), f"Paddle: {as_rate(plain['clips/s'])}", times])
    return markdown(rows, right=[1])


def _loader_row(report: ThroughputReport, sampling: str, what: str, peer: str, shown: str) -> list[str]:
    (run,) = [run for run in report.runs if run.sampling == sampling]
    version = report.machine.versions.get(shown)
    shown = f"{shown} {version}" if version else shown
    rates = [
        f"{as_rate(figures.median)} ({as_rate(figures.low)} to {as_rate(figures.high)})"
        for figures in (run["r3d-fast"], run[peer])
    ]
    middle, low, high = run.ratio(peer)
    return [what, rates[0], f"{shown}: {rates[1]}", f"{middle:.2f} x ({low:.2f} to {high:.2f})"]


def accuracy(what: str) -> str:
    """What a stored study of accuracy found: its conditions, the last figures, and what is told apart."""
    report = load_any(RESULTS / f"accuracy_{what}.json")
    assert isinstance(report, StudyReport)
    return "\n\n".join(accuracy_tables(report.values)[:3])


def floors() -> str:
    """The floors of each package, as the contracts of import-linter in setup.cfg have them: a line a package."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = []
    for package in ("pipelines", "r3d_fast", "bench"):
        layers = setup[f"importlinter:contract:{package}"]["layers"].split("\n")
        shown = [" ".join(f"`{name.strip()}`" for name in layer.split("|")) for layer in layers if layer.strip()]
        lines.append(f"- **{package}**: {' > '.join(shown)}")
    return "\n".join(lines)


def fine_tuning() -> str:
    """The configs for fine-tuning, with the published figures of the models, which docs/models.md has too."""
    figures = {
        f"{data}_{model}_finetune": figure
        for model, pair in PUBLISHED.items()
        for data, figure in zip(("ucf101", "hmdb51"), pair, strict=True)
    }
    return recipe_table("finetune", figures | OF_64_FRAMES)


TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "headline figures"): headline,
    ("docs/models.md", "model table"): lambda: model_table(stored_results()),
    ("docs/paper.md", "recipes from scratch"): lambda: recipe_table("scratch", FROM_SCRATCH),
    ("docs/paper.md", "recipes on Kinetics"): lambda: recipe_table("kinetics", KINETICS_MEANS),
    ("docs/paper.md", "recipes of fine-tuning"): fine_tuning,
    ("docs/config.md", "config reference"): config_reference,
    ("docs/errors.md", "exit codes"): exit_code_table,
    ("docs/contributing.md", "floors"): floors,
    ("docs/data.md", "endings"): lambda: " ".join(f"`.{ending}`" for ending in sorted(VIDEO_EXTENSIONS)),
    ("docs/weights.md", "frozen statistics"): lambda: accuracy("finetune"),
    ("docs/speed.md", "repeats at equal time"): lambda: accuracy("repeats"),
    ("docs/paper.md", "accuracy beside PyTorch"): lambda: f"{accuracy('clips')}\n\n{accuracy('motions')}",
    ("docs/speed.md", "bench report"): lambda: tables(load_folder(RESULTS), brief=True),
    ("bench/results/README.md", "bench report"): lambda: tables(load_folder(RESULTS)),
}


def filled(text: str, name: str, table: str) -> str:
    """`text` with `table` between the two lines that name it. Raises ValueError where it has no such lines."""
    first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, begun, rest = text.partition(first)
    _, ended, after = rest.partition(last)
    if not begun or not ended:
        raise ValueError(f"expected the lines {first.strip()} and {last}")
    return f"{before}{first}{table.rstrip()}\n{last}{after}"


def stale() -> Iterator[tuple[Path, str]]:
    """(file, its text as it should be) of costs.json and each page with a table, if it is not what the code gives now.

    costs.json comes first: some of the tables are made of it.
    """
    costs = costs_text(summarise_all())
    if costs != COSTS.read_text(encoding="utf-8"):
        yield COSTS, costs
    for (page, name), table in TABLES.items():
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        wanted = filled(text, name, table())
        if wanted != text:
            yield path, wanted


if __name__ == "__main__":
    for path, text in stale():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)
