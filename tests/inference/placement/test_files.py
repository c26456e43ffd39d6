"""A host's plan and report outlive their writers."""

from inference.placement import plan_file, report_file
from inference.placement.processes import (
    Death,
    EngineProcess,
    HostPlan,
    HostReport,
    ProcessReport,
)
from tests.inference.placement.world import version_of

PLAN = HostPlan(
    processes=(
        EngineProcess(name="cpu", device="cpu"),
        EngineProcess(
            name="m-1", device="cpu", kind="own", versions=(version_of("m"),)
        ),
    ),
    environments={"e": "/e"},
)


def test_a_plan_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "plan.json"

    assert plan_file.write(path, PLAN)
    assert plan_file.read(path) == PLAN


def test_a_plan_is_written_only_when_it_changed(tmp_path):
    path = tmp_path / "plan.json"
    plan_file.write(path, PLAN)
    before = path.stat().st_ino

    assert not plan_file.write(path, PLAN)
    assert path.stat().st_ino == before
    assert plan_file.write(path, HostPlan())


def test_a_report_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "host.json"
    report = HostReport(
        host="h",
        at=1.5,
        devices=("cpu",),
        processes=(ProcessReport(name="cpu", state="running"),),
        deaths=(Death(at=1.0, process="cpu", version=None, reason="It ended."),),
    )

    report_file.write(path, report)

    assert report_file.read(path) == report


def test_what_is_missing_or_broken_is_nothing(tmp_path):
    path = tmp_path / "x.json"

    assert plan_file.read(path) is None
    assert report_file.read(path) is None
    path.write_text("{")
    assert plan_file.read(path) is None
    assert report_file.read(path) is None
