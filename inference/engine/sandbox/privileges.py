"""Give up privileges, and the ways to gain them."""

import contextlib
import os
import struct

from inference.installation import system_calls

_SET_NO_NEW_PRIVILEGES = 38
_DROP_FROM_BOUND = 24
_AMBIENT = 47
_CLEAR_AMBIENT = 4
_CAPABILITIES_V3 = 0x2008_0522

# Everything else goes, because much of it passes Landlock by: with CAP_PERFMON, for
# example, root reads the environment of any process.
#
# Folders of the installation may belong to another user than root, as in containers.
# Landlock still decides which.
_CAP_DAC_OVERRIDE = 1


def give_up() -> None:
    """Drop what root may, for this process and all that it starts; raises OSError."""
    system_calls.prctl(_SET_NO_NEW_PRIVILEGES, 1)
    with contextlib.suppress(OSError):  # Linux before 4.3 has no such set
        system_calls.prctl(_AMBIENT, _CLEAR_AMBIENT)
    kept = 1 << _CAP_DAC_OVERRIDE if os.geteuid() == 0 else 0
    for capability in range(64):
        if not kept >> capability & 1:
            # Fails for unknown ones, and for all if there are no privileges to drop.
            with contextlib.suppress(OSError):
                system_calls.prctl(_DROP_FROM_BOUND, capability)
    header = struct.pack("=Ii", _CAPABILITIES_V3, 0)
    try:
        # Twice effective, permitted, inheritable: of 32 capabilities each.
        system_calls.set_capabilities(header, struct.pack("=6I", kept, kept, *[0] * 4))
    except PermissionError:
        # Root of a container may lack what we would keep.
        system_calls.set_capabilities(header, bytes(24))
