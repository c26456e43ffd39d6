"""What an exception says about the device; by name and text, without torch.

An error of the device is *sticky* when all that follows on it would fail too: CUDA
keeps the first such error for the life of the process.
"""

_OUT_OF_MEMORY = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
)
# Libraries on top of CUDA report a kernel that failed in their own words.
_STICKY = ("CUDA error", "CUBLAS_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_EXECUTION")
# "CUDA error: CUBLAS_STATUS_…" also stands for calls that were merely wrong.
_PASSING = ("_STATUS_INVALID_VALUE", "_STATUS_NOT_SUPPORTED", "_STATUS_BAD_PARAM")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Tell whether less work at once might fit."""
    if error is None:
        return False
    if isinstance(error, MemoryError) or _name(error) == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in _OUT_OF_MEMORY
    )


def is_sticky(error: BaseException | None) -> bool:
    """Tell whether the device itself failed, here or in what caused this."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if _is_sticky(error):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _is_sticky(error: BaseException) -> bool:
    if is_out_of_memory(error):
        return False
    if _name(error) == "AcceleratorError":
        return True
    text = str(error)
    return any(words in text for words in _STICKY) and not any(
        words in text for words in _PASSING
    )


def _name(error: BaseException) -> str:
    return type(error).__name__
