"""Every precision's layers: with values, without storage, and as transformers is told to load them."""

from dataclasses import replace

import bitsandbytes as bnb
import pytest
import torch

from harness.catalog import precisions
from harness.catalog.precisions import PRECISIONS, Precision, Quantization
from harness.errors import Unsupported
from harness.records.stored import from_stored, to_stored
from harness.train import quantize

CPU, META = torch.device("cpu"), torch.device("meta")
QUANTIZED = [name for name, precision in PRECISIONS.items() if precision.quantized]
NF4 = precisions.find("int4").quantization


def values(rows=96, columns=640, device=CPU):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).to(device, torch.bfloat16)


def tensors(weight):
    """(shape, dtype) of everything that a quantised matrix holds."""
    held = {"data": weight.data}
    if (state := getattr(weight, "quant_state", None)) is not None:
        held |= {name: getattr(state, name) for name in ("absmax", "code", "offset")}
        if state.state2 is not None:
            held |= {f"second {name}": getattr(state.state2, name) for name in ("absmax", "code")}
    else:
        held |= {"CB": weight.CB, "SCB": weight.SCB}
    return {name: (tuple(t.shape), t.dtype) for name, t in held.items() if t is not None}


def test_what_is_quantised():
    assert QUANTIZED == ["int8", "int4"]


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_quantised_precision_has_a_layer_and_a_config(name):
    """The layer built here is the class that transformers builds from the config, with the same settings."""
    quantization = precisions.find(name).quantization
    with META:
        linear = torch.nn.Linear(640, 96, dtype=torch.bfloat16)
    layer = quantize.linear_layer(linear, quantization, CPU)
    config = quantize.bnb_config(quantization, torch.bfloat16)
    assert (layer.in_features, layer.out_features, layer.bias is not None) == (640, 96, True)
    assert config.load_in_4bit == isinstance(layer, bnb.nn.Linear4bit)
    assert config.load_in_8bit == isinstance(layer, bnb.nn.Linear8bitLt)
    if config.load_in_4bit:
        assert layer.compute_dtype == config.bnb_4bit_compute_dtype == torch.bfloat16
        assert layer.weight.quant_type == config.bnb_4bit_quant_type
        assert layer.weight.compress_statistics == config.bnb_4bit_use_double_quant
    else:
        assert layer.state.threshold == config.llm_int8_threshold == 6.0


@pytest.mark.parametrize(
    "quantization",
    [
        *(precisions.find(name).quantization for name in QUANTIZED),
        replace(NF4, double=False),
        replace(NF4, block_size=128),
    ],
    ids=str,
)
def test_without_storage_every_tensor_has_the_shape_and_dtype_of_the_real_one(quantization):
    real = quantize.quantized_weight(values(), quantization)
    meta = quantize.quantized_weight(values(device=META), quantization)
    assert type(real) is type(meta) and meta.is_meta
    assert tensors(real) == tensors(meta)
    if quantization.kind == precisions.NF4:
        assert real.quant_state.blocksize == meta.quant_state.blocksize == quantization.block_size
        assert real.quant_state.nested == meta.quant_state.nested == quantization.double
        if quantization.double:
            assert real.quant_state.state2.blocksize == meta.quant_state.state2.blocksize


def test_int4_has_the_bits_that_its_precision_says():
    """Data, scales of blocks and scales of those; code and offset are the same for any size and left out."""
    weight = quantize.quantized_weight(values(1024, 1024), NF4)
    state = weight.quant_state
    held = sum(t.numel() * t.element_size() for t in (weight.data, state.absmax, state.state2.absmax))
    assert 8 * held / 1024**2 == pytest.approx(precisions.find("int4").weight_bits, abs=0.001)


def test_an_unknown_kind_is_refused_everywhere():
    odd = Quantization(kind="fp3")
    with pytest.raises(Unsupported, match="'fp3'; known: nf4, int8"):
        quantize.linear_layer(torch.nn.Linear(8, 8), odd, CPU)
    with pytest.raises(Unsupported, match="'fp3'"):
        quantize.quantized_weight(values(), odd)
    with pytest.raises(Unsupported, match="'fp3'"):
        quantize.bnb_config(odd, torch.float16)


def test_blocks_that_transformers_does_not_load_are_refused():
    with pytest.raises(Unsupported, match="64 values, not of 128"):
        quantize.bnb_config(replace(NF4, block_size=128), torch.float16)


@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=PRECISIONS)
def test_a_precision_is_stored_whole(precision):
    assert from_stored(to_stored(precision), Precision) == precision
