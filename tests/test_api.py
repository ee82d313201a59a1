"""The verbs as functions: options by the names of the command line, and what is no option."""

import pytest

import harness


@pytest.mark.parametrize("gpu", ["t4, NVIDIA L4", ["t4", "NVIDIA L4"]])
def test_singular_and_plural_are_one_option_and_cards_may_be_a_list(gpu):
    frame = harness.predict("arc-tiny", precision=["fp16"], context=256, gpu=gpu).frame
    assert list(frame.card) == ["t4", "l4"] and set(frame.context) == {256} and set(frame.precision) == {"fp16"}


@pytest.mark.parametrize(
    "call",
    [
        lambda: harness.predict("arc-tiny", precison="fp16"),
        lambda: harness.compare("a", "b", tolerence=1),
        lambda: harness.bench("arc-tiny", contest=256),
        lambda: harness.import_log("log", modle="arc-tiny"),
        lambda: harness.load("folder", stepz=2),
    ],
)
def test_a_name_that_is_no_option_is_one_line_with_the_nearest(call):
    with pytest.raises(harness.UserError, match=r"unknown option '[a-z]+'; did you mean "):
        call()
