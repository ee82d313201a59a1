"""Shares of the work: complete, disjoint, even, and as the schedulers number them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UserError
from harness.shard import Shard, parse


@given(st.integers(0, 200), st.integers(1, 30))
def test_shares_are_complete_disjoint_and_even(items, count):
    shares = [Shard(number, count).of(range(items)) for number in range(1, count + 1)]
    assert sorted(item for share in shares for item in share) == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_no_share_gets_the_longest_context_of_every_model():
    cells = [(model, context) for model in range(5) for context in range(5)]
    assert sorted(context for _, context in Shard(1, 5).of(cells)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, (3, 4)),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "4"}, (1, 4)),
        ({"SKYPILOT_JOB_RANK": "7", "SKYPILOT_NUM_JOBS": "8"}, (8, 8)),
        ({"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "2"}, (1, 2)),
        ({"JOB_COMPLETION_INDEX": "0"}, None),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "1"}, None),
        ({}, None),
    ],
)
def test_a_schedulers_variables_name_the_share(environment, shard):
    parsed = parse(None, environment)
    assert (parsed and (parsed.number, parsed.count)) == shard
    # What is asked for wins, and 1/1 is all.
    assert parse("1/1", environment) is None and parse("2/3", environment) == Shard(2, 3)


@pytest.mark.parametrize("text", ["3/2", "0/2", "1", "1/0", "a/b", "-1/2", "1/2/3", "", "1/9999999"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UserError, match="--shard must be i/n"):
        parse(text, {})


@pytest.mark.parametrize(("number", "first", "count"), [(9, 1, 4), (3, 3, 1), (4, 3, 2)])
def test_an_array_with_gaps_and_a_part_of_one_are_refused(number, first, count):
    """`--array=3` after a job of 1-8 was lost is no array of one share."""
    array = {"ID": number, "MIN": first, "COUNT": count}
    variables = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()}
    with pytest.raises(UserError, match="an array with gaps, or a part of one; name the share with --shard i/n"):
        parse(None, variables)
    assert parse("3/8", variables) == Shard(3, 8)
