"""bench.solve_runs: the file of challenges that a run reads, and what is said of a run."""

from helpers.tasks import made_tasks

from bench.solve_runs import Run, challenges
from harness.arc import sources

RUN = Run(planned=(0.9, 1.0, 1.2), first_pass_h=1.1, left_s=4.0, kills=("itself at 3 s",), faults=())


def test_the_file_of_challenges_holds_the_tasks_and_no_solutions(tmp_path):
    tasks, _ = made_tasks(5)
    path = tmp_path / "challenges.json"
    path.write_text(challenges(tasks))
    read, solutions = sources.load(str(path))
    assert sorted(read, key=lambda task: task.id) == sorted(tasks, key=lambda task: task.id) and not solutions


def test_a_run_is_held_against_its_plan():
    assert RUN.ratio == 1.1 and RUN.held
    assert "planned 3600 s (3240 to 4320), real 3960 s; 4.0 s before the end; kills: itself at 3 s" in str(RUN)
    late = Run(planned=(0.9, 1.0, 1.05), first_pass_h=1.1, left_s=4.0, kills=(), faults=())
    assert not late.held
    cut = Run(planned=(0.9, 1.0, 1.05), first_pass_h=None, left_s=4.0, kills=(), faults=("t1 is missing",))
    assert cut.ratio is None and not cut.held and "not all tried" in str(cut) and "t1 is missing" in str(cut)
