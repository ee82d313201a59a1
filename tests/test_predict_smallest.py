"""The smallest card that does the whole goal, the cheapest, and what comes nearest where none does."""

import csv
import re
from dataclasses import replace

import pytest
from helpers.predictions import OWN_ACCELERATOR

from harness.catalog import accelerators
from harness.cli.app import main
from harness.errors import UserError
from harness.predict import calibration, smallest

TINY = ("predict", "arc-tiny", "--precision", "fp16", "--context", "64", "--micro-batch", "1")


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main([*TINY, *words])
    shown = capsys.readouterr()
    return ended.value.code, shown.out, shown.err


def test_the_smallest_and_the_cheapest_card(capsys, tmp_path):
    path = tmp_path / "p.csv"
    code, out, _ = run(capsys, "--smallest", "--price", "l4=0.35, h100=2", "--price", "2xt4=9", "--csv", str(path))
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    lines = [line.split() for line in out.splitlines() if line.startswith("arc-tiny") and "|" not in line]
    assert [(words[1], words[-1]) for words in lines[:2]] == [("t4", "smallest"), ("l4", "cheapest")]
    assert "on t4: " in " ".join(out.split()) and "of Kaggle's 30 quota hours per week" in " ".join(out.split())
    with path.open() as file:
        assert [row["card"] for row in csv.DictReader(file)] == ["t4", "l4"]


def test_one_card_may_be_both_and_a_dear_one_is_not_cheapest(capsys):
    # Four cards cannot share a step of two sequences: they are none of the candidates.
    _, out, _ = run(capsys, "--smallest", "--price", "t4=0.01 l4=50", "--sequences-per-step", "2")
    assert "smallest, cheapest" in out and "l4" not in out.split("PREDICTED")[0]


def test_where_none_does_it_the_nearest_is_named_with_what_it_lacks(capsys):
    code, out, _ = run(capsys, "--smallest", "--budget-hours", "0.0001", "--gpu", "t4 l4")
    said = " ".join(out.split())
    assert code == 1 and "no card surely does it" in said and "comes nearest: it may take" in said
    assert "over the budget of 0.0001 h" in said and "nearest" in out.split("PREDICTED")[0]


def test_memory_that_lacks_is_told_by_how_often_the_cards_is_needed(capsys, tmp_path):
    (tmp_path / "small.yaml").write_text(OWN_ACCELERATOR.replace("24 GiB", "0.1 GiB"))
    code, out, _ = run(capsys, "--smallest", "--gpu", str(tmp_path / "small.yaml"))
    said = re.search(r"it may need (\S+) GiB per card, (\S+) times the 0.1 that it has", " ".join(out.split()))
    assert code == 1 and float(said[2]) == pytest.approx(float(said[1]) / 0.1, rel=0.01) and float(said[2]) > 2


def test_candidates_go_from_the_least_memory_of_all_cards_to_the_most():
    cards = [card for card, _ in smallest.candidates()]
    sizes = [card.memory_bytes * card.count for card in cards]
    assert sizes == sorted(sizes) and cards[0].name == "t4" and cards[0].count == 1
    assert {card.count for card in cards} == set(smallest.COUNTS)


def test_a_cpu_is_one_and_a_price_of_one_is_of_several():
    cpu = replace(accelerators.find("l4"), name="a CPU", kind="cpu")
    named = [(cpu, calibration.prior("cpu")), *(pair for pair in smallest.candidates() if pair[0].name == "l4")]
    assert [card.count for card, _ in smallest.candidates(named[:1])] == [1]
    smallest.check_prices({("l4", 1): 1.0, ("l4", 2): 1.5, ("a CPU", 1): 0.1}, named)
    smallest.check_prices({("l4", 1): 1.0}, named[2:3])


def test_a_price_is_of_one_card_or_of_so_many_together():
    prices = smallest.prices_of(["l4=0.35", "2xl4=0.5"])
    by_count = {card.count: card for card, _ in smallest.candidates() if card.name == "l4"}
    assert [smallest.euros_per_hour(by_count[n], prices) for n in (1, 2, 4)] == [0.35, 0.5, 1.4]
    assert smallest.euros_per_hour(next(c for c, _ in smallest.candidates() if c.name == "t4"), prices) is None


@pytest.mark.parametrize(
    "word", ["l4", "l4=", "=1", "l4=x", "l4=-1", "l4=0", "l4=nan", "l4=inf", "l4=1e9", "t5=1", "l4=1_0"]
)
def test_what_is_no_price_is_one_line(word):
    with pytest.raises(UserError, match=r"is no price; write CARD=EUROS per hour|unknown accelerator"):
        smallest.prices_of([word])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--price", "l4=1"), "it goes with --smallest"),
        (("--smallest", "--price", "l4=cheap"), "is no price"),
        (("--smallest", "--price", "l4=1 l4=2"), "has a price already"),
        (("--smallest", "--price", "8xl4=1"), "names 8xl4, which is none of the cards that are looked at"),
        (("--smallest", "--gpu", "l4", "--price", "l4=1 t4=1"), "names t4, which is none"),
        (
            ("--smallest", "--gpu", "4xt4", "--sequences-per-step", "6"),
            "6 sequences cannot be shared equally by 4 cards",
        ),
        (("--smallest", "--max-context"), "looks for a card"),
        (("--smallest", "--recipe", "arc24"), "runs on two cards"),
        (("--smallest", "--gpu", "t5"), "unknown accelerator 't5'"),
        (("--smallest", "--context", "4096"), "beyond arc-tiny's window"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, words, message):
    code, _, err = run(capsys, *words)
    assert code == 2 and message in err and err.count("\n") == 1
