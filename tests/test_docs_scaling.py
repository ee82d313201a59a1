"""The schedulers' examples of docs/scaling.md, run as they stand with the variables that the scheduler sets: each job's
record has the share that they say. Workers are the stand-in's; what is added makes it quick."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.documents import ROOT
from helpers.sweep import WORLD
from helpers.tasks import made_tasks

from harness.records import solving
from harness.records.store import Store
from harness.shard import Shard

CLI = Path(__file__).parent / "helpers" / "cli.py"
TEXT = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
QUICK = {
    "bench": "--no-accuracy --force --device cpu --precisions 'fp32 bf16' --contexts '256 512'",
    "solve": "--device cpu --precision fp32 --context 512 --steps 4 --views 2 --passes 1 --budget-hours 0.1",
}


def block(heading):
    return re.search(rf"^### {heading}\n.*?^```[a-z]*\n(.*?)^```", TEXT, re.M | re.S)[1]


def slurm(job):
    """The script, and what `sbatch` sets by its --array."""
    script = block("Slurm")
    first, last = map(int, re.search(r"--array=([0-9]+)-([0-9]+)", script).groups())
    count = last - first + 1
    variables = {"ID": first + job, "MIN": first, "MAX": last, "COUNT": count}
    return script, {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in variables.items()}, count


def skypilot(job):
    """The task's command, and what `sky jobs launch --num-jobs` sets."""
    count = int(re.search(r"`sky jobs launch --num-jobs ([0-9]+)`", TEXT)[1])
    return (
        yaml.safe_load(block("SkyPilot"))["run"],
        {"SKYPILOT_JOB_RANK": str(job), "SKYPILOT_NUM_JOBS": str(count)},
        count,
    )


def kubernetes(job):
    """The container's command, its own variables, and the index that an Indexed Job sets."""
    spec = yaml.safe_load(block("Kubernetes"))["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completionMode"] == "Indexed" and container["command"] == ["sh", "-c"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]} | {"JOB_COMPLETION_INDEX": str(job)}
    return container["args"][0], variables, spec["completions"]


@pytest.fixture
def run(tmp_path):
    """Runs a job's command line in a folder; the folder of its record and what it has printed."""
    world, tasks = tmp_path / "world.json", made_tasks(8)[0]
    world.write_text(json.dumps(WORLD))
    (tmp_path / "challenges.json").write_text(json.dumps({
        task.id: {
            "train": [{"input": d.input, "output": d.output} for d in task.demonstrations],
            "test": [{"input": grid} for grid in task.test_inputs],
        }
        for task in tasks
    }))  # fmt: skip

    def job(command, variables):
        (verb,) = re.findall(r"python -m harness ([a-z]+) ", command)
        command = command.replace("python -m harness", f"{sys.executable} {CLI} {world}").replace(" /shared", " shared")
        done = subprocess.run(
            ["sh", "-c", f"{command.strip()} {QUICK[verb]}"], cwd=tmp_path, env={**os.environ, **variables},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
        return " ".join((done.stdout + done.stderr).split())

    return job


def cells(folder):
    return [(row.cell.model.name, row.cell.precision, row.cell.context) for row in Store(folder).rows().values()]


def test_slurm_and_kubernetes_give_each_job_its_cells(run, tmp_path):
    for scheduler, folder, models, jobs in (
        (slurm, "sweep/{}", 2, {3: "4"}),
        (kubernetes, "shared/sweep/{}", 1, {0: "0", 6: "6"}),
    ):
        all_of_it, _, count = scheduler(0)
        run(re.sub(r"(--shard .*\s*)?--results .*", "--results whole --shard 1/1", all_of_it), {})
        whole = cells(tmp_path / "whole")[: 4 * models]
        for job, name in jobs.items():
            command, variables, _ = scheduler(job)
            share, printed = Shard(job + 1, count), run(command, variables)
            by = "" if "--shard" in command else f" by {next(n for n in variables if 'ID' in n or 'INDEX' in n)}"
            assert f"shard {job + 1}/{count}{by}" in printed
            assert f"{len(share.of(whole))} of {len(whole)} cells" in printed
            # A Job has more completions here than there are cells: one without any ends well too.
            assert cells(tmp_path / folder.format(name)) == share.of(whole)


def test_skypilot_gives_each_job_its_tasks(run, tmp_path):
    command, variables, count = skypilot(2)
    assert f"shard 3/{count} by SKYPILOT_JOB_RANK; --shard 1/1 takes all: 1 of 8 tasks" in run(command, variables)
    assert [row.task for row in Store(tmp_path / "run/2", kind=solving.ROWS).rows().values()] == ["t2"]
    submitted = json.loads((tmp_path / "submission.json").read_text())
    assert len(submitted) == 8 and submitted["t2"][0]["attempt_1"] == [[0, 0, 0]]
