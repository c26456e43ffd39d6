"""What glibc's allocator keeps for the next request.

By default it gives memory at the top of the heap back as soon as 128 KB of it are free,
and so takes it from the kernel again, page by page, for each body of that size: 8 % of
what a request of 100 rows costs.
"""

import contextlib
import ctypes

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

_KEPT_FREE_BYTES = 32 * 1024 * 1024
_STEP_BYTES = 256 * 1024
# Larger blocks are the kernel's again as soon as they are freed.
_MAX_HEAP_BLOCK_BYTES = 8 * 1024 * 1024


def keep_freed_memory() -> None:
    """Keep up to 32 MB at hand; does nothing where the C library is another one."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _MAX_HEAP_BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)
        mallopt(_M_TOP_PAD, _STEP_BYTES)
