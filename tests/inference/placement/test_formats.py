"""Hosts and controllers of two versions read each other's files, or say why not."""

import msgspec
import pytest

from inference.placement import plan_file, report_file
from inference.placement.processes import EngineProcess, HostPlan, HostReport

PLAN = HostPlan(processes=(EngineProcess(name="cpu", device="cpu"),))
REPORT = HostReport(host="one", at=1.0)


def changed(value, **members):
    """Return what another version would write."""
    written = msgspec.json.decode(msgspec.json.encode(value)) | members
    return msgspec.json.encode({k: v for k, v in written.items() if v is not None})


@pytest.mark.parametrize(("file", "value"), [(plan_file, PLAN), (report_file, REPORT)])
def test_a_newer_member_is_skipped_and_another_format_refused(tmp_path, file, value):
    path = tmp_path / "file"

    path.write_bytes(changed(value, later="something"))
    assert file.read(path) == value
    # Files of the time before they had a format.
    path.write_bytes(changed(value, format=None))
    assert file.read(path) == value
    path.write_bytes(changed(value, format=2))
    assert file.read(path) is None
