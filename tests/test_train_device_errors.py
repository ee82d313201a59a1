"""What the libraries say when memory runs out or a card is lost, word for word."""

import pytest
import torch

from harness.errors import UserError
from harness.measure import worker
from harness.records.cell import Cell, Recipe
from harness.records.stored import to_stored
from harness.train.device_errors import lost, ran_out

MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.74 GiB"),
    MemoryError(),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("Error out of memory at line 380 in file /src/csrc/pythonInterface.cpp"),  # bitsandbytes
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError(
        "NCCL error: ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'"
    ),
    torch.AcceleratorError("CUDA error: out of memory"),
    OSError(12, "Cannot allocate memory: out of memory"),
)
LOST = (
    RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ..."),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("Unable to determine the device handle for GPU 0000:02:00.0: GPU is lost. Reboot the system"),
    RuntimeError("NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus."),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    torch.AcceleratorError("CUDA error: the launch timed out and was terminated"),
    RuntimeError("CUDA error: an illegal instruction was encountered"),
    RuntimeError("CUDA error: misaligned address"),
    RuntimeError("CUDA error: invalid program counter"),
    RuntimeError("CUDA error: hardware stack error"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb, ...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("Triton Error [CUDA]: unspecified launch failure"),
    # Taken out of the machine, or its driver reset, between two cells.
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError("CUDA error: no CUDA-capable device is detected"),
    RuntimeError("CUDA error: invalid device ordinal"),
    RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"),
    RuntimeError("Failed to initialize NVML: Driver/library version mismatch"),
)


@pytest.mark.parametrize("problem", MEMORY, ids=str)
def test_memory_that_ran_out(problem):
    assert ran_out(problem) and lost(problem) is None


@pytest.mark.parametrize("problem", LOST, ids=str)
def test_a_lost_card(problem):
    assert not ran_out(problem)
    assert "--retry" in lost(problem) and "\n" not in lost(problem)


def test_a_card_that_another_process_has():
    for words in ("all CUDA-capable devices are busy", "CUDA-capable device(s) is/are busy"):
        assert "another process holds" in lost(RuntimeError(f"CUDA error: {words} or unavailable"))
    sentence = lost(RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"))
    assert sentence.startswith("another process holds this card") and "nvidia-smi" in sentence


def test_what_wraps_such_an_error():
    """Libraries raise their own error from it, or while they handle it."""
    try:
        try:
            raise MEMORY[2]
        except RuntimeError:
            raise RuntimeError("backend compiler failed") from None
    except RuntimeError as problem:
        assert ran_out(problem)


@pytest.mark.parametrize(
    "problem",
    [
        RuntimeError("maxid of 7 is out of range"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("the text says: out of memory"),
        UserError("the text says: out of memory"),
        RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'"),
    ],
    ids=str,
)
def test_other_errors_are_neither(problem):
    assert not ran_out(problem) and lost(problem) is None


@pytest.mark.parametrize(
    ("problem", "status"),
    [*((p, "oom") for p in MEMORY), *((p, "crashed") for p in LOST)],
    ids=lambda value: str(value),
)
def test_a_worker_ends_with_a_row(tiny_spec, monkeypatch, problem, status):
    def load(*_):
        raise problem

    monkeypatch.setattr(worker.models, "load", load)
    cell = Cell(tiny_spec, "fp32", "fp32", 24, Recipe(sequences_per_step=2), "random", "cpu", "a CPU")
    payload = {"cell": to_stored(cell), "sample_seconds": 1.0, "seed": 0}
    row = worker.measure_cell(payload, lambda *_, **__: None)
    assert row["status"] == status and row["reason"] and "\n" not in row["reason"]
    assert ("the weights alone do not fit: try" in row["reason"]) == (status == "oom")


def test_a_library_without_kernels_for_the_card_is_unsupported(tiny_spec, monkeypatch):
    """bitsandbytes is built for other cards than torch is."""

    def load(*_):
        raise RuntimeError("Error no kernel image is available for execution on the device at line 90 in file ops.cu")

    monkeypatch.setattr(worker.models, "load", load)
    cell = Cell(tiny_spec, "fp32", "fp32", 24, Recipe(sequences_per_step=2), "random", "cpu", "a CPU")
    row = worker.measure_cell({"cell": to_stored(cell), "sample_seconds": 1.0, "seed": 0}, lambda *_, **__: None)
    assert row["status"] == "unsupported" and "built without kernels for this card" in row["reason"]


def test_a_card_that_answers_nothing_more_is_not_asked_who_fills_it(monkeypatch):
    def fail(device):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    assert worker._crowded(torch.device("cuda:0")) == ""


def test_a_card_that_others_fill(monkeypatch):
    """Of 15 GiB 3 are free and 4 are this process's own: others hold 8."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 << 30, 15 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4 << 30)
    assert "other processes hold 8.0 GiB of this card" in worker._crowded(torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 11 << 30)
    assert worker._crowded(torch.device("cuda:0")) == worker._crowded(torch.device("cpu")) == ""


def test_an_error_of_our_own_is_not_hidden(tiny_spec, monkeypatch):
    monkeypatch.setattr(worker.models, "load", lambda *_: 1 / 0)
    cell = Cell(tiny_spec, "fp32", "fp32", 24, Recipe(sequences_per_step=2), "random", "cpu", "a CPU")
    with pytest.raises(ZeroDivisionError):
        worker.measure_cell({"cell": to_stored(cell), "sample_seconds": 1.0, "seed": 0}, lambda *_, **__: None)
