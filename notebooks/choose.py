# %% [markdown]
# # Which model, and which card? Asked on a laptop
#
# Nothing here needs a card, weights or the internet. Memory and hours are **predicted** for cards that are not at hand,
# by counting the operations of a real training step and a calibration of each card; intervals say how wrong that may be
# (a factor of two and more for cards that nobody has measured yet).
#
# Change the settings, run all, read the last sentence.

# %% settings
MODELS = ["qwen-0.5b", "qwen2.5-1.5b", "phi-3-mini"]
CARDS = "t4 l4 3090 h100"  # python -m harness predict --help says which there are
PRECISIONS = ["native", "int4"]
CONTEXTS = [1024, 4096]
BUDGET_HOURS = 12
INPUT = "/kaggle/input"  # where wheels are looked for, if the harness is not installed
RECORD = None  # a summary.csv of your own; None: the one that comes with the project

# %% install

# %% [markdown]
# ## Predicted
#
# `hours` are of the whole run: load, 1000 steps over ARC's lengths and the answers of 400 tasks, on one card, with a
# 95 % interval. `fits` needs its high end within the budget and the memory surely within the card's.

# %%
import harness

predicted = harness.predict(*MODELS, gpu=CARDS, precisions=PRECISIONS, contexts=CONTEXTS, budget_hours=BUDGET_HOURS)
table = predicted.frame
table[
    ["model", "card", "precision", "context", "peak_gib", "card_gib", "hours_low", "hours_mid", "hours_high", "verdict"]
].round(2)

# %% [markdown]
# **Hours against memory.** A dot is a cell, its bar the 95 % interval; what lies below the line is done in
# the budget.

# %%
figure = predicted.plot()

# %% [markdown]
# How many of the settings fit each card:

# %%
table.pivot_table(index="card", columns="verdict", values="model", aggfunc="count", fill_value=0)

# %% [markdown]
# ## Measured
#
# Every bench leaves a `summary.csv` with one row per cell. This one is of qwen2.5-0.5b on two cores of a CPU; give
# `RECORD` the path of yours.

# %%
import pandas

places = [folder / "results/reference/make-bench-qwen-0.5b/summary.csv" for folder in (Path.cwd(), *Path.cwd().parents)]
path = Path(RECORD) if RECORD else next((place for place in places if place.is_file()), None)
if path is None:
    print("The record that comes with a checkout is not here; RECORD names one of yours.")
else:
    measured = pandas.read_csv(path)
    columns = [
        "precision",
        "context",
        "steps_per_minute",
        "peak_gib",
        "hours_low",
        "hours_mid",
        "hours_high",
        "verdict",
    ]
    display(measured.loc[measured["status"] == "ok", ["model", "device", *columns]].round(2))

# %% [markdown]
# ## What to rent

# %%
print(predicted.advice)
