"""Following deltas leads to the same state as reading a whole snapshot."""

import random
import threading
import time
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.customers import api_keys, changes
from accounts.models import ApiKey, Customer, Plan
from inference.controller import engine_records, publishing
from inference.controller.engine_links import EngineView
from inference.engine.wire.messages import EngineStatus, VersionKey, VersionStatus
from inference.models import ServingRoute, SnapshotChange, SnapshotState
from inference.snapshot import contents, snapshot_file
from inference.snapshot.tables import Tables
from inference.snapshot.watcher import SnapshotWatcher
from registry import changes as registry_changes
from registry.models import RegisteredModel, Route
from tests.factories import CustomerFactory, PlanFactory, issue_key
from tests.factories_registry import AliasFactory, ModelVersionFactory, RouteFactory

pytestmark = pytest.mark.django_db


class World:
    """A publisher, and the tables of a gateway that follows it."""

    def __init__(self, home, **options):
        self.home = home
        self.publisher = publishing.Publisher(home.snapshot, **options)
        self.tables = Tables()
        self.watcher = SnapshotWatcher(home.snapshot, self.tables)
        publishing.mark_changed()
        self.publish()

    def publish(self):
        published = self.publisher.publish(now=timezone.now())
        self.watcher.look()
        return published

    def file(self):
        return self.home.snapshot.stat().st_ino

    def publish_until(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            issue_key()
            assert not self.publish().whole


@pytest.fixture
def world(home):
    world = World(home)
    yield world
    world.publisher.close()


@pytest.fixture
def renewing(home, transactional_db):
    """Return a world whose file is renewed after every few changes."""
    world = World(home, renew_after_bytes=500)
    yield world
    world.publisher.close()


def comparable(found):
    """Drop differences that are not changes: order, times and expired keys."""
    now = timezone.now().timestamp()
    return {
        "models": {model.name: model for model in found.models},
        "keys": {
            key.digest: key
            for key in found.keys
            if key.expires_at is None or key.expires_at > now
        },
        "customers": {one.customer_id: one.limits for one in found.customers},
        "engines": {one.name: one.address for one in found.engines},
        "default": found.site_default_model,
    }


class People:
    """Makes random changes through the functions that people and machines use."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.pick = self.random.choice

    def change(self):
        self.pick(
            [
                *[self.issue, self.change_key, self.rotate, self.revoke] * 3,
                self.add_customer,
                self.switch_customer,
                self.move_customer,
                self.override,
                self.archive,
                self.change_plan,
                self.delete_customer,
                self.add_model,
                self.change_route,
                self.serve,
                self.default_model,
                self.engine,
            ]
        )()

    def customer(self, **fields):
        return self.pick(list(Customer.objects.filter(**fields)) or [None])

    def key(self):
        keys = ApiKey.objects.filter(revoked_at=None, replaced_by=None)
        return self.pick(list(keys) or [None])

    def issue(self):
        if customer := self.customer(active=True):
            limits = api_keys.OwnLimits(daily_quota=self.pick([None, 5]))
            issue_key(customer, limits=limits)

    def change_key(self):
        if key := self.key():
            api_keys.change(
                key,
                name="changed",
                scopes=["predict"],
                allowed_models=[f"m{self.random.random()}"],
                expires_at=None,
                limits=api_keys.OwnLimits(daily_quota=self.pick([None, 5, 6])),
            )

    def rotate(self):
        if key := self.key():
            api_keys.rotate(key, overlap=timedelta(seconds=self.pick([0, 3600])))

    def revoke(self):
        if key := self.key():
            api_keys.revoke(key)

    def add_customer(self):
        CustomerFactory.create(plan=self.pick(list(Plan.objects.all())))

    def switch_customer(self):
        if customer := self.customer(archived_at=None):
            customer.active = not customer.active
            changes.save(customer)

    def move_customer(self):
        if customer := self.customer():
            customer.plan = self.pick(list(Plan.objects.all()))
            changes.save(customer)

    def override(self):
        if customer := self.customer():
            customer.limit_overrides = self.pick(
                [{}, {"daily_quota": 7}, {"daily_quota": None, "max_concurrency": 2}]
            )
            changes.save(customer)

    def archive(self):
        if customer := self.customer(archived_at=None):
            changes.archive(customer)

    def change_plan(self):
        plan = self.pick(list(Plan.objects.all()))
        plan.daily_quota = self.pick([None, 100])
        plan.quota_unit = self.pick(["rows", "requests"])
        plan.description = "More."
        changes.save(plan)

    def delete_customer(self):
        customer = CustomerFactory.create(plan=self.pick(list(Plan.objects.all())))
        changes.delete(self.pick([customer, PlanFactory.create()]))

    def add_model(self):
        version = ModelVersionFactory.create()
        AliasFactory.create(version=version)
        registry_changes.save(
            Route(registered_model=version.registered_model, default_version=version),
            by=None,
            reason="test",
        )

    def change_route(self):
        if route := self.pick(list(Route.objects.all()) or [None]):
            route.enabled = self.pick([True, True, False])
            route.cache_ttl_s = self.pick([0, 60])
            registry_changes.save(route, by=None, reason="test")

    def serve(self):
        if route := self.pick(list(Route.objects.all()) or [None]):
            name = route.registered_model.name
            ServingRoute.objects.update_or_create(
                model=name,
                defaults={
                    "default_version": route.default_version.version,
                    "default_weight_percent": 100,
                    "canary_weight_percent": 0,
                },
            )
            publishing.mark_changed(publishing.Kind.MODEL, [name])

    def default_model(self):
        if model := self.pick(list(RegisteredModel.objects.all()) or [None]):
            registry_changes.make_site_default(model, by=None)

    def engine(self):
        loaded = {
            VersionKey(route.registered_model.name, route.default_version.version)
            for route in Route.objects.all()
            if self.random.random() < 0.5
        }
        view = EngineView(
            name=self.pick(["cpu", "gpu"]),
            address=self.pick(["/run/a", "/run/b"]),
            status=self.pick([None, EngineStatus(1, "cpu", 1, 0, (), {})]),
            versions={key: VersionStatus(key=key, state="ready") for key in loaded},
        )
        engine_records.record(view, now=timezone.now())


@pytest.mark.parametrize("seed", range(6))
def test_who_follows_deltas_knows_what_one_knows_who_reads_everything(
    world, seed, monkeypatch
):
    # Most deltas have several parts.
    monkeypatch.setattr(contents, "PART_BYTES", 200)
    PlanFactory.create_batch(2)
    people = People(seed)
    whole = 0

    for _ in range(25):
        for _ in range(people.random.randint(1, 4)):
            people.change()
        whole += world.publish().whole
        expected = comparable(publishing.assemble(sequence=1, now=timezone.now()))
        assert comparable(world.tables.as_snapshot()) == expected
        assert set(world.tables.models) == set(expected["models"])
        assert all(
            world.tables.models[name].model == model
            for name, model in expected["models"].items()
        )

    assert whole == 0
    assert comparable(snapshot_file.read(world.home.snapshot)) == expected
    assert not SnapshotChange.objects.exists()


@pytest.mark.parametrize("seed", range(3))
def test_no_change_is_lost_while_files_are_renewed(renewing, seed):
    PlanFactory.create_batch(2)
    people = People(seed)
    files = {renewing.file()}

    for _ in range(40):
        for _ in range(people.random.randint(1, 3)):
            people.change()
        assert not renewing.publish().whole
        files.add(renewing.file())
        expected = comparable(publishing.assemble(sequence=1, now=timezone.now()))
        assert comparable(renewing.tables.as_snapshot()) == expected

    assert comparable(snapshot_file.read(renewing.home.snapshot)) == expected
    renewing.publish_until(lambda: len(files) > 1 or renewing.file() not in files)


def test_a_change_of_a_key_is_a_delta_that_names_nothing_else(world):
    issue_key()
    kept, revoked = issue_key().key, issue_key().key
    world.publish()
    api_keys.revoke(revoked)

    published = world.publish()

    last = list(snapshot_file.SnapshotReader(world.home.snapshot).parts())[-1]
    assert not published.whole
    assert last.gone_keys == (bytes.fromhex(revoked.digest),)
    assert (last.keys, last.customers, last.models, last.engines) == ((), (), (), None)
    assert world.tables.find_key(bytes.fromhex(revoked.digest)) is None
    assert world.tables.find_key(bytes.fromhex(kept.digest)) is not None


def test_a_change_of_a_route_is_a_delta_of_its_model(world):
    route, other = RouteFactory(), RouteFactory()
    for one in (route, other):
        registry_changes.save(one, by=None, reason="made")
    world.publish()
    untouched = world.tables.models[other.registered_model.name]
    route.cache_ttl_s = 60
    registry_changes.save(route, by=None, reason="cache")

    assert not world.publish().whole

    last = list(snapshot_file.SnapshotReader(world.home.snapshot).parts())[-1]
    assert [model.name for model in last.models] == [route.registered_model.name]
    assert world.tables.models[route.registered_model.name].model.cache.ttl_s == 60
    assert world.tables.models[other.registered_model.name] is untouched


def test_other_keys_keep_their_counts_and_their_remembered_tokens(world):
    kept, changed = issue_key().key, issue_key().key
    world.publish()
    entries = {}
    for key in (kept, changed):
        entries[key] = world.tables.find_key(bytes.fromhex(key.digest))
        world.tables.remember_token(key.key_id.encode(), entries[key])

    api_keys.revoke(changed)
    world.publish()

    assert world.tables.known_token(kept.key_id.encode()) is entries[kept]
    assert world.tables.known_token(changed.key_id.encode()) is None


def test_a_change_that_is_none_for_gateways_moves_the_sequence_alone(world):
    plan = CustomerFactory.create().plan
    world.publish()
    plan.description = "Only people read this."
    changes.save(plan)

    published = world.publish()

    assert (published.whole, world.tables.sequence) == (False, published.sequence)


def test_a_publisher_that_begins_writes_the_whole(world):
    issue_key()
    before = world.tables.sequence
    publisher = publishing.Publisher(world.home.snapshot)

    assert publisher.publish(now=timezone.now()).whole

    publisher.close()
    world.watcher.look()
    assert world.tables.sequence > before
    assert len(world.tables.as_snapshot().keys) == 1


def test_a_leader_that_was_replaced_loses_no_revocation(world):
    """A controller sleeps, another leads meanwhile, and then the first publishes."""
    issued = issue_key().key
    world.publish()
    other = publishing.Publisher(world.home.snapshot)
    issue_key()
    other.publish(now=timezone.now())
    api_keys.revoke(issued)

    world.publish()

    assert publishing.pending_sequence() is not None
    other.publish(now=timezone.now())
    other.close()
    world.watcher.look()
    assert world.tables.find_key(bytes.fromhex(issued.digest)) is None
    assert len(world.tables.as_snapshot().keys) == 1


def test_a_failed_write_is_followed_by_a_whole_snapshot(world, monkeypatch):
    issue_key()

    def no_space(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(snapshot_file.SnapshotWriter, "append", no_space)
        with pytest.raises(OSError, match="No space"):
            world.publish()
    assert publishing.pending_sequence() is not None

    assert world.publish().whole
    assert len(world.tables.as_snapshot().keys) == 1


def test_many_changes_at_once_are_read_as_a_whole(world):
    issue_key()
    SnapshotChange.objects.bulk_create(
        SnapshotChange(kind="model", name=f"m{number}") for number in range(3000)
    )

    assert world.publish().whole
    assert not SnapshotChange.objects.exists()


def test_a_long_file_is_replaced_by_one_that_says_the_same(renewing):
    for _ in range(3):
        file = renewing.file()
        renewing.publish_until(lambda file=file: renewing.file() != file)

    parts = list(snapshot_file.SnapshotReader(renewing.home.snapshot).parts())
    assert {part.base for part in parts} == {0}
    assert len(renewing.tables.as_snapshot().keys) == ApiKey.objects.count()
    assert SnapshotState.objects.get().published == renewing.tables.sequence
    assert not list(renewing.home.snapshot.parent.glob("*.partial"))


def test_a_revocation_does_not_wait_for_a_file_that_is_being_written(
    renewing, monkeypatch
):
    begun, may_go_on = threading.Event(), threading.Event()

    class Held(snapshot_file.SnapshotWriter):
        def __init__(self, *args):
            begun.set()
            assert may_go_on.wait(60)
            super().__init__(*args)

    monkeypatch.setattr(publishing, "SnapshotWriter", Held)
    key = issue_key().key
    file = renewing.file()
    renewing.publish_until(begun.is_set)

    api_keys.revoke(key)
    renewing.publish()

    # The new file was begun before the revocation, when the key was valid.
    digest = bytes.fromhex(key.digest)
    assert renewing.tables.find_key(digest) is None
    assert renewing.file() == file
    may_go_on.set()
    renewing.publish_until(lambda: renewing.file() != file)
    assert renewing.tables.find_key(digest) is None
    assert renewing.tables.why_ended(digest) == "revoked"
    assert len(renewing.tables.as_snapshot().keys) == ApiKey.objects.count() - 1


def test_changes_go_on_into_a_file_that_could_not_be_renewed(renewing, monkeypatch):
    tried = threading.Event()

    def no_space(*_):
        tried.set()
        raise OSError(28, "No space left on device")

    file = renewing.file()
    with monkeypatch.context() as patched:
        patched.setattr(publishing, "SnapshotWriter", no_space)
        renewing.publish_until(tried.is_set)
        for _ in range(3):
            issue_key()
            assert not renewing.publish().whole
        assert renewing.file() == file

    renewing.publish_until(lambda: renewing.file() != file)
    assert len(renewing.tables.as_snapshot().keys) == ApiKey.objects.count()


def test_a_leader_that_was_replaced_renews_nothing(renewing, monkeypatch):
    """A controller sleeps within a write, and then finds a file of another one."""
    begun = threading.Event()

    class Told(snapshot_file.SnapshotWriter):
        def __init__(self, *args):
            super().__init__(*args)
            begun.set()

    monkeypatch.setattr(publishing, "SnapshotWriter", Told)
    renewing.publish_until(begun.is_set)
    other = publishing.Publisher(renewing.home.snapshot)
    other.publish(now=timezone.now())
    key = issue_key().key
    other.publish(now=timezone.now())

    issue_key()

    assert renewing.publish().whole
    other.close()
    assert renewing.tables.find_key(bytes.fromhex(key.digest)) is not None
