from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from config.checks.kinds import snapshot
from config.checks.kinds.snapshot import SnapshotFacts
from tests.factories_registry import ModelVersionFactory

NOW = datetime(2026, 5, 1, tzinfo=UTC)
WELL = SnapshotFacts(
    NOW, published=7, published_at=NOW - timedelta(hours=3), of_gateways=7
)
LEFT_OUT = "versions-left-out"


@pytest.mark.parametrize(
    ("facts", "codes"),
    [
        ({}, [""]),
        # Nothing has changed for long.
        ({"published_at": NOW - timedelta(days=30)}, [""]),
        ({"pending": 2}, ["snapshot-late"]),
        ({"led": False, "pending": 2}, ["controller-away"]),
        ({"file_exists": False, "of_gateways": 0}, ["snapshot-missing"]),
        ({"of_gateways": 6}, ["gateway-behind"]),
        ({"of_gateways": 8}, [""]),
        ({"of_gateways": None}, [""]),
        ({"left_out": [("iris v2", "its signature cannot be read")]}, [LEFT_OUT]),
    ],
)
def test_each_fact_has_its_finding(facts, codes):
    found = snapshot.judge(replace(WELL, **facts))

    assert [finding.code for finding in found] == codes


def test_versions_that_are_left_out_are_named_with_the_first_reason():
    left_out = [(f"iris v{number}", f"reason {number}.\nmore") for number in range(5)]

    [found] = snapshot.judge(replace(WELL, left_out=left_out))

    assert found.sentence == (
        "The snapshot leaves out iris v0, iris v1, iris v2 and 2 more: reason 0."
    )


@pytest.mark.django_db
def test_only_versions_that_wait_for_a_person_are_left_out(home):
    ModelVersionFactory(published=True, artifact_state="remote")
    ModelVersionFactory(published=True)
    broken = ModelVersionFactory(published=True, metadata_errors=["task: unknown"])

    [(name, reason)] = snapshot.facts().left_out

    assert name == str(broken)
    assert "task: unknown" in reason
