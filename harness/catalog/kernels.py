"""The parts of a step that several libraries have kernels for, and the names that choose among them.

Every kernel of a part computes the same; which is fastest the device tells (harness.train.ops.autoselect measures).
"""

from harness.errors import UserError, unknown
from harness.text import quoted

AUTO = "auto"  # measured on the device, once
PLAIN = "plain"  # the first of each part: what runs everywhere
ATTENTION, POINTWISE = "attention", "pointwise"
# By kind of device; the first needs nothing but torch.
KERNELS: dict[str, dict[str, tuple[str, ...]]] = {
    "cpu": {ATTENTION: ("blocks", "sdpa"), POINTWISE: ("plain", "compiled")},
    "cuda": {ATTENTION: ("sdpa", "flash", "efficient", "cudnn"), POINTWISE: ("plain", "fused", "compiled", "liger")},
}


def normalize(text: str) -> str:
    """`text` ("auto", "plain", or kernels by part, as in "pointwise=liger,attention=flash") as recipes store it.

    The parts are sorted, with one space between. Raises UserError as `parse` does.
    """
    if text in (AUTO, PLAIN):
        return text
    return " ".join(f"{part}={name}" for part, name in sorted(parse(text).items()))


def parse(text: str) -> dict[str, str]:
    """{part: kernel} of what `text` names; a part may be left out, and "auto" and "plain" name none.

    Raises UserError for an empty text, a part that is unknown or named twice, and a kernel that no device has.
    """
    if text in (AUTO, PLAIN):
        return {}
    chosen: dict[str, str] = {}
    for word in text.replace(",", " ").split():
        # "attention=flash": the part must exist, and the kernel on some device.
        part, _, name = word.partition("=")
        allowed = dict.fromkeys(name for kind in KERNELS.values() for name in kind.get(part, ()))
        if not allowed:
            raise UserError(
                f"--kernels {quoted(word)} names no part; "
                "write auto, plain, or as in 'attention=sdpa pointwise=compiled'"
            )
        if name not in allowed:
            raise unknown(f"kernel of {part}", name, list(allowed))
        if part in chosen:
            raise UserError(f"--kernels names {part} twice; give each part one kernel")
        chosen[part] = name
    if not chosen:
        raise UserError("--kernels is empty; write auto, plain, or as in 'attention=sdpa pointwise=compiled'")
    return chosen
