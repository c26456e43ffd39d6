"""The snapshot equals the database and holds only what may be called."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.admission.limits import KeyLimits, Rate
from accounts.customers import api_keys
from accounts.models import ApiKey, Customer
from inference.controller import publishing
from inference.models import (
    Engine,
    LoadedVersion,
    ServingRoute,
    SnapshotState,
    VersionCondition,
)
from inference.snapshot import snapshot_file
from inference.snapshot.contents import (
    AccessKey,
    CachePolicy,
    Fallback,
    FixedAnswer,
    Shadow,
    Sticky,
)
from inference.snapshot.tables import Tables
from registry import routes
from registry.models import ModelVersion, Route
from registry.routing import Variant
from registry.shares import canaries as shares
from registry.shares.canaries import Canary
from tests.factories import ApiKeyFactory, CustomerFactory, issue_key
from tests.factories_registry import (
    AliasFactory,
    ModelVersionFactory,
    RegisteredModelFactory,
    RouteFactory,
)

pytestmark = pytest.mark.django_db


def assemble():
    return publishing.assemble(sequence=1, now=timezone.now())


def serve(route):
    return ServingRoute.objects.create(
        model=route.registered_model.name,
        default_version=route.default_version.version,
        default_weight_percent=route.default_weight_percent,
        canary_version=route.canary_version and route.canary_version.version,
        canary_weight_percent=route.canary_weight_percent,
    )


def test_marking_counts_a_change_even_when_the_row_is_missing():
    SnapshotState.objects.all().delete()

    publishing.mark_changed()
    first = publishing.pending_sequence()
    publishing.mark_changed()

    assert publishing.pending_sequence() == first + 1


def test_publishing_writes_the_file_and_moves_published(home):
    publishing.mark_changed()

    published = publishing.publish(now=timezone.now())

    assert snapshot_file.read(home.snapshot) == published
    assert publishing.pending_sequence() is None
    assert SnapshotState.objects.get().published == published.sequence


def test_a_route_says_how_it_caches_and_what_stands_in(home):
    route = RouteFactory(
        cache_ttl_s=60, fallback_answer={"label": "?"}, fallback_on=["OVERLOADED"]
    )
    route.fallback_version = ModelVersionFactory(
        registered_model=route.registered_model, metadata={"deterministic": False}
    )
    route.save()

    (model,) = assemble().models

    assert model.cache == CachePolicy(ttl_s=60, scope="customer")
    assert model.fallback == Fallback(
        on=("OVERLOADED",),
        version=route.fallback_version.version,
        answer=FixedAnswer({"label": "?"}),
    )
    by_number = {version.version: version for version in model.versions}
    assert not by_number[route.fallback_version.version].deterministic
    served = by_number[route.default_version.version]
    assert served.deterministic
    assert served.artifact == route.default_version.artifact_digest


@pytest.mark.parametrize(
    ("setting", "salt", "sticky"),
    [
        ("off", "secret", None),
        ("key", "secret", Sticky("key", "secret")),
        ("header", "secret", Sticky("header", "secret")),
        # Served since before there were salts, of which hashes must not do without.
        ("key", "", None),
    ],
)
def test_a_route_says_whether_callers_keep_their_version(home, setting, salt, sticky):
    route = RouteFactory(sticky=setting, with_canary=True)
    served = serve(route)
    served.salt = salt
    served.save()

    (model,) = assemble().models

    assert model.sticky == sticky
    assert model.salt == (salt if sticky else model.name)


def test_all_canaries_that_can_be_called_are_published(home):
    route = RouteFactory(with_canary=True)
    model = route.registered_model
    broken = ModelVersionFactory(
        registered_model=model, artifact_state=ModelVersion.ArtifactState.FAILED
    )
    third = ModelVersionFactory(registered_model=model)
    for version, weight in ((broken, 20), (third, 30)):
        routes.start_canary(version, weight_percent=weight, by=None)
    route.refresh_from_db()
    numbered = [Canary(it.version.version, it.weight_percent) for it in route.canaries]
    ServingRoute.objects.create(
        model=model.name,
        **shares.columns(numbered) | {"default_version": route.default_version.version},
    )

    (published,) = assemble().models

    assert published.variants == (
        Variant(route.default_version.version, "default", 60),
        Variant(route.canary_version.version, "canary", 10),
        Variant(third.version, "canary", 30),
    )


def test_a_fallback_that_cannot_be_called_does_not_stand_in(home):
    route = RouteFactory()
    route.fallback_version = ModelVersionFactory(
        registered_model=route.registered_model,
        artifact_state=ModelVersion.ArtifactState.FAILED,
    )
    route.save()

    (model,) = assemble().models

    assert model.fallback is None
    assert model.cache is None


def test_a_change_after_publishing_is_published_again(home):
    publishing.mark_changed()
    first = publishing.publish(now=timezone.now())
    issue_key()

    second = publishing.publish(now=timezone.now())

    assert second.sequence > first.sequence
    assert len(second.keys) == 1


def test_an_older_snapshot_that_replaced_a_newer_one_is_replaced_again(home):
    publishing.mark_changed()
    SnapshotState.objects.update(published=10_000)

    publishing.publish(now=timezone.now())
    SnapshotState.objects.update(changed=10_001)

    assert publishing.pending_sequence() is not None


def test_a_served_route_is_published_with_its_variants_and_aliases():
    route = RouteFactory(with_canary=True, low_confidence_below=0.7)
    AliasFactory(version=route.default_version, name="champion")
    serve(route)

    (model,) = assemble().models

    assert model.variants == (
        Variant(route.default_version.version, "default", 90),
        Variant(route.canary_version.version, "canary", 10),
    )
    assert model.low_confidence_below == 0.7
    by_number = {version.version: version for version in model.versions}
    assert set(by_number) == {
        route.default_version.version,
        route.canary_version.version,
    }
    default = by_number[route.default_version.version]
    assert default.aliases == ("champion",)
    assert default.signature.labels == ("small", "large")
    assert default.example == [{"width": 1.0, "height": 2.0}]


def test_a_route_that_waits_is_known_without_variants():
    RouteFactory()

    (model,) = assemble().models

    assert model.variants == ()


def test_a_published_version_is_callable_without_a_route():
    version = ModelVersionFactory(published=True)
    ModelVersionFactory(registered_model=version.registered_model)

    (model,) = assemble().models

    assert [callable_.version for callable_ in model.versions] == [version.version]


def test_a_version_that_no_route_names_is_not_callable():
    ModelVersionFactory()

    assert assemble().models == ()


def test_a_route_that_is_switched_off_serves_nothing():
    route = RouteFactory(enabled=False)
    serve(route)

    models = assemble().models

    assert all(model.variants == () for model in models)


@pytest.mark.parametrize(
    "broken",
    [
        {"artifact_state": ModelVersion.ArtifactState.REMOTE},
        {"artifact_state": ModelVersion.ArtifactState.FAILED, "artifact_error": "x"},
        {"signature": {}},
        {"signature": {"inputs": [{"type": "tensor"}]}},
        {"signature": {"inputs": [{"type": "quaternion", "name": "a"}]}},
        {"signature": {"inputs": "nonsense"}},
        {"metadata": {"task": "juggling"}},
        {"metadata": {"batching": 3}},
        {"metadata": {"batching": {"max_batch_rows": "many"}}},
        {
            "metadata": {
                "columns": ["width", "height"],
                "rules": {"width": {"min": "a"}},
            }
        },
        {"metadata": {"columns": ["width", "height"], "rules": {"width": 3}}},
        {"metadata_errors": ["'task' is not one of …"]},
    ],
)
def test_a_version_that_cannot_be_served_leaves_the_others_alone(broken, home):
    good = ModelVersionFactory(published=True)
    ModelVersionFactory(
        published=True, registered_model=good.registered_model, **broken
    )

    snapshot_ = assemble()

    assert [v.version for v in snapshot_.models[0].versions] == [good.version]
    snapshot_file.write(home.snapshot, snapshot_)
    assert snapshot_file.read(home.snapshot) == snapshot_


def test_an_example_that_cannot_be_written_is_left_out():
    ModelVersionFactory(published=True, input_example=[[2**70]])

    (model,) = assemble().models

    assert model.versions[0].example is None


def test_the_routes_rules_replace_the_models_own():
    route = RouteFactory(input_rules={"width": {"min": 0, "max": 10}})
    serve(route)

    (model,) = assemble().models

    width = model.versions[0].signature.columns[0]
    assert (width.minimum, width.maximum) == (0, 10)


def test_a_shadow_is_callable_and_gets_its_share_but_no_weight():
    route = RouteFactory(shadow_tolerance_percent=2)
    other = ModelVersionFactory(registered_model=route.registered_model)
    routes.set_shadow(other, percent=30, by=None)
    serve(route)

    [model] = assemble().models

    assert model.shadow == Shadow(other.version, 30, tolerance=0.02)
    assert {it.version for it in model.versions} == {
        route.default_version.version,
        other.version,
    }
    assert [it.version for it in model.variants] == [route.default_version.version]


def test_a_shadow_without_a_share_or_that_cannot_be_served_gets_no_copies():
    route = RouteFactory()
    other = ModelVersionFactory(registered_model=route.registered_model)
    routes.set_shadow(other, percent=30, by=None)
    serve(route)
    Route.objects.update(shadow_percent=0)
    assert assemble().models[0].shadow is None

    Route.objects.update(shadow_percent=30)
    ModelVersion.objects.filter(pk=other.pk).update(signature={})

    [model] = assemble().models
    assert model.shadow is None
    assert model.variants


def test_a_canary_that_cannot_be_served_leaves_the_default_alone():
    route = RouteFactory(with_canary=True)
    serve(route)
    ModelVersion.objects.filter(pk=route.canary_version_id).update(signature={})

    (model,) = assemble().models

    assert model.variants == (Variant(route.default_version.version, "default", 100),)


def load(version, *, engine, state="ready", running=True):
    row, _ = Engine.objects.get_or_create(
        name=engine,
        defaults={
            "address": f"/{engine}",
            "state": "running" if running else "unreachable",
        },
    )
    LoadedVersion.objects.create(
        engine=row,
        model=version.registered_model.name,
        version=version.version,
        state=state,
    )


def quarantine(version):
    VersionCondition.objects.create(
        model=version.registered_model.name,
        version=version.version,
        quarantined_at=timezone.now(),
    )


def test_each_version_names_the_running_engines_on_which_it_is_ready():
    route = RouteFactory(with_canary=True)
    serve(route)
    load(route.default_version, engine="b")
    load(route.default_version, engine="a")
    load(route.default_version, engine="gone", running=False)
    load(route.default_version, engine="c", state="loading")
    load(route.canary_version, engine="c")

    published = assemble()

    assert {one.version: one.engines for one in published.models[0].versions} == {
        route.default_version.version: ("a", "b"),
        route.canary_version.version: ("c",),
    }
    assert {engine.name for engine in published.engines} == {"a", "b", "c", "gone"}


def test_a_version_that_is_ready_nowhere_names_the_engines_that_have_a_row_for_it():
    route = RouteFactory(with_canary=True)
    serve(route)
    Engine.objects.create(name="other", address="/other", state="running")
    load(route.default_version, engine="a", state="evicted")
    load(route.default_version, engine="gone", running=False)

    (model,) = assemble().models

    assert {one.version: one.engines for one in model.versions} == {
        route.default_version.version: ("a", "gone"),
        route.canary_version.version: (),
    }


def test_a_quarantined_version_names_no_engine_unless_one_has_it_ready():
    route = RouteFactory(with_canary=True)
    serve(route)
    for version in (route.default_version, route.canary_version):
        quarantine(version)
    load(route.default_version, engine="gone", running=False)
    load(route.canary_version, engine="other-host")

    (model,) = assemble().models

    found = {one.version: (one.engines, one.quarantined) for one in model.versions}
    assert found == {
        route.default_version.version: ((), True),
        route.canary_version.version: (("other-host",), False),
    }
    assert not model.stuck


def test_a_default_that_was_quarantined_before_it_served_is_told_apart():
    route = RouteFactory()
    ModelVersion.objects.filter(pk=route.default_version_id).update(
        serving_problem="Its process died twice."
    )
    quarantine(route.default_version)

    assert assemble().models[0].stuck == "quarantined"


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_version_says_whether_its_calls_may_be_repeated(repeatable):
    route = RouteFactory()
    serve(route)
    ModelVersion.objects.filter(pk=route.default_version_id).update(
        metadata={"process": {"repeatable": repeatable}}
    )

    assert assemble().models[0].versions[0].repeatable is repeatable


def test_the_site_default_is_named():
    RegisteredModelFactory(name="one", site_default=True)

    assert assemble().site_default_model == "one"


def test_a_key_is_published_with_what_it_may_do():
    issued = issue_key(scopes=["predict"], allowed_models=["a"])

    published = assemble()

    row = issued.key
    assert published.keys == (
        AccessKey(
            key_id=row.key_id,
            digest=bytes.fromhex(row.digest),
            customer_id=row.customer_id,
            scopes=("predict",),
            models=("a",),
        ),
    )
    assert [c.customer_id for c in published.customers] == [row.customer_id]


def test_a_key_is_published_with_networks_limits_and_mode():
    issue_key(
        mode="test",
        allowed_networks=["10.0.0.0/8"],
        limits=api_keys.OwnLimits(burst_requests=2),
    )

    [key] = assemble().keys

    assert key.test
    assert key.networks == ("10.0.0.0/8",)
    assert key.limits == KeyLimits(rates=(Rate("key-burst", 2, 1),))


def test_a_rotated_key_is_published_with_the_limits_of_its_heir():
    issue_key()
    old = issue_key(limits=api_keys.OwnLimits(burst_requests=2)).key
    new = api_keys.rotate(old).key
    ApiKey.objects.filter(pk=new.pk).update(burst_requests=5)

    _, *keys = assemble().keys

    assert [key.quota_key_id for key in keys] == ["", old.key_id]
    assert {key.limits for key in keys} == {KeyLimits(rates=(Rate("key-burst", 5, 1),))}


def test_callers_with_keys_that_have_ended_are_told_why():
    now = timezone.now()
    revoked, expired = issue_key(), issue_key()
    inactive = issue_key(CustomerFactory(active=False))
    issue_key()
    api_keys.revoke(revoked.key)
    ApiKey.objects.filter(pk=expired.key.pk).update(expires_at=now)

    published = publishing.assemble(sequence=1, now=now)

    assert {key.digest.hex(): key.reason for key in published.ended_keys} == {
        revoked.key.digest: "revoked",
        expired.key.digest: "expired",
        inactive.key.digest: "inactive",
    }
    assert len(published.keys) == 1


def test_a_revoked_an_expired_and_an_inactive_customers_key_are_left_out():
    ApiKeyFactory(revoked_at=timezone.now())
    ApiKeyFactory(expires_at=timezone.now() - timedelta(seconds=1))
    ApiKeyFactory(customer=CustomerFactory(active=False))
    kept = ApiKeyFactory(expires_at=timezone.now() + timedelta(days=1))

    assert [key.key_id for key in assemble().keys] == [kept.key_id]


def test_revoking_a_key_takes_it_out_of_the_next_snapshot(home):
    issued = issue_key()
    before = publishing.publish(now=timezone.now())
    row = issued.key

    api_keys.revoke(row)

    assert publishing.pending_sequence() is not None
    after = publishing.publish(now=timezone.now())
    assert len(before.keys) == 1
    assert after.keys == ()
    assert snapshot_file.read(home.snapshot).keys == ()


def test_the_number_of_queries_does_not_grow(django_assert_num_queries):
    def populate(count):
        for _ in range(count):
            serve(RouteFactory(with_canary=True))
            AliasFactory(version=ModelVersionFactory(published=True))
            ApiKeyFactory()

    populate(1)
    with django_assert_num_queries(14):
        assemble()
    populate(5)
    with django_assert_num_queries(14):
        assemble()

    assert Customer.objects.count() == 6


def test_a_delta_tells_of_keys_that_end_and_of_customers_that_come_back(home):
    def of(key):
        tables = Tables(snapshot_file.read(home.snapshot))
        digest = bytes.fromhex(key.digest)
        return tables.find_key(digest) is not None, tables.why_ended(digest)

    customer = CustomerFactory()
    key, other = issue_key().key, issue_key(customer).key
    publisher = publishing.Publisher(home.snapshot)
    publisher.publish(now=timezone.now())
    before = of(key), of(other)

    api_keys.revoke(key)
    customer.active = False
    customer.save()
    publisher.publish(now=timezone.now())
    ended = of(key), of(other)
    customer.active = True
    customer.save()
    publisher.publish(now=timezone.now())
    publisher.close()

    assert before == ((True, None), (True, None))
    assert ended == ((False, "revoked"), (False, "inactive"))
    assert of(other) == (True, None)
