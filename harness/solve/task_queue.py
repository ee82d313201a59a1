"""The queue of a run at work: workers that load once and take task after task, watched until the end.

Whatever a task does, the end is kept: a worker that goes on after its time is killed and replaced, and what its task
had answered until then counts. A worker that dies is replaced too, and its task tried once more.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from harness.arc.encode import from_rows
from harness.errors import UserError
from harness.records import solving
from harness.records.arm import TuneSpec
from harness.records.measurement import Place
from harness.records.solving import SolvedTask
from harness.records.store import Store
from harness.records.stored import to_stored
from harness.solve import submission
from harness.solve.config import LOAD, SOLVE, LoadJob, SolveConfig, TaskJob, work_key
from harness.solve.pace import Pace
from harness.solve.progress import Outlook, Progress
from harness.solve.schedule import Assignment, Scheduler
from harness.solve.tokens import TaskTokens
from harness.workers.pool import Pool
from harness.workers.process import Outcome
from harness.workers.ray_pool import RayPool

_POLL_S = 0.2
_LEAST_GRACE_S = 3.0  # after a task's time, before its worker is killed: or what loading the model anew would take
_LOADS = 3  # of one worker in a row that may fail
_ANSWERS_S = 1.0  # before the end, when tasks must be over: what an answer needs to get here
_HEARD_S = 1.5  # after the end, of the reserve, for answers that are on their way
_SAFE = 1.25  # times the expected answering time is kept for it


@dataclass
class _Worker:
    """What a worker does: `loading`, a task (`at`) since `since`, or nothing. `heard` are the votes that it has sent,
    `load_s` the seconds from its start until it had loaded, `place` is where in a cluster it is."""

    loading: bool = True
    load_s: float = 0.0
    failed_loads: int = 0
    at: Assignment | None = None
    since: float = 0.0
    heard: dict[str, Any] = field(default_factory=dict)
    place: Place | None = None


@dataclass(kw_only=True)
class Queue:
    """One run's queue. `end` is when nothing may compute any more, in seconds since the epoch; `reserve_s` is kept free
    after it."""

    config: SolveConfig
    spec: TuneSpec
    key: str
    setting: str
    store: Store
    pace: Pace
    tokens: Mapping[str, TaskTokens]
    workers: int
    end: float
    reserve_s: float
    observer: Any
    pool: Pool | RayPool
    rows: list[SolvedTask] = field(default_factory=list)

    def __post_init__(self) -> None:
        steps, views = self.spec.steps, self.spec.views
        self.parts = {name: self.pace.parts(tokens, steps, views) for name, tokens in self.tokens.items()}
        # A task that no question of fits takes no time, and is never answered.
        self.expected = {name: max(0.01, self.parts[name].seconds) for name, t in self.tokens.items() if t.questions}
        # One view without training is the least that gives an answer.
        self.least = {name: self.pace.parts(self.tokens[name], 0, 1).answer_s for name in self.expected}
        self.scheduler = Scheduler(self.expected, self.least, self.end, self.workers, self.config.passes)
        self.work = work_key(self.spec, self.config.arm, self.config.tasks)
        self._noted: set[str] = set()
        self.states = [_Worker() for _ in range(self.workers)]
        # Against a clock that somebody sets while it runs.
        self._clock_offset = time.time() - time.monotonic()
        self.outlook = Outlook(self.pace, self.least)

    def now(self) -> float:
        return self._clock_offset + time.monotonic()

    def take(self, row: SolvedTask) -> None:
        """Counts a row of an earlier start."""
        self.rows.append(row)
        if row.task in self.expected:
            self.scheduler.remember(row.task, row.attempt, row.ok or bool(row.votes), self._confidence(row.task))

    def run(self) -> bool:
        """Works until nothing is left to do or the time is over; whether nothing is left.

        Raises UserError where no worker can load the model and nothing is answered yet, or a row cannot be written.
        """
        with self.pool as pool:
            if self.scheduler.anything_left(self.now()):
                for worker in range(self.workers):
                    self._start(worker)
            while self._goes_on():
                for worker, event in pool.events(_POLL_S):
                    self._hear(worker, event)
                self._assign()
                self._watch()
                self.observer.progress(self.progress())
            # Answers that were given just before the end are on their way.
            heard_until = self.end + min(_HEARD_S, self.reserve_s / 2)
            while any(state.at for state in self.states) and self.now() < heard_until:
                for worker, event in pool.events(_POLL_S):
                    self._hear(worker, event)
            # Who is still at work keeps what it has answered.
            for worker, state in enumerate(self.states):
                if state.at:
                    pool.end(worker)
                    self._finish(worker, "timeout", "the run's time was over")
        return not self.scheduler.anything_left(self.now())

    def write(self) -> None:
        """Writes the submission of all that is answered. Raises UserError."""
        submission.write(self.config.out, self.config.tasks, solving.all_attempts(self.rows))

    def _goes_on(self) -> bool:
        now = self.now()
        if len(self.scheduler.gone) == self.workers:
            return False
        return now < self.end and (any(state.at for state in self.states) or self.scheduler.anything_left(now))

    def _start(self, worker: int) -> None:
        state = self.states[worker]
        state.loading, state.at, state.since = True, None, self.now()
        self.pool.start(worker)
        spec = replace(self.spec, device=self.pool.device(worker, self.spec.device))
        job = LoadJob(spec, tuple(self.config.share), self.config.arm, worker, self.pool.sharing)
        self.pool.send(worker, LOAD, to_stored(job))

    def _hear(self, worker: int, event: dict[str, Any] | Outcome | UserError) -> None:
        state = self.states[worker]
        if isinstance(event, UserError):
            # The model cannot be loaded by any worker: the user must act.
            self._lost(worker, event.args[0], by_all=True)
            return
        if isinstance(event, Outcome):
            if state.at:
                self.observer.note(f"worker {worker} died at {state.at.task}: {event.reason}; another one takes over")
                self._finish(worker, event.status, event.reason)
            elif state.loading:
                state.failed_loads += 1
            if self.now() >= self.end:
                return
            if state.failed_loads < _LOADS:
                self._start(worker)
                return
            self._lost(worker, f"worker {worker} cannot load the model: {event.reason}")
            return
        match event["event"]:
            case "place":
                state.place = event["place"]
            case "note":
                # Each worker says the same whenever it loads.
                if event["text"] not in self._noted:
                    self._noted.add(event["text"])
                    self.observer.note(event["text"])
            case "votes":
                state.heard = {name: value for name, value in event.items() if name != "event"}
            case "result" if state.loading:
                state.loading, state.failed_loads, state.load_s = False, 0, self.now() - state.since
            case "result":
                state.heard = event["result"]
                self._finish(worker, state.heard["status"], state.heard["reason"])

    def _lost(self, worker: int, text: str, by_all: bool = False) -> None:
        """A card that is gone: the others go on, and where there are none (or `by_all`) what is answered stays."""
        if self.states[worker].at:  # refused within a task
            self._finish(worker, "crashed", text)
        self.scheduler.gone.add(worker)
        if len(self.scheduler.gone) < self.workers and not by_all:
            self.observer.note(f"{text}; the others go on")
        elif any(any(row.votes) for row in self.rows):
            self.observer.note(f"{text}; what is answered is in {self.config.out}, and the same command goes on")
        else:
            raise UserError(text)

    def _assign(self) -> None:
        now, latest = self.now(), self.end - min(_ANSWERS_S, self.reserve_s / 2)
        for worker, state in enumerate(self.states):
            if state.loading or state.at or now >= latest:
                continue
            if assignment := self.scheduler.next(worker, now):
                assignment = replace(assignment, until=min(latest, assignment.until))
                state.at, state.since, state.heard = assignment, now, {}
                cap = assignment.until - now
                slow, parts = self.scheduler.slowness_of(worker), self.parts[assignment.task]
                # All views where their time is left, fewer where it is not; training has the rest.
                view_s = _SAFE * slow * parts.answer_s / self.spec.views
                views = max(1, min(self.spec.views, int(cap / view_s)))
                step_s = slow * parts.train_s / self.spec.steps
                answer_s = views * view_s
                score_s = min(answer_s, cap) * self.pace.score_share
                job = TaskJob(assignment.task, assignment.attempt, views, step_s, cap - answer_s, cap - score_s, cap)
                self.pool.send(worker, SOLVE, to_stored(job))

    def _watch(self) -> None:
        """Kills workers that go on after their time."""
        now = self.now()
        for worker, state in enumerate(self.states):
            if state.at and now > state.at.until + max(_LEAST_GRACE_S, state.load_s):
                self.observer.note(f"{state.at.task} went on after its {state.at.until - state.since:.0f} s: stopped")
                self.pool.end(worker)
                self._finish(worker, "timeout", "went on after its time")
                self._start(worker)

    def _finish(self, worker: int, status: str, reason: str) -> None:
        """Stores what `worker` has made of its task, and tells the scheduler."""
        state, now = self.states[worker], self.now()
        assignment, heard = state.at, {**state.heard, "status": status, "reason": reason}
        assert assignment
        if status not in ("ok", "oom") and not heard.get("train_s"):
            heard["train_s"] = now - state.since
        # Fewer views were asked where there was no time for more.
        views = heard.get("views") or self.spec.views
        nominal = self.pace.nominal(self.tokens[assignment.task], self.spec.steps, views)
        fields = {
            **heard,
            "key": solving.key_of(self.key, assignment.task, assignment.attempt),
            "run": self.key,
            "setting": self.setting,
            "work": self.work,
            "device_name": self.spec.device_name,
            "task": assignment.task,
            "attempt": assignment.attempt,
            "started": datetime.fromtimestamp(state.since, UTC).isoformat(timespec="milliseconds"),
            "device": f"{self.spec.device} {worker}",
            "nominal_train_s": nominal.train_s,
            "nominal_answer_s": nominal.answer_s,
            "expected_s": self.parts[assignment.task].seconds * self.scheduler.slowness_of(worker),
            "cap_s": assignment.until - state.since,
            "load_s": state.load_s,
            "cut": heard.get("cut", False) or status == "timeout",
            "rule": solving.SOLVING_RULE,
            "place": to_stored(state.place),
        }
        row = self._judged(solving.from_json(fields))
        self.store.add(row)
        self.rows.append(row)
        self.write()
        state.at = None
        # A task without an answer after its time was not worth more of it; one whose worker died is tried once more.
        if row.ok or row.votes or status == "timeout":
            self.scheduler.done(worker, now - state.since, self._confidence(row.task), self._work_s(row))
        else:
            self.scheduler.failed(worker)

    def _judged(self, row: SolvedTask) -> SolvedTask:
        """The row with what is right in it, where that is known."""
        truths = self.config.solutions.get(row.task)
        if not truths or not row.votes:
            return row
        grids = [set(map(from_rows, texts)) for texts in solving.attempts_of([row])]
        return replace(row, right=tuple(truth in own for truth, own in zip(truths, grids, strict=False)))

    def _work_s(self, row: SolvedTask) -> float:
        """What was done for `row` was expected to take so long; of answers that were cut all count."""
        parts, spec = self.parts[row.task], self.spec
        return parts.train_s * row.steps / spec.steps + parts.answer_s * (row.views or spec.views) / spec.views

    def _confidence(self, task: str) -> float:
        return solving.confidence(row for row in self.rows if row.task == task)

    def progress(self) -> Progress:
        now, slowness = self.now(), [self.scheduler.slowness_of(worker) for worker in range(self.workers)]
        # What waits, and of first attempts at work what is left.
        left = {task: self.expected[task] for task in self.scheduler.waiting}
        for state in self.states:
            if state.at and state.at.attempt == 1:
                left[state.at.task] = max(0.01, self.expected[state.at.task] - (now - state.since))
        expected_s, in_time = self.outlook.at(now, left, self.end, slowness)
        return Progress(
            answered=len(self.scheduler.confidence),
            tasks=len(self.expected),
            again=sum(row.attempt > 1 for row in self.rows),
            busy=sum(state.at is not None for state in self.states),
            workers=self.workers,
            seconds=tuple(row.seconds for row in self.rows[-24:]),
            left_s=max(0.0, self.end - now),
            expected_s=expected_s,
            in_time=in_time,
        )
