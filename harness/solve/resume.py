"""How a run begins: anew or where an earlier start ended, with its deadline, and whether it can answer anything."""

import math
import time
from collections.abc import Callable

from harness.errors import UserError
from harness.records import solving
from harness.records.store import Store
from harness.solve import state as states
from harness.solve.config import SolveConfig
from harness.solve.pace import Pace
from harness.solve.task_queue import Queue

# Kept free at the end: for a process that must be killed, and for the last file.
_RESERVE_SHARE, _LEAST_RESERVE_S, _MOST_RESERVE_S = 0.02, 3.0, 60.0


def must_be_possible(queue: Queue, pace: Pace, going_on: bool) -> None:
    """Raises UserError where no task can be answered at all."""
    tasks, context = len(queue.tokens), queue.spec.context
    if not queue.least:
        raise UserError(f"none of {tasks} tasks fits {context} tokens; ask for a longer --context")
    # By the low end of what is foreseen, so that nothing is refused that may do.
    least_s = (pace.load_s + min(queue.least.values())) * math.exp(-1.96 * pace.common_sigma)
    if (left_s := queue.end - time.time()) < least_s:
        remedy = "--fresh starts anew" if going_on else "give a longer --budget-hours, or a later --deadline"
        raise UserError(
            f"{max(0.0, left_s):.0f} s are too short for any task: loading and the shortest answer take "
            f"{least_s:.0f} s at least; {remedy}"
        )


def resumed(
    config: SolveConfig, key: str, store: Store, budget_end: float, note: Callable[[str], None]
) -> tuple[states.RunState, list[solving.SolvedTask]]:
    """The state of this run and the rows that it has: those of an earlier start, if there was one. A new state is
    not on disk yet: a run that is refused may come again with another deadline."""
    now, name = time.time(), states.name_of(key, config.shard)
    state = None if config.tune.fresh else states.load(store.folder, name)
    if state is None:
        if config.end and config.end <= now:
            raise UserError("the deadline is over already; give a later --deadline, or --budget-hours")
        return states.RunState(name, now, config.end or budget_end), []
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(state.began))
    own = {task.id for task in config.share}
    rows = [row for row in store.rows().values() if row.run == key and row.task in own and row.started >= began]
    until = time.strftime("%H:%M", time.localtime(state.end))
    if state.finished:
        note(f"from the record: {len(rows)} rows; --fresh runs it again")
    elif now >= state.end - reserve_s(state):
        note(
            f"from the record: {len(rows)} rows, for the first start's deadline, {until}, is over; --fresh starts anew"
        )
    else:
        note(f"going on after {len(rows)} rows; the first start's deadline stays: {until}; --fresh starts anew")
    return state, rows


def reserve_s(state: states.RunState) -> float:
    """Seconds before the deadline in which nothing is computed any more."""
    return min(_MOST_RESERVE_S, max(_LEAST_RESERVE_S, _RESERVE_SHARE * (state.end - state.began)))
