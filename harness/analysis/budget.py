"""Whether hours fit the budget: the one rule of every table."""

# The part of the budget that hours may take. Where they are of training alone the answers need room: published runs
# spent another 45 to 75 % of their training time on inference out of the same hours.
TRAINING_SHARE, WHOLE_SHARE = 0.8, 1.0


def fits(hours_high: float, budget_hours: float, share: float) -> bool:
    """Whether `hours_high`, the high end of a 95 % interval, is within `share` (0 to 1) of the budget."""
    return hours_high <= share * budget_hours
