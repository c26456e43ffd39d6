"""Programs share engines, code has processes of its own, and needs come by rank."""

import msgspec

from inference.engine.wire.messages import VersionKey
from inference.placement.deciding import place
from inference.placement.processes import HostPlan, group_name, process_name
from inference.placement.situation import (
    Holder,
    Machine,
    Place,
    PlacementSituation,
    Priority,
)
from tests.inference.placement.world import ENVIRONMENT, rules, version_of, wanted_of

CPU = Machine("h", ("cpu",), {"cpu": 1000})
GPU = Machine("h", ("cuda:0",), {"cuda:0": 1000, "cpu": 1000})
M = VersionKey("m", 1)


def decide(*wanted, hosts=(CPU,), **rest):
    return place(PlacementSituation(hosts=tuple(hosts), wanted=wanted, **rest))


def after(placement, *wanted, hosts=(CPU,), ready=True, **rest):
    """Decide on the state that the placement led to."""
    places = {
        Place(holder, key)
        for part in (placement.holders, placement.staying)
        for key, holders in part.items()
        for holder in holders
    }
    holding = {}
    for one in places:
        holding.setdefault(one.holder, set()).add(one.key)
    ready = frozenset(places) if ready is True else ready
    return decide(
        *wanted,
        hosts=hosts,
        plans=placement.plans,
        holding=holding,
        ready=ready,
        **rest,
    )


def names(placement, key=M):
    return {holder.process for holder in placement.holders.get(key, ())}


def process_of(placement, name, host="h"):
    return next(p for p in placement.plans[host].processes if p.name == name)


def own(wish, number=0):
    return process_name(wish.version, number)


def test_an_engine_of_each_device_is_there_although_it_holds_nothing():
    plan = decide(hosts=[Machine("h", ("cuda:0", "cpu"))]).plans["h"]

    assert [(p.name, p.device, p.kind, p.versions) for p in plan.processes] == [
        ("cuda-0", "cuda:0", "device", ()),
        ("cpu", "cpu", "device", ()),
    ]


def test_a_program_is_on_every_engine_unless_replicas_say_otherwise():
    hosts = [Machine(name, ("cuda:0", "cuda:1")) for name in ("a", "b")]
    every = decide(wanted_of(program=True), hosts=hosts)
    two = decide(wanted_of(program=True, process=rules(replicas=2)), hosts=hosts)
    five = decide(wanted_of(program=True, process=rules(replicas=5)), hosts=hosts)

    assert len(every.holders[M]) == 4
    assert two.holders[M] == {Holder("a", "cuda-0"), Holder("b", "cuda-0")}
    assert len(five.holders[M]) == 5


def test_code_has_a_process_of_its_own_with_all_that_its_host_must_know():
    wish = wanted_of(
        memory_limit_bytes=7,
        released_at=3.0,
        environment=ENVIRONMENT,
        process=rules(max_run_s=5.0, network=True),
    )
    host = Machine("h", ("cpu",), environments={ENVIRONMENT: "/e"})

    placement = decide(wish, hosts=[host])

    process = process_of(placement, own(wish))
    assert msgspec.to_builtins(process) == {
        "name": own(wish),
        "device": "cpu",
        "kind": "own",
        "environment": ENVIRONMENT,
        "versions": (msgspec.to_builtins(wish.version),),
        "memory_limit_bytes": 7,
        "max_run_s": 5.0,
        "network": True,
        "released_at": 3.0,
    }
    assert placement.plans["h"].environments == {ENVIRONMENT: "/e"}


def test_isolation_by_hand_goes_over_the_kind_of_artifact():
    def holders(isolation, **kind):
        return names(decide(wanted_of(process=rules(isolation=isolation), **kind)))

    assert holders("shared") == {group_name("shared")}
    assert holders("group fast") == {group_name("fast")}
    assert holders("group fast", program=True) == {group_name("fast")}
    assert holders("shared", program=True) == {"cpu"}
    assert holders("own", program=True) != {"cpu"}


def test_a_slow_version_leaves_what_others_share_unless_it_is_shared_by_hand():
    program = wanted_of(program=True, slow=True)
    group = wanted_of(slow=True, process=rules(isolation="group fast"))
    by_hand = wanted_of(program=True, slow=True, process=rules(isolation="shared"))

    assert names(decide(program)) == {own(program)}
    assert names(decide(group)) == {own(group)}
    assert names(decide(by_hand)) == {"cpu"}


def test_code_that_is_not_trusted_gets_no_process():
    """The engine of the device refuses it, and runs nothing of it."""
    wish = wanted_of(trusted=False, process=rules(replicas=3, isolation="own"))

    assert names(decide(wish)) == {"cpu"}


def test_torch_code_is_on_the_first_accelerator_with_room_else_on_the_cpu():
    torch = {"flavors": ("python_function", "pytorch")}
    first = wanted_of("a", memory_bytes=700, **torch)
    second = wanted_of("b", memory_bytes=700, **torch)
    other = wanted_of("c")

    placement = decide(first, second, other, hosts=[GPU])

    assert process_of(placement, own(first)).device == "cuda:0"
    assert process_of(placement, own(second)).device == "cpu"
    assert process_of(placement, own(other)).device == "cpu"


def test_replicas_are_spread_over_hosts():
    wish = wanted_of(process=rules(replicas=3), memory_bytes=100)
    hosts = [Machine("a", ("cpu",), {"cpu": 500}), Machine("b", ("cpu",), {"cpu": 250})]

    placement = decide(wish, hosts=hosts)

    assert sorted(host for host, _ in placement.holders[M]) == ["a", "a", "b"]
    assert names(placement) == {own(wish), own(wish, 1), own(wish, 2)}


def test_what_is_needed_less_gives_way_and_it_is_said():
    former = wanted_of("a", memory_bytes=600, priority=Priority.FORMER)
    before = decide(former)
    routed = wanted_of("b", memory_bytes=600)

    placement = after(before, former, routed)

    assert names(placement, routed.version.key)
    (lacking,) = placement.lacking
    assert lacking.key == former.version.key
    assert (lacking.needed_bytes, lacking.free_bytes) == (600, 400)
    (leaving,) = placement.leaving
    gone = after(placement, former, routed, left={leaving})
    assert gone.holders.keys() == {routed.version.key}


def test_what_routes_need_is_loaded_without_room_and_it_is_said():
    wishes = [wanted_of(name, memory_bytes=800) for name in "ab"]

    placement = decide(*wishes)

    assert len(placement.holders) == 2
    (lacking,) = placement.lacking
    assert lacking.is_placed
    assert "A route needs it" in lacking.sentence


def test_replicas_beyond_the_memory_are_said():
    wish = wanted_of(memory_bytes=400, process=rules(replicas=3))

    placement = decide(wish)

    assert len(placement.holders[M]) == 2
    (lacking,) = placement.lacking
    assert "no process number 3" in lacking.sentence


def test_without_its_environment_a_version_is_nowhere_and_it_is_said():
    placement = decide(wanted_of(environment=ENVIRONMENT))

    assert M not in placement.holders
    assert "environment" in placement.lacking[0].sentence


def test_the_old_place_stays_until_the_new_one_is_ready_and_known():
    before = decide(wanted_of(program=True))
    moved = wanted_of(program=True, slow=True)
    old = Place(Holder("h", "cpu"), M)

    loading = after(before, moved)
    ready = after(loading, moved)
    done = after(ready, moved, left={old})

    assert loading.staying == {M: {old.holder}}
    assert not loading.leaving
    assert ready.leaving == {old}
    assert ready.staying == {M: {old.holder}}
    assert not done.staying


def test_a_version_that_nobody_wants_stays_while_gateways_can_name_it():
    before = decide(wanted_of())

    named = after(before)
    unnamed = after(before, releasable={M})

    assert named.staying[M] == before.holders[M]
    assert len(unnamed.plans["h"].processes) == 1


def test_another_artifact_under_the_same_number_stops_the_old_one_at_once():
    wish = wanted_of()
    before = decide(wish)
    other = wanted_of(path="/artifacts/another")

    placement = after(before, other)

    assert names(placement) == {own(other)} != {own(wish)}
    assert not placement.staying


def test_code_that_is_trusted_no_longer_stops_at_once():
    before = decide(wanted_of())

    placement = after(before, wanted_of(trusted=False))

    assert names(placement) == {"cpu"}
    assert not placement.staying


def test_a_renewed_process_has_a_twin_first():
    wish = wanted_of(memory_bytes=300)
    before = decide(wish)
    old = Holder("h", own(wish))

    twin = after(before, wish, recycle={old})
    ready = after(twin, wish, recycle={old})
    done = after(ready, wish, recycle={old}, left={Place(old, M)})

    assert names(twin) == {own(wish, 1)}
    assert twin.staying == {M: {old}}
    assert not twin.leaving
    assert ready.leaving == {Place(old, M)}
    assert [p.name for p in done.plans["h"].processes] == ["cpu", own(wish, 1)]


def test_a_twin_waits_for_room_unless_a_route_needs_it():
    for priority, starts in ((Priority.PUBLISHED, False), (Priority.ROUTED, True)):
        wish = wanted_of(memory_bytes=700, priority=priority)
        before = decide(wish)

        placement = after(before, wish, recycle={Holder("h", own(wish))})

        assert (own(wish, 1) in names(placement)) == starts
        assert placement.staying[M] == {Holder("h", own(wish))}


def test_a_group_is_one_process_whose_versions_come_and_go():
    one, two = (wanted_of(n, process=rules(isolation="group g")) for n in "ab")
    before = decide(one)

    placement = after(before, one, two)
    later = after(placement, two, releasable={one.version.key})

    process = process_of(placement, group_name("g"))
    assert [v.key.model for v in process.versions] == ["a", "b"]
    assert [v.key.model for v in process_of(later, group_name("g")).versions] == ["b"]


def test_consent_to_a_network_is_not_shared():
    one = wanted_of("a", process=rules(isolation="group g", network=True))
    two = wanted_of("b", process=rules(isolation="group g"))

    placement = decide(one, two)

    assert not names(placement, one.version.key) & names(placement, two.version.key)


def test_names_that_look_alike_are_not_shared(monkeypatch):
    wishes = [wanted_of(name) for name in ("a", "b")]
    named = "inference.placement.deciding.process_name"
    monkeypatch.setattr(named, lambda version, n=0: f"same.{n}" if n else "same")

    placement = decide(*wishes)

    assert names(placement, wishes[0].version.key) == {"same"}
    assert names(placement, wishes[1].version.key) == {"same.1"}


def test_without_hosts_nothing_is_anywhere():
    placement = decide(wanted_of(), hosts=[])

    assert placement.plans == {}
    assert placement.lacking[0].sentence == "There is no host."


def test_a_host_that_is_gone_is_replaced():
    wish = wanted_of()
    hosts = [Machine("a", ("cpu",))]
    before = decide(wish, hosts=hosts)

    placement = after(before, wish, hosts=[Machine("b", ("cpu",))])

    assert {holder.host for holder in placement.holders[M]} == {"b"}


def test_a_version_that_stays_keeps_what_it_was_loaded_from():
    wish = wanted_of()
    before = decide(wish)

    placement = after(before)

    assert process_of(placement, own(wish)).versions == (version_of("m"),)
    assert placement.plans["h"] == HostPlan(before.plans["h"].processes)
