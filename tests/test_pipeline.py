"""The accuracy part of a bench, from rows as a sweep leaves them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers.busy import Machine
from helpers.records import cell, row
from helpers.tasks import made_tasks, write_tasks
from helpers.tuning import InProcess, Listener

from harness import pipeline
from harness.catalog import model_folder, precisions
from harness.catalog import models as catalog
from harness.cli.bench import configure
from harness.errors import UserError
from harness.hardware import device_lock
from harness.measure.config import SweepConfig, SweepResult
from harness.records.arm import ROWS
from harness.records.cell import Goal, ModelSpec
from harness.records.lock import exclusive
from harness.records.measurement import MatmulSpeed
from harness.records.store import NOTHING, read
from harness.shard import Shard
from harness.tune import run
from harness.workers.cluster import Gone

NATIVE, EMULATED = MatmulSpeed(1e12, 1e12, True), MatmulSpeed(1e9, 1e8, False)


@pytest.fixture
def catalogue(tmp_path, shipped):
    """A catalogue whose ttft block is over in seconds: three made tasks, eight steps."""
    folder = write_tasks(tmp_path / "tasks", *made_tasks(4))
    ttft = catalog.TuneDefaults(set=str(folder), grid_limit=30, tasks=3, steps=8, context=256, views=2)
    return replace(shipped, ttft=ttft, recipe=replace(shipped.recipe, lora_r=4, sequences_per_step=2))


class Bench:
    def __init__(self, catalogue, folder):
        self.catalogue, self.folder, self.models, self.rows = catalogue, folder / "results", [], []

    def add(self, spec, weights, *rows):
        self.models.append((spec, weights))
        self.rows += [replace(r, cell=replace(r.cell, model=spec, weights=weights)) for r in rows]

    def config(self, **more):
        return SweepConfig(
            models=self.models, precisions=[precisions.find("fp32")], recipe=self.catalogue.recipe, contexts={},
            sample_seconds={}, cap_seconds={}, goal=Goal(12, 1000, 400), device="cpu", **more,
        )  # fmt: skip

    def measured(self, fresh=False):
        """The results, and all that was said."""
        config = self.config(fresh=fresh)
        swept, listener = SweepResult(self.folder, InProcess.report, self.rows), Listener()
        results = []
        for tune in pipeline.fine_tunes(config, self.catalogue, swept, listener.note):
            try:
                results += run.run(tune, listener, InProcess()).rows
            except UserError as problem:
                listener.note(str(problem))
        return results, " ".join(" ".join(listener.notes).split())


@pytest.fixture
def bench(catalogue, tmp_path):
    return Bench(catalogue, tmp_path)


def test_a_model_with_weights_is_tuned_and_one_without_is_said_to_be_unmeasured(bench, arc_folder):
    spec = model_folder.from_folder(arc_folder)
    bench.add(ModelSpec("bare", {}, 4096), "random", row())
    bench.add(spec, str(arc_folder), row((0.01,) * 12))
    results, notes = bench.measured()
    assert "bare: no weights: accuracy not measured; give them with --weights PATH" in notes
    assert [(r.arm, r.spec.model.name, r.steps) for r in results] == [
        ("baseline", "small", 0),
        ("+ color swap", "small", 8),
    ]
    assert [c.steps for c in results[1].curve_points] == [1, 2, 4, 8]  # a curve, so that it can be projected
    assert len(results[1].scores) == 3 and results[1].spec.precision == "fp32"
    assert read(bench.folder / ROWS.name, ROWS) == (results, NOTHING)
    again, notes = bench.measured()
    assert again == results and notes.count("from the record") == 2


def test_two_fine_tunes_do_not_write_into_one_folder(bench, arc_folder):
    bench.add(model_folder.from_folder(arc_folder), str(arc_folder), row((0.01,) * 12))
    bench.folder.mkdir()
    with exclusive(bench.folder / ".accuracy.lock"):
        results, notes = bench.measured()
    assert not results and "another fine-tune is writing to" in notes and "--results" in notes
    assert len(bench.measured()[0]) == 2


def test_a_lock_of_a_folder_that_is_none_is_one_line(bench, arc_folder):
    bench.add(model_folder.from_folder(arc_folder), str(arc_folder), row((0.01,) * 12))
    (bench.folder / ".accuracy.lock").mkdir(parents=True)
    results, notes = bench.measured()
    assert not results and ".accuracy.lock: cannot be locked (Is a directory)" in notes


def test_a_bench_holds_the_device_from_the_probe_to_the_last_fine_tune(bench, arc_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "cache"))
    bench.add(model_folder.from_folder(arc_folder), str(arc_folder), row((0.01,) * 12))
    tried = []

    def is_held(when):
        try:
            with device_lock.hold(InProcess.report.device):
                tried.append((when, False))
        except device_lock.Busy:
            tried.append((when, True))

    class Machine(InProcess):
        def ask(self, job, payload):
            is_held(job.rpartition(":")[2])
            return super().ask(job, payload)

    swept = SweepResult(bench.folder, InProcess.report, bench.rows)
    monkeypatch.setattr(pipeline.sweep, "run_on", lambda *_: is_held("sweep") or swept)
    listener = Listener(lambda *_: is_held("step"))
    done = pipeline.bench(bench.config(), bench.catalogue, listener, lambda _: is_held("result"), Machine())
    assert len(done.results) == 2
    assert list(dict.fromkeys(tried)) == [
        ("find_device", False), ("report_device", True), ("sweep", True), ("result", True), ("step", True),
        ("result", False),
    ]  # fmt: skip


def test_a_cluster_without_a_machine_left_is_no_note_between_fine_tunes(bench, arc_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "cache"))
    bench.add(model_folder.from_folder(arc_folder), str(arc_folder), row((0.01,) * 12))

    def lost(*_):
        raise Gone("the cluster has lost its last machine with T4")

    swept = SweepResult(bench.folder, InProcess.report, bench.rows)
    monkeypatch.setattr(pipeline.sweep, "run_on", lambda *_: swept)
    monkeypatch.setattr(pipeline.tuning, "run_on", lost)
    with pytest.raises(Gone):
        pipeline.bench(bench.config(), bench.catalogue, Listener(), executor=InProcess())


def test_a_share_measures_speed_alone_and_says_so(bench, arc_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TTFT_BENCH_CACHE", str(tmp_path / "cache"))
    bench.add(model_folder.from_folder(arc_folder), str(arc_folder), row((0.01,) * 12))
    swept = SweepResult(bench.folder, InProcess.report, bench.rows)
    monkeypatch.setattr(pipeline.sweep, "run_on", lambda *_: swept)
    for accuracy in (True, False):
        listener = Listener()
        config = bench.config(shard=Shard(1, 2))
        done = pipeline.bench(config, bench.catalogue, listener, executor=InProcess(), accuracy=accuracy)
        assert done.swept == swept and not done.results
        assert ("a share measures speed alone; ttft --shard measures accuracy" in listener.notes) == accuracy


def test_a_bench_measures_the_cell_that_its_fine_tune_is_a_run_of(bench, arc_folder):
    """The fine-tune is at 256 tokens with rank 4: a cell at 128, or of rank 32, is another run."""
    spec, rank = model_folder.from_folder(arc_folder), bench.catalogue.recipe
    bench.add(spec, str(arc_folder), *(row((0.01,) * 12, cell=cell(context=n, recipe=rank)) for n in (128, 512)))
    config, listener = bench.config(), Listener()
    swept = SweepResult(bench.folder, InProcess.report, bench.rows)
    (tune,) = pipeline.fine_tunes(config, bench.catalogue, swept, listener.note)
    extra = pipeline.cell_of(tune, config, swept)
    assert (extra.models, [p.name for p in extra.precisions]) == ([(spec, str(arc_folder))], ["fp32"])
    assert extra.contexts == {"cpu": [256]} and extra.recipe == config.recipe
    more = [replace(bench.rows[0], cell=replace(bench.rows[0].cell, context=256))]
    whole = replace(swept, rows=pipeline.in_order(swept.rows, more))
    assert [r.cell.context for r in whole.rows] == [128, 256, 512]
    assert pipeline.cell_of(tune, config, whole) is None
    wide = [replace(r, cell=replace(r.cell, recipe=replace(rank, lora_r=32))) for r in whole.rows]
    assert pipeline.cell_of(tune, config, replace(swept, rows=wide)).recipe.lora_r == 4


def test_a_fine_tune_beside_others_says_that_its_seconds_are_too_long(bench, arc_folder, monkeypatch):
    bench.add(model_folder.from_folder(arc_folder), str(arc_folder), row((0.01,) * 12))
    machine = Machine(64.0)
    monkeypatch.setattr(run, "CpuMeter", lambda: SimpleNamespace(read=lambda: machine.meter().over(1)))
    assert "others used 64.0 of" in bench.measured()[1]
    machine.others = (0.0,)
    assert "others used" not in bench.measured(fresh=True)[1]


def test_a_model_alone_is_measured_on_its_own_tasks_and_several_on_the_files_each_in_its_own_way(bench, arc_folder):
    own = replace(model_folder.from_folder(arc_folder), ttft={"steps": 2, "tasks": 2})
    bench.add(own, str(arc_folder), row((0.01,) * 12))
    results, _ = bench.measured()
    assert [(r.steps, len(r.scores)) for r in results] == [(0, 2), (2, 2)]
    bench.add(ModelSpec("bare", {}, 4096), "random", row())
    results, _ = bench.measured()
    assert [(r.steps, len(r.scores)) for r in results] == [(0, 3), (2, 3)]


def test_the_precision_is_a_native_one(bench, arc_folder):
    """Of an emulated fp16 row, a quantised and a plain native one it is the plain native one; of emulated ones none."""
    spec, kind = (
        model_folder.from_folder(arc_folder),
        {"cell": cell(precision="fp16", compute_dtype="fp16"), "rate": EMULATED},
    )
    int4 = row((0.01,) * 12, cell=cell(precision="int4"), rate=NATIVE)
    bench.add(spec, str(arc_folder), row(**kind), int4, row((0.01,) * 12, rate=NATIVE))
    results, _ = bench.measured()
    assert {r.spec.precision for r in results} == {"fp32"}
    emulated = Bench(bench.catalogue, bench.folder)
    emulated.add(spec, str(arc_folder), row(**kind), row(status="oom"))
    results, notes = emulated.measured()
    assert results == []
    assert notes == "small: accuracy not measured, for no cell was in a native precision"


def test_what_would_take_too_long_is_left_and_said(bench, arc_folder):
    """Eight steps of two micro-steps of 200 s are 53 min 20 s, beyond half an hour; of 100 s they would not be."""
    spec = model_folder.from_folder(arc_folder)
    recipe = bench.catalogue.recipe
    bench.add(spec, str(arc_folder), row((200.0,) * 12, cell=cell(recipe=recipe)))
    results, notes = bench.measured()
    assert results == []
    assert "small: accuracy not measured: 8 steps would take about 53 min here; harness ttft small" in notes
    quick = Bench(bench.catalogue, bench.folder)
    quick.add(spec, str(arc_folder), row((100.0,) * 12, cell=cell(recipe=recipe)))
    assert len(quick.measured()[0]) == 2


def test_a_folder_without_a_tokenizer_is_said_and_the_next_model_is_measured(bench, arc_folder, tiny_folder):
    bench.add(model_folder.from_folder(tiny_folder), str(tiny_folder), row((0.01,) * 12))
    bench.add(model_folder.from_folder(arc_folder), str(arc_folder), row((0.01,) * 12))
    results, notes = bench.measured()
    assert "tiny: no tokenizer at" in notes
    assert [r.spec.model.name for r in results] == ["small", "small"]


def test_a_record_that_cannot_be_read_in_part_is_mended_and_used(bench, arc_folder):
    bench.add(model_folder.from_folder(arc_folder), str(arc_folder), row((0.01,) * 12))
    results, _ = bench.measured()
    with (bench.folder / ROWS.name).open("a") as file:
        file.write('{"kind": "arm", "half a row')
    again, notes = bench.measured()
    assert again == results and "1 corrupt lines" in notes


@pytest.mark.parametrize(("words", "targets"), [({}, "all-linear"), ({"lora_targets": "attention"}, "attention")])
def test_targets_that_are_given_are_those_of_the_fine_tune(tmp_path, words, targets):
    """models.yaml tunes arc-tiny on all linear layers; attention, its recipe's default, counts where it is given."""
    config, catalogue = configure(["arc-tiny"], results=tmp_path, **words)
    assert config.recipe.lora_targets == "attention"
    (model,) = config.models
    swept = row((0.01,) * 12, cell=cell(model=model[0], weights=model[1]))
    notes = []
    (tune,) = pipeline.fine_tunes(config, catalogue, SweepResult(tmp_path, InProcess.report, [swept]), notes.append)
    assert (tune.recipe.lora_targets, notes) == (targets, [])
