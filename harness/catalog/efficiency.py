"""What cards reach of their sheets before anything was measured on them, by generation and kind of operation.

The shares of large products are fitted on measured latencies of products (bench.fit_tiles), all other constants on
published training steps (bench.fit_priors), each card left out in turn to know the error. Names of kinds are
harness.predict.roofline's.
"""

from harness.catalog.accelerator import CPU, Accelerator

# Of the peak, by large products in 16 bits that are timed alone: by generation (compute capability); and what is left
# of that in steps, which last and make the card hot.
_SHARE = {"8.0": 0.88, "9.0": 0.84, "10.0": 0.79, "12.0": 0.88}
_TYPICAL_SHARE, _SUSTAINED = 0.87, 0.88
# Cards that halve the rate when they accumulate in fp32: their units are fed with ease, and stay cool.
_HALVED = ("rtx-3090", "a10g", "rtx-4090", "rtx-5090")
_HALVED_SHARE = 0.97
# TFLOP per joule, sustained: a card whose peak would take more power than it has stays below it.
_PER_JOULE = {"7.0": 0.36, "7.5": 0.36, "8.0": 0.75, "8.6": 0.42, "8.9": 0.73, "9.0": 1.25, "10.0": 1.8, "12.0": 0.8}
# By `python -m bench.fit_priors`: how much slower a kind is than nominal; products beyond the share above. The three
# constants that no table has (what lasts, the halved rate, and Turing's joules) were chosen with those steps in view.
SLOWDOWN = {
    "product": 1.01,
    "thin": 3.0,
    "product4bit": 2.0,
    "attention": 2.1,
    "memory": 1.17,
    "dequantize": 2.13,
    "launch": 1.0,
    "host": 2.97,
}
_CPU_SLOWDOWN = {
    "product": 1.1,
    "thin": 2.0,
    "product4bit": 1.1,
    "attention": 2.0,
    "memory": 1.5,
    "dequantize": 4.0,
    "launch": 1.0,
    "host": 1.0,
}
# Standard deviations of the logarithm of seconds, and of peak memory, where nothing was measured on the card: so that
# 95 % intervals hold 90 to 99 % of the published steps with their card left out. By sheet alone, of a card whose
# generation none of the fitted cards has, they are wider.
FITTED_LOG_SIGMA, SPECIFICATION_LOG_SIGMA = 0.1, 0.3
HOST_LOG_SIGMA = 0.2  # added where the interpreter, which no sheet has, is what is waited for
MEMORY_LOG_SIGMA = 0.14
_FITTED_GENERATIONS = ("7.5", "8.0", "8.6", "8.9", "9.0")  # of the cards of bench.fit_priors


def is_fitted(accelerator: Accelerator) -> bool:
    """Whether cards of the accelerator's generation, with its figures known, are among those of the fits."""
    return accelerator.capability in _FITTED_GENERATIONS and accelerator.power_w is not None


def product_share(accelerator: Accelerator) -> float:
    """Of its 16-bit peak, what large products reach on a card in a step."""
    share = _SUSTAINED * _SHARE.get(accelerator.capability or "", _TYPICAL_SHARE)
    if accelerator.name in _HALVED:
        share = _HALVED_SHARE
    peak = max((accelerator.rates[dtype][0] for dtype in accelerator.native if dtype != "fp32"), default=0.0)
    per_joule = _PER_JOULE.get(accelerator.capability or "")
    if not accelerator.power_w or not per_joule or not peak:
        return share
    return min(share, per_joule * 1e12 * accelerator.power_w / peak)


def slowdowns(accelerator: Accelerator | None = None, kind: str = "cuda") -> dict[str, float]:
    """How much slower than nominal each kind of operation is expected to be on `accelerator`, or on any of `kind`."""
    if (accelerator.kind if accelerator else kind) == CPU:
        return dict(_CPU_SLOWDOWN)
    # A card's own probe has measured what its products reach.
    if accelerator and accelerator.origin:
        return SLOWDOWN | {"product": 1.1}
    share = product_share(accelerator) if accelerator else _SUSTAINED * _TYPICAL_SHARE
    return SLOWDOWN | {"product": SLOWDOWN["product"] / share}
