"""Recognise failures of a device from an exception's name and text, without torch.

A failure is *sticky* if all later work on the device fails too: CUDA keeps such an
error until the process ends.
"""

_OUT_OF_MEMORY = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
)
# Libraries on top of CUDA report a failed kernel in their own words.
_STICKY = ("CUDA error", "CUBLAS_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_EXECUTION")
# "CUDA error: CUBLAS_STATUS_…" also reports calls that were only wrong.
_PASSING = ("_STATUS_INVALID_VALUE", "_STATUS_NOT_SUPPORTED", "_STATUS_BAD_PARAM")


def said(error: BaseException) -> str:
    """Return an exception's text; a model's own class may fail to give one."""
    try:
        return str(error)
    except Exception:
        return ""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether memory was short, so that a smaller batch might fit."""
    if error is None:
        return False
    if isinstance(error, MemoryError) or _name(error) == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        words in said(error) for words in _OUT_OF_MEMORY
    )


def is_sticky(error: BaseException | None) -> bool:
    """Return whether this error or one of its causes is a sticky device failure."""
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
    text = said(error)
    return any(words in text for words in _STICKY) and not any(
        words in text for words in _PASSING
    )


def _name(error: BaseException) -> str:
    return type(error).__name__
