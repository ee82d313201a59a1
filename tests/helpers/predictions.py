"""Predictions for a card whose rates are round numbers."""

from dataclasses import replace

from harness.catalog import accelerators, precisions
from harness.catalog import models as catalog
from harness.predict import calibration, prediction
from harness.predict.roofline import GEMM, KINDS, Memory, Op, Trace
from harness.records.cell import Recipe

# A user's file of an accelerator that the table does not have.
OWN_ACCELERATOR = (
    "name: mine\nmemory: 24 GiB\nbandwidth: 936 GB/s\nfp32: 35.6 TFLOP/s\nfp16: 71 TFLOP/s\nbf16: emulated\n"
)
CARD = accelerators.Accelerator("card", 16 << 30, 100e9, {"fp16": (10e12, 5e12)}, ("fp16",), launch_s=1e-5)


def op(kind=GEMM, backward=False, flops=0.0, size=0.0, count=1, dtype="fp16"):
    return Op(kind, backward, dtype, flops, size, count)


def trace(*ops, tokens=1024, **memory):
    return Trace(ops, Memory(**memory), 1000, 10, 1, tokens)


def predicted(recipe=None, seconds=lambda n: n / 1024, card=CARD, context=1024, **memory):
    """A prediction of a device whose products take `seconds` a micro-step, at nominal speed."""
    spec = catalog.load().find("qwen2.5-0.5b")
    certain = replace(calibration.prior("cuda"), slowdown=dict.fromkeys(KINDS, 1.0), error=0.1, fragmentation=1.0,
                      points=9, seconds_low=0.1, seconds_high=10.0)  # fmt: skip
    by_length = {n: trace(op(flops=10e12 * seconds(n)), tokens=n, **memory) for n in prediction.contexts_for(context)}
    request = prediction.PredictRequest(spec=spec, precision=precisions.find("fp16"), recipe=recipe or Recipe(),
                                        context=context, accelerator=card, calibration=certain)  # fmt: skip
    return prediction.predict_cell(request, by_length)
