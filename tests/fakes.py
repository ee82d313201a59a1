"""Stand-ins for the survey and the worker, run as the sweep runs the real ones: JSON lines in, JSON lines out.

python -m tests.fakes survey FILE     answers from FILE: {"device": ..., "rates": ..., "work": ...}
python -m tests.fakes worker FILE     ends as FILE says for the job's precision and context, by default well; adds a
                                      line to FILE.log for every job, so that what was run can be counted
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

OK = {
    "event": "result",
    "status": "ok",
    "reason": "",
    "load_s": 1.0,
    "params": 1000,
    "trainable_params": 10,
    "warmup_micro_s": [1.0],
    "warmup_optimizer_s": [0.1],
    "micro_s": [1.0, 1.01, 0.99, 1.0, 1.02, 0.98],
    "optimizer_s": [0.1],
    "losses": [2.0, 1.9],
    "memory": {"after_load": {"resident": 1}, "first_step": {"resident": 2}, "steady": {"resident": 3}},
    "seed": 0,
}


def survey(world: dict) -> None:
    for line in sys.stdin:
        ask = json.loads(line)["ask"]
        print(json.dumps(world.get("trace", {"unsupported": "no trace"}) if ask == "trace" else world[ask]), flush=True)


def worker(world: dict, log: Path) -> None:
    job = json.loads(sys.stdin.readline())
    cell = job["cell"]
    name = f"{cell['model']['name']} {cell['precision']} {cell['context']}"
    with log.open("a") as f:
        f.write(name + "\n")
    how = world.get(name, "ok")
    print(json.dumps({"event": "phase", "phase": "load"}), flush=True)
    if how == "ok":
        time.sleep(world.get("seconds", 0))
        print(json.dumps(OK), flush=True)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "raise":
        raise RuntimeError("the kernel is broken")
    elif how == "hang":
        time.sleep(60)
    else:
        print(json.dumps({**OK, "status": how, "reason": f"it was {how}"}), flush=True)


if __name__ == "__main__":
    file = Path(sys.argv[2])
    said = json.loads(file.read_text())
    if sys.argv[1] == "survey":
        survey(said)
    else:
        worker(said, file.with_suffix(".log"))
