"""Serving follows desired, and never names what is not loaded."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.controller import decision
from inference.controller.decision import Served, Situation, Variants, failures
from inference.engine.wire.messages import VersionKey, VersionStatus
from registry.shares.canaries import Canary

KEYS = [VersionKey("m", version) for version in (1, 2, 3)]
V1, V2, V3 = KEYS


def reports(**engines):
    return {
        name: {
            key: VersionStatus(key=key, state=state, error="boom" * (state == "failed"))
            for key, state in versions.items()
        }
        for name, versions in engines.items()
    }


def decide(situation, *, wanted=(), staying=()):
    """Decide where every engine should hold whatever somebody wants or serves."""
    wanted = set(wanted)
    for model, it in situation.desired.items():
        wanted |= it.keys(model)
    for model, it in situation.serving.items():
        wanted |= it.variants.keys(model) if it.variants else set()
    wanted -= situation.obstacles.keys()
    engines = frozenset(situation.reports)
    return decision.decide(
        replace(
            situation,
            holders=dict.fromkeys(wanted, engines),
            staying=dict.fromkeys(staying, engines),
        )
    )


def test_a_new_route_is_served_once_its_default_is_ready():
    desired = {"m": Variants(1)}

    first = decide(Situation(desired=desired, serving={}, reports=reports(cpu={})))
    then = decide(
        Situation(
            desired=desired, serving=first.serving, reports=reports(cpu={V1: "ready"})
        )
    )

    assert first.loads == (("cpu", V1),)
    assert first.serving["m"].variants is None
    assert then.loads == ()
    assert then.serving["m"] == Served(Variants(1))


def test_the_old_version_serves_and_stays_while_the_new_one_loads():
    decision = decide(
        Situation(
            desired={"m": Variants(2)},
            serving={"m": Served(Variants(1))},
            reports=reports(cpu={V1: "ready", V2: "loading"}),
        )
    )

    assert decision.serving["m"].variants == Variants(1)
    assert decision.serving["m"].waiting_for == "version 2 is loading on engine cpu"
    assert decision.unloads == ()


def test_a_failed_version_keeps_the_last_good_route_and_says_why():
    decision = decide(
        Situation(
            desired={"m": Variants(2)},
            serving={"m": Served(Variants(1))},
            reports=reports(cpu={V1: "ready", V2: "failed"}),
        )
    )

    assert decision.serving["m"].variants == Variants(1)
    assert decision.serving["m"].waiting_for == "version 2 failed on engine cpu: boom"
    assert decision.loads == ()


def test_a_failed_version_is_loaded_again_when_its_time_has_come():
    decision = decide(
        Situation(
            desired={"m": Variants(2)},
            serving={},
            reports=reports(cpu={V2: "failed"}),
            retry={("cpu", V2)},
        )
    )

    assert decision.loads == (("cpu", V2),)


def test_a_version_that_cannot_be_sent_keeps_the_route_and_says_why():
    decision = decide(
        Situation(
            desired={"m": Variants(2)},
            serving={"m": Served(Variants(1))},
            reports=reports(cpu={V1: "ready"}),
            obstacles={V2: "its artifact is not in the local cache yet"},
        )
    )

    assert decision.loads == ()
    assert decision.serving["m"].variants == Variants(1)
    assert "not in the local cache" in decision.serving["m"].waiting_for


def test_a_route_moves_only_when_every_running_engine_is_ready():
    decision = decide(
        Situation(
            desired={"m": Variants(2)},
            serving={"m": Served(Variants(1))},
            reports=reports(
                a={V1: "ready", V2: "ready"}, b={V1: "ready", V2: "loading"}
            ),
        )
    )

    assert decision.serving["m"].variants == Variants(1)


def test_a_moved_weight_between_loaded_versions_takes_effect_at_once():
    desired = Variants(1, (Canary(2, 50),))

    decision = decide(
        Situation(
            desired={"m": desired},
            serving={"m": Served(Variants(1, (Canary(2, 10),)))},
            reports=reports(cpu={V1: "ready", V2: "ready"}),
        )
    )

    assert decision.serving["m"] == Served(desired)


def test_a_canary_stops_even_while_the_engine_is_away():
    decision = decide(
        Situation(
            desired={"m": Variants(1)},
            serving={"m": Served(Variants(1, (Canary(2, 10),)))},
            reports={},
        )
    )

    assert decision.serving["m"].variants == Variants(1)


def test_a_canary_that_was_served_and_fails_to_load_again_gets_no_calls():
    running = Variants(1, (Canary(2, 50),))
    situation = Situation(
        desired={"m": running},
        serving={"m": Served(running)},
        reports=reports(cpu={V1: "ready", V2: "failed"}),
    )

    lost = decide(situation).serving["m"]

    assert lost.variants == Variants(1)
    assert "version 2 failed" in lost.waiting_for


def test_a_canary_whose_artifact_is_gone_gets_no_calls():
    running = Variants(1, (Canary(2, 50),))

    decision = decide(
        Situation(
            desired={"m": running},
            serving={"m": Served(running)},
            reports=reports(cpu={V1: "ready"}),
            obstacles={V2: "its artifact is gone"},
        )
    )

    assert decision.serving["m"].variants == Variants(1)


@pytest.mark.parametrize("state", ["loading", "evicted"])
def test_a_canary_that_loads_again_keeps_its_share(state):
    running = Variants(1, (Canary(2, 50),))

    decision = decide(
        Situation(
            desired={"m": running},
            serving={"m": Served(running)},
            reports=reports(cpu={V1: "ready", V2: state}),
        )
    )

    assert decision.serving["m"].variants == running


def test_a_new_route_serves_its_default_while_the_canary_fails():
    decision = decide(
        Situation(
            desired={"m": Variants(1, (Canary(2, 10),))},
            serving={},
            reports=reports(cpu={V1: "ready", V2: "failed"}),
        )
    )

    assert decision.serving["m"].variants == Variants(1)
    assert "version 2 failed" in decision.serving["m"].waiting_for


def test_an_engine_that_restarted_empty_gets_its_versions_again():
    decision = decide(
        Situation(
            desired={"m": Variants(1)},
            serving={"m": Served(Variants(1))},
            reports=reports(cpu={}),
        ),
        wanted={V3},
    )

    assert decision.loads == (("cpu", V1), ("cpu", V3))
    assert decision.serving["m"].variants == Variants(1)


def test_an_old_version_stays_until_no_snapshot_names_it():
    situation = {
        "desired": {"m": Variants(2)},
        "serving": {"m": Served(Variants(2))},
        "reports": reports(cpu={V1: "ready", V2: "ready"}),
    }

    named = decide(Situation(**situation), staying={V1})
    forgotten = decide(Situation(**situation))

    assert named.unloads == ()
    assert forgotten.unloads == (("cpu", V1),)


@pytest.mark.parametrize("state", ["loading", "failed"])
def test_without_a_route_nothing_is_served_and_everything_is_unloaded(state):
    decision = decide(
        Situation(
            desired={},
            serving={"m": Served(Variants(1))},
            reports=reports(cpu={V1: "ready", V2: state}),
        )
    )

    assert decision.serving == {}
    # Version 1 still serves until the snapshot without it is out.
    assert decision.unloads == (("cpu", V2),)


def quarantine(desired, serving, *, former=None, quarantined=(), ready=KEYS):
    return decide(
        Situation(
            desired={"m": desired},
            serving={"m": Served(serving, former=former)},
            reports=reports(cpu=dict.fromkeys(ready, "ready")),
            quarantined=dict.fromkeys(quarantined, "it died twice"),
        ),
        wanted=KEYS,
    ).serving["m"]


def test_the_last_default_is_remembered():
    assert quarantine(Variants(2), Variants(1), former=3).former == 1
    assert quarantine(Variants(1), Variants(1), former=3).former == 3


def test_the_former_default_stands_in_for_one_that_is_quarantined():
    served = quarantine(Variants(2), Variants(2), former=1, quarantined={V2})

    assert served.variants == Variants(1)
    assert served.former == 1
    assert served.waiting_for == (
        "version 2 is quarantined: it died twice; version 1 answers"
    )


def test_what_stands_in_stays_until_the_default_is_released():
    meanwhile = quarantine(Variants(2), Variants(1), former=1, quarantined={V2})
    released = quarantine(Variants(2), Variants(1), former=1)

    assert meanwhile.variants == Variants(1)
    assert released == Served(Variants(2), former=1)


def test_the_former_default_must_be_ready_and_healthy_itself():
    loading = quarantine(
        Variants(2), Variants(2), former=1, quarantined={V2}, ready={V2}
    )
    ill = quarantine(Variants(2), Variants(2), former=1, quarantined={V1, V2})
    none = quarantine(Variants(2), Variants(2), quarantined={V2})

    assert loading.variants == ill.variants == none.variants == Variants(2)
    assert "is quarantined" in none.waiting_for


def test_a_route_never_moves_to_a_version_that_is_quarantined():
    assert quarantine(Variants(2), Variants(1), quarantined={V2}).variants == Variants(
        1
    )


def test_a_canary_that_is_quarantined_gets_no_share():
    both = Variants(1, (Canary(2, 10),))

    served = quarantine(both, both, quarantined={V2})

    assert served.variants == Variants(1)
    assert "version 2 is quarantined" in served.waiting_for


def test_only_engines_that_should_have_a_version_and_answer_count():
    held = {V1: frozenset({"a", "b"}), V2: frozenset({"gone"})}

    decided = decision.decide(
        Situation(
            desired={"m": Variants(1), "other": Variants(1)},
            serving={},
            reports=reports(a={V1: "ready"}, c={}),
            holders=held,
        )
    )

    assert decided.serving["m"].variants == Variants(1)
    assert decided.loads == ()
    waits = decision.decide(
        Situation(desired={"m": Variants(2)}, serving={}, reports={}, holders=held)
    )
    assert waits.serving["m"].waiting_for == "version 2 waits for its process gone"


def test_what_has_no_room_says_so():
    decided = decision.decide(
        Situation(
            desired={"m": Variants(1)},
            serving={},
            reports=reports(cpu={}),
            lacking={V1: "It needs 2 GB."},
        )
    )

    assert decided.serving["m"].waiting_for == (
        "version 1 has no process: It needs 2 GB."
    )


def variants():
    return st.builds(
        lambda default, other, weight: (
            Variants(default)
            if other == default
            else Variants(default, (Canary(other, weight),))
        ),
        st.integers(1, 3),
        st.integers(1, 3),
        st.integers(0, 100),
    )


situations = st.builds(
    lambda desired, serving, engines, blocked: Situation(
        desired={"m": desired} if desired else {},
        serving={"m": Served(serving)} if serving else {},
        reports=reports(**engines),
        obstacles=dict.fromkeys(blocked, "no artifact"),
    ),
    st.none() | variants(),
    st.none() | variants(),
    st.dictionaries(
        st.sampled_from(["a", "b"]),
        st.dictionaries(
            st.sampled_from(KEYS), st.sampled_from(["loading", "ready", "failed"])
        ),
    ),
    st.sets(st.sampled_from(KEYS)),
)


@given(situations)
def test_serving_never_takes_up_what_some_engine_has_not_ready(situation):
    decision = decide(situation)

    before = situation.serving.get("m", Served(None)).variants
    old = before.keys("m") if before else frozenset()
    for served in decision.serving.values():
        new = (served.variants.keys("m") if served.variants else frozenset()) - old
        for key in new:
            assert situation.reports
            for versions in situation.reports.values():
                assert versions[key].state == "ready"


@given(situations, st.sets(st.sampled_from(KEYS)), st.sets(st.sampled_from(KEYS)))
def test_nothing_is_unloaded_that_has_a_place(situation, wanted, staying):
    decision = decide(situation, wanted=wanted, staying=staying)

    unloaded = {key for _, key in decision.unloads}
    assert not unloaded & (wanted - situation.obstacles.keys())
    assert not unloaded & staying


@given(situations)
def test_loads_and_unloads_never_name_the_same_version(situation):
    decision = decide(situation)

    assert not set(decision.loads) & set(decision.unloads)


@given(situations)
def test_a_decision_carried_out_leads_to_what_people_want(situation):
    if not situation.desired or not situation.reports:
        return
    ready = {
        name: {key: VersionStatus(key=key, state="ready") for key in KEYS}
        for name in situation.reports
    }

    decision = decide(
        Situation(desired=situation.desired, serving=situation.serving, reports=ready)
    )

    for model, wish in situation.desired.items():
        assert decision.serving[model].variants == wish
        assert decision.serving[model].waiting_for == ""


def test_failures_are_those_of_versions_that_no_engine_has():
    both = reports(a={V1: "failed", V2: "failed", V3: "loading"}, b={V1: "ready"})

    assert failures(both) == {V2: "It failed on engine a: boom"}


def test_another_try_of_what_failed_is_no_loading():
    tried_again = VersionStatus(key=V1, state="loading", error="boom")
    decision = decide(
        Situation(
            desired={"m": Variants(1)}, serving={}, reports={"cpu": {V1: tried_again}}
        )
    )

    assert decision.serving["m"].waiting_for == "version 1 failed on engine cpu: boom"
    assert failures({"cpu": {V1: tried_again}}) == {V1: "It failed on engine cpu: boom"}


def test_a_canary_that_loads_keeps_no_other_from_its_weight():
    decided = decide(
        Situation(
            desired={"m": Variants(1, (Canary(2, 25), Canary(3, 1)))},
            serving={"m": Served(Variants(1, (Canary(2, 5),)))},
            reports=reports(cpu={V1: "ready", V2: "ready"}),
        )
    )

    served = decided.serving["m"]
    assert served.variants == Variants(1, (Canary(2, 25),))
    assert "version 3 is loading" in served.waiting_for


def test_a_quarantined_canary_takes_nothing_from_another():
    both = Variants(1, (Canary(2, 10), Canary(3, 20)))

    decided = decide(
        Situation(
            desired={"m": both},
            serving={"m": Served(both)},
            reports=reports(cpu=dict.fromkeys(KEYS, "ready")),
            quarantined={V2: "it crashed"},
        )
    )

    assert decided.serving["m"].variants == Variants(1, (Canary(3, 20),))
