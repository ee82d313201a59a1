"""The page in a real browser: nothing is asked for, nothing hostile acts, and it judges as Python does."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.pages import HOSTILE, NOTHING, hostile, many, rows_of_all_kinds
from helpers.records import cell, row

from bench import browser as chromium
from harness.cli import parse
from harness.records.cell import Goal
from harness.report.page import figures
from harness.report.page.cells import LONGEST
from harness.report.page.judged import Content, Judged
from harness.report.page.render import write_page

REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "make-bench-qwen-0.5b"
GOAL = Goal(12, 1000, 400)
if chromium.program() is None:
    pytest.skip("no Chromium is installed: apt-get install chromium", allow_module_level=True)


@dataclass(frozen=True)
class Case:
    content: Content
    path: Path

    def judged(self, goal: Goal = GOAL) -> Judged:
        return Judged.of(self.content, goal)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """A page per kind of record; pictures in those that are looked at for them."""
    folder = tmp_path_factory.mktemp("pages")
    record = parse.record(REFERENCE)
    rows, results, solved = rows_of_all_kinds()
    contents = {
        "reference": (record.rows, record.results, ()),
        "empty": (NOTHING, [], ()),
        "all kinds": (rows, results, solved),
        "hostile": (*hostile(), ()),
        "many": (many(2000), [], ()),
        "hundred": (many(100), [], ()),
        "few": ([row((0.4,)), row((9.0,), key="slow", cell=cell(context=512)), row(key="known")], [], ()),
    }
    made = {}
    for name, (own, arms, attempts) in contents.items():
        content = Content(folder=Path("results/x"), rows=own, results=arms, solved=attempts)
        made[name] = Case(content, folder / f"{name}.html")
        judged = made[name].judged()
        write_page(judged, made[name].path, [] if name in ("many", "hundred") else figures.pictures(judged))
    return made


@pytest.fixture(scope="module")
def page():
    with chromium.Browser() as browser:
        yield browser.page()


@pytest.mark.parametrize("name", ["reference", "empty", "all kinds", "hostile", "many"])
def test_a_page_opens_without_a_word_a_request_or_a_dialog(page, cases, name):
    page.resize(1200)
    page.open(cases[name].path)
    assert page.complaints == []
    rows = page.run("document.querySelectorAll('#table tbody tr').length")
    assert rows == len(cases[name].content.rows)
    # All that is shown are the texts: nothing of a name became an element.
    assert page.run("document.querySelectorAll('main img, main script, iframe, object, embed, main h1').length") == 0
    assert page.run("document.querySelectorAll('style').length - document.querySelectorAll('svg style').length") == 1
    # On a phone nothing is wider than the screen.
    page.resize(390, 844)
    assert page.run("document.documentElement.scrollWidth") <= 390


def test_hostile_names_are_shown_as_they_are(page, cases):
    page.open(cases["hostile"].path)
    shown = page.run("Array.from(document.querySelectorAll('#table tbody tr'), row => row.cells[0].textContent)")
    plain = [text for text in HOSTILE if text.isascii() and text.isprintable() and len(text) <= LONGEST]
    assert len(plain) > 14 and set(plain) <= set(shown)
    # They can be filtered for, and pointed at, and still do nothing.
    page.run("filter.value = '<script>'; filter.dispatchEvent(new Event('input'))")
    assert page.run("document.querySelectorAll('#table tbody tr:not([hidden])').length") == 2
    page.run(
        "for (const e of document.querySelectorAll('td, text, svg g, th')) {"
        "e.dispatchEvent(new MouseEvent('mouseover', {bubbles: true})); e.dispatchEvent(new Event('focus')) }"
    )
    assert page.complaints == []


_MOVE = """{0}.value = {1}; {0}.dispatchEvent(new Event("input"))"""
_STATE = """(({budget, steps, best}) => ({
  budget: Number(budget), steps: Number(steps), best, text: document.getElementById("judged").textContent,
  words: Array.from(document.querySelectorAll("#table tbody tr"), r => [Number(r.dataset.i), r.cells[9].textContent]),
}))(document.documentElement.dataset)"""


@pytest.mark.parametrize("name", ["reference", "all kinds", "hundred", "few"])
def test_the_sliders_judge_every_cell_by_the_rule_of_python(page, cases, name):
    page.open(cases[name].path)
    seen = set()
    for budget, steps in ((None, None), (0, 500), (300, 800), (620, 640), (500, 1000), (1000, 0), (420, 560)):
        if budget is not None:
            page.run(_MOVE.format("budget", budget) + ";" + _MOVE.format("steps", steps))
        state = page.run(_STATE)
        judged = cases[name].judged(Goal(state["budget"], state["steps"], GOAL.test_tasks))
        assert [word for _, word in sorted(state["words"])] == [judged.words[row.key] for row in judged.content.rows]
        best = judged.choice.best
        # With accuracies at a projected dose Python may rank by these; without, it is the same rule.
        if not best or not any(c.estimate for c in judged.choice.fits):
            assert state["best"] == (f"{best.name} at {best.context}" if best else "")
        seen.add(state["text"])
    assert len(seen) > 4 and not page.run("/Infinity|NaN/.test(document.querySelector('#table').textContent)")
    # And back.
    page.run("reset.click()")
    state = page.run(_STATE)
    assert (state["budget"], state["steps"]) == (GOAL.budget_hours, GOAL.steps)


def test_the_table_sorts_by_the_keyboard_and_filters(page, cases):
    page.resize(1200)
    page.open(cases["many"].path)
    speed = "Array.from(document.querySelectorAll('#table tbody tr:not([hidden])'), r => r.cells[3].textContent)"
    page.run("document.querySelector('#table th:nth-child(4) button').focus()")
    page.press("Enter")
    assert page.run("document.querySelector('#table th:nth-child(4)').getAttribute('aria-sort')") == "ascending"
    values = [float(text) for text in page.run(speed)]
    assert values == sorted(values) and len(values) == 200
    page.press("Enter")
    values = [float(text) for text in page.run(speed)]
    assert values == sorted(values, reverse=True)
    assert page.run("document.querySelectorAll('#table [aria-sort=descending]').length") == 1
    # The next heading is one key away.
    page.press("Tab")
    assert page.run("document.activeElement.textContent").startswith("train h")
    page.run("filter.value = 'model-7- int4'; filter.dispatchEvent(new Event('input'))")
    names = page.run(
        "Array.from(document.querySelectorAll('#table tbody tr:not([hidden])'), r => r.cells[0].textContent)"
    )
    rows = cases["many"].content.rows
    own = [r for r in rows if r.cell.model.name == "model-7-instruct" and r.cell.precision == "int4"]
    assert len(names) == len(own) > 0
    # Failures with their reasons are rows like others.
    page.run("filter.value = 'not started'; filter.dispatchEvent(new Event('input')); more.click()")
    assert page.run("document.querySelectorAll('#table tbody tr:not([hidden])').length") == sum(not r.ok for r in rows)


def test_the_filter_is_of_what_the_rows_say_now(page, cases):
    """Not of the verdicts and hours that the record's own budget gave them."""
    page.open(cases["reference"].path)
    page.run(_MOVE.format("budget", 0))
    for words in ("fits", "too slow"):
        page.run(f"filter.value = '{words}'; filter.dispatchEvent(new Event('input'))")
        verdicts = "Array.from(document.querySelectorAll('#table tbody tr{0}'), r => r.cells[9].textContent)"
        shown, every = page.run(verdicts.format(":not([hidden])")), page.run(verdicts.format(""))
        assert shown == [words] * every.count(words)


def test_rows_that_are_filtered_out_are_hidden_on_a_phone_too(page, cases):
    """There a row is a card, whose display would else win over the attribute."""
    page.resize(390, 844)
    page.open(cases["many"].path)
    shown = (
        "Array.from(document.querySelectorAll('#table tbody tr')).filter(r => getComputedStyle(r).display != 'none')"
    )
    assert page.run(f"{shown}.length") == 200
    page.run("filter.value = 'model-7- int4'; filter.dispatchEvent(new Event('input'))")
    assert 0 < page.run(f"{shown}.length") < 50


def test_it_can_be_read_aloud_and_printed(page, cases):
    page.open(cases["all kinds"].path)
    unnamed = page.run(
        "Array.from(document.querySelectorAll('svg, button, input, select, section')).filter(e => !(e.ariaLabel "
        "|| e.getAttribute('aria-labelledby') || e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"
    )
    assert unnamed == []
    assert page.run(
        "Array.from(document.querySelectorAll('svg')).every(e => e.role === 'img' && e.ariaLabel.length > 20)"
    )
    page.send("Emulation.setEmulatedMedia", media="print")
    try:
        assert page.run("getComputedStyle(document.querySelector('.sliders')).display") == "none"
        # What the verdicts of the table are for stays: they may be of another budget than the heading.
        assert page.run("getComputedStyle(document.querySelector('#judged')).display") != "none"
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    finally:
        page.send("Emulation.setEmulatedMedia", media="")


def test_the_dark_page_has_light_letters(page, cases):
    page.open(cases["all kinds"].path)
    brightness = "getComputedStyle(document.body).{0}.match(/[0-9]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
    shades = {}
    for dark in (False, True):
        page.dark(dark)
        shades[dark] = [page.run(brightness.format(name)) for name in ("color", "backgroundColor")]
        ink = page.run("getComputedStyle(document.querySelector('svg text')).fill")
        shades[dark].append(ink)
    page.dark(False)
    assert shades[False][0] < shades[False][1] and shades[True][0] > shades[True][1]
    assert shades[False][2] != shades[True][2]
