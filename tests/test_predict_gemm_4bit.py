"""Which products by 4-bit matrices run fused, held to bitsandbytes' own choice, and what that makes of a prediction."""

import ast
import functools
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from helpers.predictions import trace

from harness.catalog import accelerators
from harness.predict import calibration, gemm_4bit, roofline, tiles
from harness.predict.roofline import DEQUANTIZE, FUSED_4BIT, GEMM, Op

CARDS = [card for card in accelerators.ACCELERATORS.values() if card.capability]
# [outputs, inputs] of the matrices of shipped models, and of shapes at the borders of the choice.
SHAPES = [(64 * n, 64 * k) for n in (1, 2, 9, 12, 14, 24, 36, 48, 64, 76, 128, 172, 224, 296, 448)
          for k in (1, 5, 9, 11, 14, 16, 24, 36, 48, 64, 76, 128, 172, 192, 224)]  # fmt: skip
ROWS = (9, 10, 11, 12, 13, 16, 17, 23, 24, 32, 33, 48, 49, 64, 65, 96, 97, 128, 129, 192, 193, 256, 257, 320, 321,
        384, 385, 512, 513, 1536, 1537)  # fmt: skip


def installed():
    """bitsandbytes' own function, out of its file, with a card of the test's in place of the driver's."""
    spec = importlib.util.find_spec("bitsandbytes")
    path = Path(spec.origin).parent / "backends" / "cuda" / "ops.py"
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    names = ("_gemm_4bit_use_custom_cuda", "_GEMM_4BIT_CUSTOM_FLOOR_M")
    wanted = [node for node in tree.body if getattr(node, "name", "") == names[0]
              or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == names[1])]  # fmt: skip
    if len(wanted) < 2:
        pytest.skip("this bitsandbytes has no fused product that chooses so")
    world = {"torch": torch, "functools": functools}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), world)
    return world


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize(
    "capability", ["6.0", "7.0", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "11.0", "12.0", "12.1"]
)
def test_the_choice_is_bitsandbytes_own(capability, dtype):
    world = installed()
    major, minor = map(int, capability.split("."))
    of = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    for processors in (40, 58, 108, 132, 188):
        world["_gpu_dispatch_props"] = lambda index, p=processors: (p, major, minor)
        choose = world["_gemm_4bit_use_custom_cuda"].__wrapped__
        for n, k in SHAPES:
            most = gemm_4bit.most_fused_rows((major, minor), processors, dtype, n, k)
            for rows in ROWS[:-1]:  # the caller's own limit comes before
                assert (rows <= most) == choose(0, of, rows, n, k), (processors, n, k, rows)


def test_every_card_of_the_table_has_its_number_of_processors():
    assert [card.name for card in CARDS if card.name not in tiles._PROCESSORS] == []


def test_beyond_1536_rows_off_blocks_and_on_a_cpu_nothing_is_fused():
    a100 = accelerators.find("a100-80gb")
    assert gemm_4bit.is_fused(a100, "bf16", 1536, 1536, 576)  # smollm2-135m's gate
    assert not gemm_4bit.is_fused(a100, "bf16", 1537, 1536, 576)
    assert not gemm_4bit.is_fused(a100, "bf16", 64, 1536, 570)
    cpu = accelerators.cpu("a CPU", 1 << 30, {})
    assert not gemm_4bit.is_fused(cpu, "bf16", 9, 1536, 576)


def test_a_product_by_four_bits_is_one_operation_or_two_as_the_card_runs_it():
    """64 rows times [1536, 576], 884,736 values: 442,368 bytes packed, read by the fused kernel, which an L4 has for up
    to 320 rows of this shape. Else they are unpacked to 1,769,472 bytes, which the product reads."""
    values = 1536 * 576
    for rows, fused in ((64, True), (1024, False)):
        moved = 2 * rows * (1536 + 576)
        op = Op(FUSED_4BIT, False, "bf16", 2.0 * rows * values, moved + values // 2, 3, (rows, 1536, 576))
        ops = roofline.as_run([op], accelerators.find("l4"))
        if fused:
            assert ops == [op]
        else:
            assert [(o.kind, o.flops, o.bytes, o.count) for o in ops] == [
                (DEQUANTIZE, 0, values // 2 + 2 * values, 3), (GEMM, op.flops, moved + 2 * values, 3),
            ]  # fmt: skip
        nominal = roofline.nominal_seconds(trace(op), accelerators.find("l4"))
        assert (nominal[DEQUANTIZE] == 0) == fused


def test_kinds_of_an_earlier_calibration_are_completed(tmp_path):
    """One that was fitted before this kind was told apart has the prior's factor for it."""

    path = tmp_path / "c.json"
    calibration.save_calibration(calibration.prior("cuda"), path)
    raw = json.loads(path.read_text())
    raw["slowness"].pop(FUSED_4BIT)
    path.write_text(json.dumps(raw))
    assert calibration.load_calibration(path) == calibration.prior("cuda")
