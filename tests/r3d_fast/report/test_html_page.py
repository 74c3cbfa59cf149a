"""The page as a browser shows it: its figures, its tables by keyboard, phones, dark pages, and hostile names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import run_files
from browser import Browser, Opened

from pipelines.index.video_index import VideoIndex
from r3d_fast.report.report import write_report
from r3d_fast.runs.history import read_history

CLASSES = [f"Class{number:03d}" for number in range(101)]


@pytest.fixture(scope="module")
def large(index: VideoIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with 101 classes, whose mistakes have frames."""
    run = tmp_path_factory.mktemp("large") / "run"
    run_files.write_run(run, CLASSES, videos=1200, epochs=60, index=index, names=list(index.names()) * 30)
    write_report([run], run / "report.html")
    return run


def figures_of(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / "evaluation" / "figures.json").read_text(encoding="utf-8"))
    return values["video"]  # type: ignore[no-any-return]


def check_figures(shown: Opened, run: Path) -> None:
    """Assert that the page shows what metrics.jsonl and figures.json say."""
    figures = figures_of(run)
    for key in ("top1", "top5", "majority", "balanced_accuracy", "macro_f1", "loss"):
        assert shown.values(f".cards [data-figure={key}]") == [figures[key]], key
    assert shown.texts("table.classes tbody th") == list(figures["per_class"])
    for key in ("counts", "precision", "per_class", "f1"):
        expected = [-1.0 if value is None else value for value in figures[key].values()]
        assert shown.values(f"table.classes [data-figure={key}]") == expected, key
    cells = shown.page.eval_on_selector_all(
        "table.confusion tbody tr", "rows => rows.map(row => [...row.cells].slice(1).map(c => Number(c.textContent)))"
    )
    assert cells == figures["confusion"]
    evaluations = read_history(run).evaluations
    for key in ("epoch", "step", "top1", "top5", "loss", "clip_loss", "count", "seconds"):
        assert shown.values(f"table.evaluations [data-figure={key}]") == [record[key] for record in evaluations], key


def test_every_figure_is_that_of_the_files(browser: Browser, run: Path) -> None:
    with browser.opened(run / "report.html") as shown:
        check_figures(shown, run)
        assert shown.page.locator(".charts svg").count() == 5
        wrong = [line for line in run_files.predictions(run) if not line["correct"]]
        worst = max(wrong, key=lambda line: line["top"][0]["probability"])
        first = shown.texts(".videos figcaption")[0]
        assert all(word in first for word in (worst["label"], worst["predicted"], worst["video"]))
        pictures = shown.page.eval_on_selector_all(".videos img", "all => all.map(i => [i.naturalWidth, i.width > 0])")
        assert pictures
        assert all(width > 300 and seen for width, seen in pictures)
        assert shown.complaints == []


def test_101_classes_are_shown_whole_in_a_small_file(browser: Browser, large: Path) -> None:
    assert (large / "report.html").stat().st_size < 3_000_000
    with browser.opened(large / "report.html") as shown:
        check_figures(shown, large)
        assert shown.page.locator(".videos img").count() == 24
        assert shown.complaints == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_and_a_dark_page_show_it_readably(
    browser: Browser, large: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    with browser.opened(large / "report.html", width, scheme) as shown:
        assert not shown.is_wider_than_its_window
        brightness = shown.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g)[0]")
        assert (int(brightness) > 128) == (scheme == "light")
        for selector in ("p.verdict", "p.muted", "nav a", "td", "dt", "figcaption", "th button", "svg text"):
            assert contrast(shown, selector) >= 4.5, selector  # WCAG 2.2, 1.4.3
        assert shown.complaints == []


def contrast(shown: Opened, selector: str) -> float:
    """The contrast of a text to what lies behind it, by WCAG 2.2."""
    script = """element => {
      const style = getComputedStyle(element);
      let behind = element;
      while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
      const text = element.closest("svg") ? style.fill : style.color;
      return [text, getComputedStyle(behind).backgroundColor].map(colour => {
        const [r, g, b] = colour.match(/[0-9.]+/g).map(n => n / 255)
          .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      });
    }"""
    light, dark = sorted(shown.page.eval_on_selector(selector, script), reverse=True)
    return float((light + 0.05) / (dark + 0.05))


def test_tables_are_sorted_by_keyboard(browser: Browser, large: Path) -> None:
    with browser.opened(large / "report.html") as shown:
        button = shown.page.locator("table.classes thead button", has_text="F1")
        button.focus()
        for expected in (False, True):
            shown.page.keyboard.press("Enter")
            values = shown.values("table.classes [data-figure=f1]")
            assert values == sorted(values, reverse=expected)
            order = shown.page.locator("table.classes th[aria-sort]")
            assert order.get_attribute("aria-sort") == ("descending" if expected else "ascending")
        shown.page.locator("table.classes thead button", has_text="class").press("Enter")
        assert shown.texts("table.classes tbody th") == CLASSES


def test_the_confusion_matrix_tells_counts_by_keyboard_and_by_mouse(browser: Browser, large: Path) -> None:
    figures = figures_of(large)
    with browser.opened(large / "report.html") as shown:
        page = shown.page
        page.locator(".order button", has_text="lowest recall").press("Enter")
        assert page.locator(".order button[aria-pressed=true]").inner_text() == "lowest recall"
        recalls = [figures["per_class"][name] for name in shown.texts("table.confusion tbody th")]
        assert recalls == sorted(recalls)
        first, second = shown.texts("table.confusion tbody th")[:2]
        assert shown.texts("table.confusion thead th span")[:2] == [first, second]  # columns like rows

        page.locator("table.confusion td[tabindex='0']").focus()
        count = figures["confusion"][CLASSES.index(first)][CLASSES.index(first)]
        expected = f"{count} of {figures['counts'][first]} videos of {first} recognised"
        page.locator("table.confusion tbody tr:first-child td:nth-child(2)").click()
        assert page.locator("#tip").inner_text().startswith(expected)
        page.keyboard.press("ArrowRight")
        count = figures["confusion"][CLASSES.index(first)][CLASSES.index(second)]
        told = page.locator("#tip").inner_text()
        assert told.startswith(f"{count} of {figures['counts'][first]} videos of {first} taken for {second} (")
        page.keyboard.press("Escape")
        assert page.locator("#tip").inner_text() == ""
        page.keyboard.press("End")
        assert "taken for" in page.locator("#tip").inner_text()
        assert page.evaluate("document.activeElement.cellIndex") == 101
        page.locator("h1").click()
        page.locator("table.confusion tbody tr:nth-child(2) td:nth-child(3)").hover()
        assert f"of {second} recognised" in page.locator("#tip").inner_text()
        assert page.locator("#tip").get_attribute("role") == "status"


HOSTILE = [
    "<script>window.hacked=1</script>", '"><img src=x onerror="window.hacked=1">', "</script><b>&amp;", "{{ 7*7 }}",
    "a'b\"c`d", "$\\frac{1}{2}$", "tab\tand\nline", "\u202egnp.exe", "nul\x00 \x1b[31m", "\udcff lone", "javascript:x",
    "]]>--><!--", "\U0001f600" * 3, "x" * 300,
]  # fmt: skip


def test_hostile_names_are_shown_and_do_nothing(browser: Browser, tmp_path: Path) -> None:
    run = tmp_path / "<img src=x onerror=alert(1)>"
    run_files.write_run(run, HOSTILE, videos=300, names=[f"{name}/{n}.avi" for n in range(22) for name in HOSTILE])
    environment = json.loads((run / "env.json").read_text())
    environment["command"] = ["/usr/bin/r3d-fast", "train", "<script>window.hacked=1</script>"]
    (run / "env.json").write_text(json.dumps(environment))
    write_report([run], tmp_path / "one.html")
    write_report([run, run_files.write_run(tmp_path / "b", HOSTILE, seed=1)], tmp_path / "two.html")
    for name in ("one.html", "two.html"):
        with browser.opened(tmp_path / name, 390) as shown:
            assert shown.page.evaluate("window.hacked") is None
            assert shown.page.locator("script").count() == 1
            assert shown.page.locator("img:not([src^='data:'])").count() == 0
            assert not shown.is_wider_than_its_window
            assert shown.complaints == []
            text = "\n".join(shown.texts("table.classes tbody th"))
            assert all(part in text for part in (*HOSTILE[:6], "49" not in text and "{{ 7*7 }}", "\u202egnp.exe"))


def test_several_runs_are_side_by_side(browser: Browser, tmp_path: Path) -> None:
    runs = [run_files.write_run(tmp_path / f"run{n}", CLASSES[:12], epochs=4 + n, seed=n) for n in range(3)]
    write_report(runs, tmp_path / "report.html")
    with browser.opened(tmp_path / "report.html", 390) as shown:
        for key in ("top1", "balanced_accuracy", "majority"):
            assert shown.values(f"table.together [data-figure={key}]") == [figures_of(run)[key] for run in runs]
        assert "optimizer.lr" in shown.texts("table.settings tbody th")
        assert shown.texts(".charts figure:first-child .legend li") == ["run0", "run1", "run2"]
        assert shown.page.locator(".charts svg").count() == 7
        recalls = [value for run in runs for value in figures_of(run)["per_class"].values()]
        by_run = [shown.values(f"table.recalls td:nth-child({n + 2})") for n in range(3)]
        assert [value for values in by_run for value in values] == recalls
        assert not shown.page.locator("details.run").nth(1).evaluate("run => run.open")
        shown.page.locator("nav a", has_text="run1").press("Enter")
        assert shown.page.locator("details.run").nth(1).evaluate("run => run.open")
        assert not shown.is_wider_than_its_window
        identifiers = shown.page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
        assert len(identifiers) == len(set(identifiers))
        assert shown.complaints == []
