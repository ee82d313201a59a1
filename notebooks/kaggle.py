# %% [markdown]
# # Does it fit? A small LLM, fine-tuned at test time, on this machine
#
# Ten steps that extrapolate to 27 hours are found out too late when a submission has 12. This notebook measures memory
# and time of your model **on the cards of this session**, says in one sentence whether it fits the budget, and then
# fine-tunes on every task, answers it and writes `submission.json`.
#
# 1. Attach the competition's data, the weights of a model, and the folder of wheels that `make wheels` makes.
# 2. Change the settings in the next cell, if you like. Without any change everything is found by itself.
# 3. Run all. The verdict is there after some minutes.

# %% settings
MODELS = []  # names or folders; none: the weights that are attached, else arc-tiny, which comes along
TASKS = None  # a file of challenges; None: the competition's
BUDGET_HOURS = 11.5  # of the scored run, for all of it; Kaggle stops at 12
REHEARSAL_HOURS = 0.05  # for solving, whenever Kaggle does not score this run
CONTEXTS = None  # tokens, as in [1024, 4096]; None: models.yaml's
PRECISIONS = None  # as in ["native", "int4"]; None: models.yaml's
STEPS, VIEWS = None, None  # per task; None: as picked, else models.yaml's
KAGGLE_CARDS = "t4 l4"  # predicted for these, too
ACCURACY = False  # True: each model is fine-tuned for a short time too, up to half an hour
BENCH = {}  # further options of `bench`, as in {"sample_seconds": 10}
SOLVE = {}  # and of `solve`, as in {"decode": "dfs"}; {"fresh": True} begins again instead of going on
INPUT, WORKING = "/kaggle/input", "/kaggle/working"

# %% [markdown]
# ## What is here
#
# The harness is installed from the attached folder, without an index and without a change of torch. Each line says what
# was found, or what is done instead.

# %% install

# %%
import time

import harness
from harness import kaggle

started = time.time()
here = kaggle.look(TASKS, MODELS, INPUT, WORKING)
print(here)

# %% [markdown]
# ## Measure
#
# Every cell (a model at a precision and a context) is predicted, then loaded and run for up to a minute. What is
# hopeless is not started.

# %%
options = {"contexts": CONTEXTS, "precisions": PRECISIONS, "budget_hours": BUDGET_HOURS}
record = harness.bench(*here.models, accuracy=ACCURACY, results=here.results, **(options | BENCH))

# %% [markdown]
# ## The verdict

# %%
print(record.verdict)

# %% [markdown]
# **Memory and time, predicted and then measured here.** One row per cell. `run_hours` are of the whole run: load, 1000
# steps and all answers, with a 95 % interval; `peak` is all that the process held on the card, `margin` what was left.

# %%
memory = ["predicted_peak_gib", "peak_gib", "margin_gib"]
seconds = ["predicted_micro_step_s", "micro_step_median_s"]
hours = ["run_hours_low", "run_hours_mid", "run_hours_high"]
record.frame[["model", "precision", "context", *memory, *seconds, *hours, "verdict", "reason"]].round(3)

# %%
figure = record.plot()

# %% [markdown]
# **Predicted for Kaggle's cards**, one of each; nothing of this was measured.

# %%
hours = ["hours_low", "hours_mid", "hours_high"]
try:
    predicted = harness.predict(*here.models, gpu=KAGGLE_CARDS, **options)
except harness.UserError as problem:
    print(f"Not predicted: {problem}")
else:
    print(predicted.advice)
    columns = ["model", "card", "precision", "context", "peak_gib", "card_gib", *hours, "verdict"]
    display(predicted.frame[columns].round(2))

# %% [markdown]
# ## Solve
#
# Each task has an adapter of its own, trained on the task's demonstrations; the longest tasks come first, on all cards.
# The time left is shared out, and `submission.json` is valid after every task. Stopped and run again, it goes on.

# %%
common = {"tasks": str(here.tasks), "out": here.submission, "results": here.results}
common |= {name: number for name, number in (("steps", STEPS), ("views", VIEWS)) if number is not None}
# What was picked; where that cannot answer (it has no weights, say), the model that comes along.
for chosen in (record.pick, {"model": kaggle.STAND_IN_MODEL}):
    left = BUDGET_HOURS - (time.time() - started) / 3600 if here.scored else REHEARSAL_HOURS
    try:
        solved = harness.solve(**(chosen | common | {"budget_hours": left} | SOLVE))
    except harness.UserError as problem:
        print(f"{chosen.get('model')}: {problem}")
        if kaggle.answered(here):  # before that: another model would write over it
            break
    else:
        print(solved.summary)
        break

# %% [markdown]
# ## The submission

# %%
print(kaggle.check(here))
