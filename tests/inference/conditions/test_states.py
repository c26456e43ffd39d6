"""The state of a version says whether it answers, and why it does not."""

import pytest

from inference.conditions.states import (
    OnEngine,
    ServingState,
    VersionFacts,
    state_of,
)


def on(state, *, engine="cpu", running=True, error=""):
    return OnEngine(engine=engine, running=running, state=state, error=error)


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        (VersionFacts(), "not called for", ""),
        # An old failure of a version that nobody wants is not trouble.
        (VersionFacts(problem="its metadata is not valid"), "not called for", ""),
        (
            VersionFacts(
                called_for=True, served_as="default", on_engines=[on("ready")]
            ),
            "serving (default)",
            "",
        ),
        (
            VersionFacts(called_for=True, served_as="canary", on_engines=[on("ready")]),
            "serving (canary)",
            "",
        ),
        (VersionFacts(called_for=True, on_engines=[on("ready")]), "ready", ""),
        # The former default stays loaded for an hour.
        (VersionFacts(on_engines=[on("ready")]), "ready", ""),
        # It answers from its other process.
        (
            VersionFacts(
                called_for=True,
                served_as="default",
                on_engines=[on("failed", engine="a", error="no room"), on("ready")],
            ),
            "serving (default)",
            "On a: no room",
        ),
        (
            VersionFacts(
                called_for=True,
                on_engines=[
                    on("ready"),
                    on("ready", engine="b", running=False, error="It died twice."),
                ],
            ),
            "ready",
            "Its process b does not run. It died twice.",
        ),
        # Gateways name it, but nobody answers for it.
        (
            VersionFacts(
                called_for=True,
                served_as="default",
                on_engines=[on("ready", running=False)],
            ),
            "waiting",
            "Its engine cpu does not answer.",
        ),
        (
            VersionFacts(
                called_for=True,
                on_engines=[on("ready")],
                quarantined=True,
                quarantine="It died twice.",
            ),
            "quarantined",
            "It died twice.",
        ),
        (
            VersionFacts(called_for=True, misfit="It lacks lightgbm.", problem="x"),
            "does not fit",
            "It lacks lightgbm.",
        ),
        (
            VersionFacts(called_for=True, on_engines=[on("failed", error="bad")]),
            "failed",
            "On cpu: bad",
        ),
        (VersionFacts(called_for=True, problem="bad"), "failed", "bad"),
        (
            VersionFacts(called_for=True, untrusted=True, misfit="x", problem="x"),
            "untrusted",
            "It runs its author's code, and no administrator has trusted its model.",
        ),
        (VersionFacts(untrusted=True), "not called for", ""),
        (VersionFacts(called_for=True, on_engines=[on("loading")]), "loading", ""),
        (
            VersionFacts(called_for=True, on_engines=[on("evicted")]),
            "waiting for memory",
            "It loads when somebody calls it: others needed its memory.",
        ),
        (
            VersionFacts(called_for=True, waits_for="Its artifact is not here."),
            "waiting",
            "Its artifact is not here.",
        ),
        (VersionFacts(called_for=True), "waiting", "No engine has begun to load it."),
    ],
)
def test_the_state_is_true(facts, state, reason):
    report = state_of(facts)

    assert (report.state, report.reason) == (ServingState(state), reason)
