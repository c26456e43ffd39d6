from datetime import UTC, datetime, timedelta

import pytest

from config.checks.kinds import background

NOW = datetime(2026, 5, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ALL = {"site", "internal", "controller", "worker", "beat"}


@pytest.mark.parametrize(
    ("facts", "codes"),
    [
        ({"synced_at": NOW - MINUTE}, [""]),
        ({"synced_at": NOW - 4 * MINUTE}, ["background-idle"]),
        ({"synced_at": NOW, "reporting": ALL - {"beat"}}, ["process-away"]),
        ({"started_at": NOW, "reporting": set()}, [""]),
        # Beat sends its first message a minute after its start.
        ({"started_at": NOW - MINUTE, "synced_at": NOW - 60 * MINUTE}, [""]),
        ({"started_at": NOW - 4 * MINUTE}, ["background-idle"]),
        ({"synced_at": NOW - 9 * MINUTE, "syncing_since": NOW - 9 * MINUTE}, [""]),
        (
            {"synced_at": NOW, "jobs": 3, "oldest_job_at": NOW - 15 * MINUTE},
            ["job-waits"],
        ),
        ({"synced_at": NOW, "jobs": 3, "oldest_job_at": NOW - MINUTE}, [""]),
    ],
)
def test_each_fact_has_its_finding(facts, codes):
    found = background.judge(
        now=NOW, **{"reporting": ALL, "started_at": None, "synced_at": None, **facts}
    )

    assert [finding.code for finding in found] == codes
