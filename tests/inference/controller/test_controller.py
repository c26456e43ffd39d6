"""One controller leads, publishes at once, and outlives its database."""

import subprocess
import sys
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from accounts.customers import api_keys
from inference.controller import controller, leadership
from inference.controller.engine_links import EngineLink
from inference.models import ControllerLease, Engine, ServingRoute
from inference.placement import plan_file, report_file
from inference.placement.processes import EngineProcess, HostPlan, HostReport
from inference.snapshot import snapshot_file
from tests.factories import issue_key
from tests.factories_registry import RouteFactory
from tests.fakes import FakeControlledEngine, ManualClock

pytestmark = pytest.mark.django_db


class Plant:
    """A controller with one engine, which runs only when the test steps it."""

    def __init__(self, home):
        self.home = home
        self.clock = ManualClock()
        # By how much the wall clock was set.
        self.clock_set_s = 0.0
        self.engine = FakeControlledEngine()
        self.link = None
        self.hangs = False
        self.controller = controller.Controller(
            home,
            clock=self.clock,
            wall_clock=lambda: self.clock() + self.clock_set_s,
            make_link=self.make_link,
        )

    def make_link(self, name, address):
        self.link = EngineLink(name=name, address=address, client=self.engine)
        return self.link

    def run(self, seconds):
        for _ in range(round(seconds / 0.2)):
            if self.link is not None and not self.hangs:
                self.link.poll()
            self.controller.step()
            self.clock.advance(0.2)

    def published(self):
        return snapshot_file.read(self.home.snapshot)


@pytest.fixture
def plant(home):
    (home.run / "engine-cpu.sock").touch()
    report = HostReport(host="here", at=0.0, devices=("cpu",))
    report_file.write(home.host_report, report)
    return Plant(home)


def test_only_one_controller_leads():
    now = timezone.now()

    assert leadership.lead("a", now=now)
    assert not leadership.lead("b", now=now + timedelta(seconds=5))
    assert leadership.lead("a", now=now + timedelta(seconds=5))


def test_another_controller_takes_over_when_the_leader_falls_silent():
    now = timezone.now()
    leadership.lead("a", now=now)

    ttl = timedelta(seconds=leadership.LEADERSHIP_TTL_S)

    assert not leadership.lead("b", now=now + ttl)
    assert leadership.lead("b", now=now + ttl + timedelta(seconds=1))
    assert not leadership.lead("a", now=now + ttl + timedelta(seconds=2))


def test_a_controller_that_stops_hands_over_at_once():
    now = timezone.now()
    leadership.lead("a", now=now)

    leadership.resign("b", now=now)
    still_a = not leadership.lead("b", now=now)
    leadership.resign("a", now=now)

    assert still_a
    assert leadership.lead("b", now=now)


def test_a_controller_that_died_is_followed_at_once(home):
    now = timezone.now()
    first = leadership.Predecessor(home.controller, successor="first")
    first.dismiss(now=now)
    leadership.lead("first", now=now)
    second = leadership.Predecessor(home.controller, successor="second")

    second.dismiss(now=now)
    led_beside_the_first = leadership.lead("second", now=now)
    # Its lock ends with it.
    first.close()
    second.dismiss(now=now)
    led_after_it = leadership.lead("second", now=now)
    second.close()

    assert (led_beside_the_first, led_after_it) == (False, True)


def test_a_new_controller_publishes_at_once_where_the_last_was_killed(home):
    killed = leadership.Predecessor(home.controller, successor="killed")
    killed.dismiss(now=timezone.now())
    leadership.lead("killed", now=timezone.now())
    killed.close()

    Plant(home).controller.step()

    assert home.snapshot.exists()


def test_only_the_lease_of_who_died_here_is_freed(home):
    now = timezone.now()
    gone = leadership.Predecessor(home.controller, successor="gone")
    gone.dismiss(now=now)
    gone.close()
    leadership.lead("elsewhere", now=now)

    here = leadership.Predecessor(home.controller, successor="here")
    here.dismiss(now=now)
    here.close()

    assert not leadership.lead("here", now=now)


@pytest.mark.parametrize("hours", [1, 24 * 365])
def test_a_lease_from_a_clock_that_was_put_back_keeps_nobody_out(hours):
    now = timezone.now()
    leadership.lead("died just then", now=now + timedelta(hours=hours))

    assert leadership.lead("next", now=now)


@pytest.mark.parametrize("seconds", [-3600, 3600, 40 * 365 * 86400])
def test_a_clock_that_is_set_publishes_anew(plant, seconds):
    plant.run(1)
    before = plant.published().sequence

    plant.clock_set_s = seconds
    plant.run(1)
    after = plant.published().sequence
    plant.run(1)

    assert after == before + 1
    assert plant.published().sequence == after


def test_the_first_step_publishes(plant):
    issue_key()

    plant.controller.step()

    assert len(plant.published().keys) == 1


def test_a_standby_does_nothing(plant):
    leadership.lead("another", now=timezone.now())

    plant.run(3)

    assert not plant.home.snapshot.exists()
    assert not Engine.objects.exists()


def test_a_leader_that_lost_its_lease_stops_publishing(plant):
    plant.run(1)
    ControllerLease.objects.update(
        holder="another", expires_at=timezone.now() + timedelta(seconds=30)
    )
    plant.run(4)
    before = plant.published().sequence

    issue_key()
    plant.run(1)

    assert plant.published().sequence == before


def test_a_revoked_key_leaves_the_snapshot_with_the_next_step(plant):
    issued = issue_key()
    plant.controller.step()
    assert len(plant.published().keys) == 1

    api_keys.revoke(issued.key)
    plant.controller.step()

    assert plant.published().keys == ()


def test_a_route_is_loaded_served_and_published(plant):
    route = RouteFactory()

    plant.run(3)

    (model,) = plant.published().models
    assert [v.version for v in model.variants] == [route.default_version.version]
    assert model.versions[0].engines == ("cpu",)
    assert Engine.objects.get().address == str(plant.home.run / "engine-cpu.sock")


def test_a_moved_weight_is_published_with_the_next_step(plant):
    route = RouteFactory(with_canary=True)
    plant.run(3)

    route.canary_weight_percent = route.default_weight_percent = 50
    route.save()
    controller.publishing.mark_changed()
    plant.controller.step()

    (model,) = plant.published().models
    assert [variant.weight_percent for variant in model.variants] == [50, 50]


def test_a_new_controller_does_not_say_that_no_engine_runs(plant, home):
    RouteFactory()
    plant.run(3)
    leadership.resign(plant.controller.holder, now=timezone.now())

    successor = Plant(home)
    successor.engine = plant.engine
    successor.controller.step()
    at_first = ServingRoute.objects.get().waiting_for
    successor.run(2)

    assert at_first == ""
    assert ServingRoute.objects.get().waiting_for == ""


def test_a_lost_snapshot_file_is_written_again_by_the_next_leader(plant, home):
    plant.run(1)
    home.snapshot.unlink()
    leadership.resign(plant.controller.holder, now=timezone.now())

    Plant(home).controller.step()

    assert home.snapshot.exists()


@pytest.mark.django_db(transaction=True)
def test_a_database_outage_is_survived(plant):
    def outage(execute, sql, params, many, context):
        raise OperationalError("disk I/O error")

    plant.run(1)
    issued = issue_key()
    with connection.execute_wrapper(outage):
        plant.run(2)
    plant.run(1)

    assert [key.key_id for key in plant.published().keys] == [issued.key.key_id]


def test_a_broken_step_does_not_end_the_others(plant, home):
    home.spool.rmdir()
    home.spool.touch()

    plant.run(2)

    assert plant.published().sequence > 0


def test_an_engine_that_no_plan_names_is_forgotten_at_once(plant, home):
    gone = EngineProcess(name="gone", device="cpu", kind="own")
    plan_file.write(home.host_plan, HostPlan(processes=(gone,)))
    Engine.objects.create(name="gone", kind="own", state="unreachable")

    plant.run(2)

    assert [engine.name for engine in Engine.objects.all()] == ["cpu"]


def test_a_socket_that_no_plan_names_is_no_engine(plant, home):
    (home.run / "engine-stranger.sock").touch()

    plant.run(2)

    assert [engine.name for engine in Engine.objects.all()] == ["cpu"]


def test_an_engine_that_hangs_at_its_first_answer_keeps_nobody_waiting(plant, home):
    plant.run(1)
    leadership.resign(plant.controller.holder, now=timezone.now())
    successor = Plant(home)
    successor.hangs = True
    RouteFactory()

    successor.run(2)
    at_first = ServingRoute.objects.exists()
    successor.run(3)

    assert not at_first
    assert "waits for its process cpu" in ServingRoute.objects.get().waiting_for


def test_run_returns_and_hands_over_when_told_to_stop(plant):
    leadership.lead(plant.controller.holder, now=timezone.now())

    plant.controller.stop()
    plant.controller.run()

    assert ControllerLease.objects.get().holder == ""


def test_the_controller_imports_nothing_heavy():
    code = (
        "import django, sys; sys.path.append('platform'); django.setup();"
        "import inference.management.commands.run_controller;"
        "print({'torch', 'mlflow', 'shap', 'sklearn'} & set(sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "set()"
