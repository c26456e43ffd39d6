import pytest
import torch

from inference.engine.devices import failures


def caused_by(cause):
    error = ValueError("the version was not loaded")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"
        ),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 400 bytes"
        ),
    ],
)
def test_less_work_at_once_helps_against_want_of_memory(error):
    assert failures.is_out_of_memory(error)
    assert not failures.is_sticky(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        caused_by(RuntimeError("CUDA error: device-side assert triggered")),
    ],
)
def test_an_error_of_the_device_itself_is_sticky(error):
    assert failures.is_sticky(error)
    assert not failures.is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError("out of memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasGemm"),
    ],
)
def test_a_model_that_fails_says_nothing_about_the_device(error):
    assert not failures.is_sticky(error)
    assert not failures.is_out_of_memory(error)


def test_errors_that_cause_each_other_are_read_once():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first

    assert not failures.is_sticky(first)
