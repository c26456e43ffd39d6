"""Memory that was freed is used again, not asked of the kernel once more."""

import platform
import subprocess
import sys

import pytest

# Makes and frees a body a hundred times, and counts the pages the kernel had to give.
SCRIPT = """
import resource
import sys
from inference.installation import allocator

if sys.argv[1] == "kept":
    allocator.keep_freed_memory()
piece = b"x" * 60_000

def body():
    return b"".join([piece, b"rest"])

for _ in range(10):
    body()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    many = [body() for _ in range(20)]
    del many
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_bodies_do_not_fault_their_pages_in_again():
    kept, given_back = page_faults("kept"), page_faults("given back")

    assert given_back > 10_000
    assert kept < 2000
