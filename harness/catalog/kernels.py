"""The parts of a step that several libraries have kernels for, and the names that choose among them.

Every kernel of a part computes the same; which is fastest the device tells (harness.train.ops.autoselect measures).
"""

from harness.errors import UserError, unknown

AUTO = "auto"  # measured on the device, once
PLAIN = "plain"  # the first of each part: what runs everywhere
ATTENTION, POINTWISE = "attention", "pointwise"
# By kind of device; the first needs nothing but torch.
KERNELS = {
    "cpu": {ATTENTION: ("blocks", "sdpa"), POINTWISE: ("plain", "compiled")},
    "cuda": {ATTENTION: ("sdpa", "flash", "efficient", "cudnn"), POINTWISE: ("plain", "compiled", "liger")},
}


def asked(text: str) -> str:
    """`text` ("auto", "plain", or "attention=flash pointwise=liger", a part alone too) in one way of writing it.

    Raises UserError for what is no kernel of any device.
    """
    if text in (AUTO, PLAIN):
        return text
    return " ".join(f"{part}={name}" for part, name in sorted(parts(text).items()))


def parts(text: str) -> dict[str, str]:
    """The kernel that `text` names for each part it speaks of; none for "auto". Raises UserError as `asked` does."""
    if text in (AUTO, PLAIN):
        return {}
    found = {}
    for word in text.replace(",", " ").split():
        part, _, name = word.partition("=")
        allowed = dict.fromkeys(name for kind in KERNELS.values() for name in kind.get(part, ()))
        if not allowed:
            raise UserError(
                f"--kernels {word!r} names no part; write auto, plain, or as in 'attention=sdpa pointwise=compiled'"
            )
        if name not in allowed:
            raise unknown(f"kernel of {part}", name, list(allowed))
        if part in found:
            raise UserError(f"--kernels names {part} twice; give each part one kernel")
        found[part] = name
    if not found:
        raise UserError("--kernels is empty; write auto, plain, or as in 'attention=sdpa pointwise=compiled'")
    return found
