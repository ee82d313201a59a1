"""A run that is only planned: hours, odds, and the most that fits."""

import io
import json
import math
from dataclasses import replace

import pytest
from helpers.records import RECIPE
from helpers.solving import Watch, row_of
from helpers.tasks import made_tasks, write_tasks
from rich.console import Console

from harness.catalog import model_folder
from harness.cli import app
from harness.predict.answering import DecodeSpeed
from harness.predict.query import card_named
from harness.records.arm import DFS, SCORE, SHARED, TASK
from harness.report.solving import show_plan
from harness.solve import estimate
from harness.solve.pace import Pace
from harness.solve.plan import PlanConfig, _most, _PerTask, _planned, _Shared, _spec
from harness.solve.tokens import TaskTokens
from harness.workers.local import LocalExecutor

PACE = Pace(
    recipe=RECIPE,  # two sequences per step
    kind="cuda",
    sequence_s=lambda n: 0.001 * n,
    update_s=0.0,
    decoding=DecodeSpeed(read_s=0.0, step_s=0.0, cached_s=0.0),
    rows=8,
    load_s=10.0,
    common_sigma=0.1,
    source="made up",
)
# A step of a task takes a second, an answer a tenth per view.
TOKENS = {f"t{i}": TaskTokens(f"t{i}", (500, 500), (100,), 100.0) for i in range(40)}
DECODING = DecodeSpeed(read_s=0.0005, step_s=0.0, cached_s=0.0)
PACE = replace(PACE, decoding=DECODING)


@pytest.fixture
def config(arc_folder):
    return PlanConfig(
        model=model_folder.from_folder(arc_folder),
        weights=str(arc_folder),
        recipe=RECIPE,
        dataset="made",
        tasks=made_tasks(2)[0],
        arm="n-1",
        steps=10,
        views=4,
        context=512,
        encoding="rows",
        too_long="shorten",
        scope=TASK,
        precision="fp32",
        budget_s=1000.0,
    )


def test_work_is_the_sum_of_the_tasks_and_hours_are_divided_among_workers(config):
    alone, four = (_PerTask(list(TOKENS.values()), PACE, workers, config) for workers in (1, 4))
    train_s, answer_s = alone.work(10, 4)
    assert train_s == pytest.approx(40 * 10 * 1.0)
    # Of four tokens that a step reads in each row, two and a half become the answer's.
    assert answer_s == pytest.approx(40 * 4 * (100 * 0.0005 + 0.4 * 100 * 4 * 0.0005))
    assert four.work(10, 4) == alone.work(10, 4)
    hours = alone.foreseen(10, 4).hours_mid, four.foreseen(10, 4).hours_mid
    assert hours[0] == pytest.approx((400 + 16 + 13) / 3600, rel=0.1)
    assert 0.22 < hours[1] / hours[0] < 0.4


def test_what_surely_fits_is_what_the_simulation_finds_in_time(config):
    for workers in (1, 4):
        outlook = _PerTask(list(TOKENS.values()), PACE, workers, config)
        most = _most(lambda n, o=outlook: o.surely_fits(n, 4), 1000)
        assert outlook.foreseen(most, 4).whole >= 0.85
        assert outlook.foreseen(math.ceil(1.5 * most), 4).whole < 0.5


def test_a_shared_adapter_is_trained_once_and_answers_are_divided(config):
    one, four = (_Shared(list(TOKENS.values()), PACE, workers, config) for workers in (1, 4))
    assert one.work(100, 4) == pytest.approx((100 * 1.0, 40 * 4 * 0.13))
    seen = one.foreseen(100, 4), four.foreseen(100, 4)
    assert seen[0].hours_mid == pytest.approx((10 + 100 + 20.8) / 3600)
    assert seen[1].hours_mid == pytest.approx((10 + 100 + 5.2) / 3600)
    assert seen[0].hours_low < seen[0].hours_mid < seen[0].hours_high
    # In as much time as it is expected to take the odds are even.
    even = _Shared(list(TOKENS.values()), PACE, 1, replace(config, budget_s=130.8)).foreseen(100, 4)
    assert even.in_time == pytest.approx(0.5)
    assert _Shared(list(TOKENS.values()), PACE, 1, replace(config, budget_s=5.0)).foreseen(100, 4).in_time == 0.0


def test_the_most_rank_is_what_a_prediction_of_that_rank_fits(arc_folder, config):
    """In the memory that a rank of 64 surely fits, traced itself, the most is 64, told from ranks 4 and 8 alone."""
    from harness.catalog.accelerators import find
    from harness.predict.calibration import prior
    from harness.predict.prediction import predict_cell
    from harness.solve.rank import most_rank

    wide = {**config.model.architecture, "hidden_size": 512, "intermediate_size": 1024}
    config = replace(config, model=replace(config.model, architecture=wide))
    _, request = _spec(config, find("t4"), prior("cuda"), "cuda", "t4")
    command = LocalExecutor().command
    own = replace(request, recipe=replace(RECIPE, lora_r=64))
    sure = predict_cell(own, estimate.traced({512: own.trace_keys()[512]}, own, command, Watch()))
    for memory, most in ((1.001, 64), (0.999, 32)):
        memory = int(memory * sure.peak_bytes * sure.memory_factor)
        small = replace(request, accelerator=replace(request.accelerator, memory_bytes=memory))
        assert most_rank(small, command, Watch()) == most
    # No rank is wider than the model.
    assert most_rank(request, command, Watch()) == 512
    tiny = replace(request, accelerator=replace(request.accelerator, memory_bytes=1 << 20))
    assert most_rank(tiny, command, Watch()) == 0
    assert most_rank(replace(request, recipe=replace(RECIPE, method="full")), command, Watch()) is None


def test_the_most_that_fits():
    assert [_most(lambda n, limit=limit: n <= limit, 100) for limit in (0, 1, 37, 100, 1000)] == [0, 1, 37, 100, 100]


@pytest.mark.parametrize("scope", [TASK, SHARED])
def test_the_table_fits_80_columns_and_names_what_does_not_fit(config, scope):
    from harness.catalog.accelerators import find
    from harness.predict.calibration import prior

    config = replace(config, scope=scope)
    spec, request = _spec(config, replace(find("t4"), count=2), prior("cuda"), "cuda", "t4")
    assert request.accelerator.count == 1
    tokens = TOKENS | {"long": TaskTokens("long", (), (), 9.0, unasked=1), "lone": TaskTokens("lone", (), (90,), 9.0)}
    planned = _planned(config, spec, 2, tokens, PACE)
    assert planned.unasked == ("long",) and planned.untrained == ("lone",) and planned.tasks == 42
    assert planned.most_steps > 10 and planned.most_views > 4
    out = io.StringIO()
    show_plan(planned, config, Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "1 tasks with a test input beyond the context: long" in text and "made up" in text
    assert "all others are answered" in text and "all are answered" not in text
    # What no rank fits may not run at all.
    for rank, said in (
        (64, "memory for    rank 64 of LoRA at"),
        (0, "memory        may not suffice, not even for rank 1"),
    ):
        out = io.StringIO()
        show_plan(replace(planned, most_rank=rank), config, Console(file=out, width=80))
        assert said in out.getvalue()


def test_earlier_runs_of_the_same_setting_give_the_pace_and_others_do_not(config):
    from harness.catalog.accelerators import find
    from harness.predict.calibration import prior

    spec, _ = _spec(config, find("t4"), prior("cuda"), "cuda", "t4")
    setting = estimate.setting_of(spec, "n-1", 1)
    rows = [row_of(f"t{i}", setting=setting, train_s=3.0, decode_s=1.0) for i in range(6)]
    known = estimate.known_pace(PACE, [*rows, row_of("x", train_s=999.0)], spec, "n-1", 1)
    assert known.train_factor == pytest.approx(3.0) and known.tasks == 6 and "measured on 6 tasks" in known.source
    assert estimate.setting_of(replace(spec, steps=99, views=9, tasks=("z",)), "n-1", 2) == setting  # on cards
    assert estimate.setting_of(replace(spec, context=1024), "n-1", 1) != setting
    # Rows that were answered in another way tell the pace of training, and of answers by assumption.
    dfs = replace(spec, decode=DFS, select=SCORE)
    assert estimate.setting_of(dfs, "n-1", 1) != setting
    other = estimate.known_pace(PACE, rows, dfs, "n-1", 1)
    assert other.train_factor == pytest.approx(3.0) and other.cost == pytest.approx(2.28, rel=0.01)
    assert "6 tasks that were answered in another way; answers by dfs and score are assumed" in other.source
    own = [row_of(f"o{i}", setting=estimate.setting_of(dfs, "n-1", 1), train_s=2.0, decode_s=3.0) for i in range(6)]
    measured = estimate.known_pace(PACE, [*rows, *own], dfs, "n-1", 1)
    assert measured.train_factor == pytest.approx(2.0) and "assumed" not in measured.source


def test_workers_that_share_a_cpu_are_not_each_as_fast_as_one_alone(config):
    """Two are assumed to do 1.5 times the work of one, so each takes 2 / 1.5 of its seconds; a card has its own."""
    from harness.catalog.accelerators import find
    from harness.predict.calibration import prior

    spec, _ = _spec(config, find("t4"), prior("cuda"), "cpu", "a CPU")
    on_cpu, tasks = replace(PACE, kind="cpu"), list(TOKENS.values())
    alone, two = (estimate.known_pace(on_cpu, [], spec, "n-1", workers) for workers in (1, 2))
    assert sum(_PerTask(tasks, two, 2, config).work(10, 4)) == pytest.approx(
        sum(_PerTask(tasks, alone, 1, config).work(10, 4)) * 2 / 1.5
    )
    assert two.common_sigma > alone.common_sigma and "2 workers on one CPU are assumed" in two.source
    assert estimate.known_pace(PACE, [], spec, "n-1", 2).source == PACE.source
    # What was measured with as many holds as it is.
    setting = estimate.setting_of(spec, "n-1", 2)
    rows = [row_of(f"t{i}", setting=setting, train_s=3.0, decode_s=1.0) for i in range(6)]
    measured = estimate.known_pace(on_cpu, rows, spec, "n-1", 2)
    assert measured.train_factor == pytest.approx(3.0) and "assumed" not in measured.source


def test_the_verb_plans_a_run_on_a_card_that_is_not_at_hand(arc_folder, tmp_path, capsys):
    tasks, solutions = made_tasks(3)
    write_tasks(tmp_path / "tasks", tasks, solutions)
    words = ["plan", str(arc_folder), "--tasks", str(tmp_path / "tasks"), "--gpu", "2xt4", "--context", "512"]
    with pytest.raises(SystemExit) as end:
        app.main([*words, "--steps", "8", "--views", "2", "--budget-hours", "1"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    assert "rank 32 of LoRA at 512 tokens; planned is 32" in text  # as wide as the model
    assert "3 tasks" in text and "on t4, 2 workers" in text and "over 99 % all are answered" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "4"], "--steps goes with --tasks"),
        (["--workers", "2"], "--workers goes with --tasks"),
        (["--tasks", "arc1-evaluation", "--scope", "both"], "unknown scope 'both'"),
        (["--tasks", "arc1-evaluation", "--decode", "beam"], "unknown decoder 'beam'"),
        (["--tasks", "arc1-evaluation", "--select", "best"], "unknown selection 'best'"),
        (["--select", "score"], "--select goes with --tasks"),
        (["--tasks", "arc1-evaluation", "--context", "256 512"], "give one model, one --precision, one --context"),
        (["--tasks", "arc1-evaluation", "--gpu", "t4 l4"], "and --gpu cards of one kind"),
        (["arc-tiny", "--tasks", "generated", "--context", "4096"], "beyond the window of arc-tiny, 2048 tokens"),
        (["--tasks", "nosuch"], "nosuch"),
        (["--tasks", "arc1-evaluation", "--steps", "0"], "--steps must be"),
        (["--tasks", "arc1-evaluation", "--gpu", "t5"], "unknown accelerator"),
    ],
)
def test_bad_plans_are_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        app.main(["plan", *words])
    err = capsys.readouterr().err
    assert end.value.code == 2 and message in err and len(err.strip().splitlines()) == 1


def test_bad_runs_are_one_line(arc_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks, solutions = made_tasks(2)
    write_tasks(tmp_path / "tasks", tasks, solutions)
    (tmp_path / "twice.json").write_text('{"a": {}, "a": {}}')
    (tmp_path / "none.json").write_text(json.dumps({"a": {"train": [{"input": [[1]], "output": [[1]]}], "test": []}}))
    model = str(arc_folder)
    for words, message in (
        ([model, "--tasks", "tasks", "--budget-hours", "1", "--deadline", "12:00"], "give one of them"),
        ([model, "--tasks", "tasks", "--deadline", "noon"], "a time of day such as 21:30"),
        ([model, "--tasks", "tasks", "--out", "nosuch/s.json"], "cannot be written"),
        ([model, "--tasks", "none.json"], "has no test pair"),
        ([model, "--tasks", "twice.json"], "'a' stands there twice"),
        ([model, "--tasks", "tasks", "--decode", "beam"], "unknown decoder 'beam'"),
        ([model, "--tasks", "tasks", "--select", "best"], "unknown selection 'best'"),
        ([model, "--tasks", "tasks", "--passes", "0"], "--passes must be"),
        ([model, "--tasks", "tasks", "--budget-hours", "0.000001"], "too short for any task"),
        ([model, "--tasks", "tasks", "--workers", "999"], "would wait for one another"),
        (["qwen-0.5b", "--tasks", "tasks"], "no weights"),
        ([model, "--tasks", "tasks", "--context", "64"], "none of 2 tasks fits 64 tokens"),
    ):
        with pytest.raises(SystemExit) as end:
            app.main(["solve", *words, "--precision", "fp32", "--results", "r"])
        err = capsys.readouterr().err
        assert end.value.code == 2 and message in err and err.count("error: ") == 1, (words, err)


def test_a_cpu_has_as_many_workers_as_did_most_work(config):
    spec, _ = _spec(config, *card_named("cpu"), "cpu", "a CPU")
    tokens = list(TOKENS.values())

    def rows(workers, seconds, count=6):
        setting = estimate.setting_of(spec, config.arm, workers)
        return [
            row_of(
                f"t{i}", setting=setting, train_s=seconds, decode_s=seconds, nominal_train_s=1.0, nominal_answer_s=1.0
            )
            for i in range(count)
        ]

    def workers(*known):
        return estimate.fastest_workers(PACE, [row for own in known for row in own], spec, config.arm, tokens, 4)

    assert workers() == 1
    # Two at a time, each 1.3 times as slow as one alone: more is done.
    assert workers(rows(1, 1.0), rows(2, 1.3)) == 2
    assert workers(rows(1, 1.0), rows(2, 2.1)) == 1
    # Too few say nothing, and more than there are cores is not asked for.
    assert workers(rows(1, 1.0), rows(2, 1.3, count=2)) == 1
    assert workers(rows(1, 1.0), rows(5, 1.0)) == 1
