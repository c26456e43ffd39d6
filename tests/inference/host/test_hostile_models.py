"""Run models that do their worst beside one that does not: it fails no call."""

import contextlib
import os
import signal
import time

import psutil
import pytest

from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.placement.processes import process_name
from tests.inference.host.plant import Caller, Plant, save_model, version
from tests.waiting import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("host")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def artifact(folder):
    return save_model(folder / "model")


@pytest.fixture(scope="module")
def plant(folder):
    plant = Plant(
        folder / "home",
        MODELYARD_ENGINE_MAX_SCRATCH_BYTES="20000000",
        MODELYARD_ENGINE_MAX_PROCESSES="20",
        MODELYARD_ENGINE_DRAIN_S="1",
    )
    yield plant
    plant.close()


@pytest.fixture(scope="module")
def honest(plant, artifact):
    honest = version(artifact, "honest")
    plant.place(honest)
    plant.wait_ready(honest)
    return honest


@pytest.fixture
def placed(plant, artifact, request):
    """Give the hostile model a process of its own, with rules, for one test."""
    made = []

    def place(**rules):
        values = {key: rules.pop(key) for key in ("released_at",) if key in rules}
        name = request.node.name.replace("[", "-").replace("]", "")[-40:]
        name += f"-{len(made)}"
        one = version(artifact, name, **rules)
        plant.place(one, **values)
        made.append(one)
        plant.wait_ready(one)
        return one

    yield place
    for one in made:
        plant.remove(one)


def lost(plant, version, *do, timeout_s=60.0):
    """Ask for something that ends the process; return how the call failed."""
    with pytest.raises(EngineError) as caught:
        plant.ask(version, *do, timeout_s=timeout_s)
    return caught.value.code


def ends(plant, honest, version, *do, timeout_s=60.0):
    """Let a model end its process; return the death. The honest one goes on."""
    before = len(plant.deaths(version))
    with Caller(plant, honest) as caller:
        assert lost(plant, version, *do, timeout_s=timeout_s) is EngineErrorCode.DIED
        wait_until(lambda: len(plant.deaths(version)) > before)
        plant.wait_ready(version)
    assert caller.failures == []
    assert caller.calls > 0
    return plant.deaths(version)[-1]


def zygotes(plant):
    found = []
    for one in psutil.Process(plant.host.pid).children():
        # One that ended has no command.
        with contextlib.suppress(psutil.Error):
            if "inference.engine.zygote" in one.cmdline():
                found.append(one)
    return found


def test_one_that_ends_its_process_is_named_with_its_last_words(plant, honest, placed):
    bad = placed()

    death = ends(plant, honest, bad, "exit")

    assert death.process == process_name(bad)
    assert death.exit_code == 3
    assert death.rows == 1
    assert not death.loading
    assert death.output.endswith("the last words of the model")
    assert death.reason == (
        f"The process ended by itself with exit code 3 while {bad.key} predicted 1 row."
    )


def test_one_that_crashes_is_named_with_its_signal(plant, honest, placed):
    death = ends(plant, honest, placed(), "segfault")

    assert death.signal == "SIGSEGV"
    assert death.exit_code is None


def test_two_deaths_quarantine_it_until_it_is_released(plant, honest, placed):
    bad = placed()
    ends(plant, honest, bad, "exit")
    lost(plant, bad, "exit")
    wait_until(lambda: plant.process(bad).state == "quarantined")

    report = plant.process(bad)
    assert report.quarantined == (bad.key,)
    assert report.problem == "It died twice within ten minutes."
    assert lost(plant, bad, "answer") is EngineErrorCode.CONNECTION_LOST

    plant.place(bad, released_at=time.time())

    plant.wait_ready(bad)
    assert plant.ask(bad, "answer") == ["did answer"]
    wait_until(lambda: plant.process(bad).quarantined == ())


def test_a_killed_host_leaves_no_process_and_forgets_no_quarantine(
    plant, honest, placed
):
    bad, parent = placed(), placed()
    ends(plant, honest, bad, "exit")
    lost(plant, bad, "exit")
    wait_until(lambda: plant.process(bad).state == "quarantined")
    plant.ask(parent, "fork_children", "run_away", "fork")
    leaders = [psutil.Process(plant.pid(one)) for one in (honest, parent)]
    children = leaders[1].children()
    assert len(children) == 5

    plant.restart_host()

    _, alive = psutil.wait_procs([*leaders, *children], 20)
    assert alive == []
    plant.wait_ready(honest)
    wait_until(lambda: plant.process(bad).state == "quarantined")


def test_one_that_stops_itself_is_ended(plant, honest, placed):
    death = ends(plant, honest, placed(), "stop")

    assert death.reason.endswith("it had been stopped by SIGSTOP.")


def test_one_that_holds_the_device_too_long_is_ended(plant, honest, placed):
    death = ends(plant, honest, placed(max_run_s=1.0), "hold")

    assert "one batch ran longer than 1 s (max_run_s)" in death.reason


def test_one_that_spins_in_python_is_ended(plant, honest, placed):
    death = ends(plant, honest, placed(max_run_s=1.0), "spin")

    assert "max_run_s" in death.reason


def test_children_of_a_model_end_with_it(plant, honest, placed):
    bad = placed()
    plant.ask(bad, "fork_children")
    leader = plant.pid(bad)
    children = psutil.Process(leader).children()
    assert len(children) == 3

    os.kill(leader, signal.SIGKILL)

    _, alive = psutil.wait_procs(children, 10)
    assert alive == []
    plant.wait_ready(bad)


def test_a_child_in_a_session_of_its_own_does_not_outlive_its_model(
    plant, honest, placed
):
    bad = placed()
    plant.ask(bad, "run_away")
    leader = plant.pid(bad)
    [child] = psutil.Process(leader).children()

    os.kill(leader, signal.SIGKILL)

    child.wait(10)
    plant.wait_ready(bad)
    plant.wait_ready(honest)


def test_a_fork_bomb_is_ended(plant, honest, placed):
    death = ends(plant, honest, placed(), "fork_bomb")

    assert "processes of its own" in death.reason


def test_one_that_ignores_sigterm_is_killed(plant, artifact, honest):
    bad = version(artifact, "stubborn")
    plant.place(bad)
    plant.wait_ready(bad)
    plant.ask(bad, "ignore_sigterm")
    leader = psutil.Process(plant.pid(bad))

    plant.remove(bad)

    leader.wait(20)
    assert plant.deaths(bad) == []


def test_one_that_fills_its_scratch_folder_is_ended(plant, honest, placed):
    bad = placed()

    death = ends(plant, honest, bad, "fill_scratch")

    assert "scratch folder" in death.reason
    assert list(plant.home.scratch(process_name(bad)).rglob("large*")) == []


def test_one_that_opens_many_files_harms_only_itself(plant, honest, placed):
    bad = placed()
    with Caller(plant, honest) as caller, pytest.raises(EngineError) as caught:
        plant.ask(bad, "open_files")

    assert caught.value.code is EngineErrorCode.MODEL_ERROR
    assert caller.failures == []


def test_one_that_prints_a_gigabyte_leaves_a_short_log(plant, honest, placed):
    bad = placed()
    with Caller(plant, honest) as caller:
        # No file may be larger than the scratch folder, its log neither.
        with contextlib.suppress(EngineError):
            plant.ask(bad, "print_much")
        wait_until(
            lambda: plant.home.engine_log(process_name(bad)).stat().st_size < 2e7
        )

    assert caller.failures == []


def test_one_that_allocates_a_terabyte_fails_alone(plant, honest, placed):
    bad = placed()
    with Caller(plant, honest) as caller, pytest.raises(EngineError) as caught:
        plant.ask(bad, "allocate_terabyte")

    assert caught.value.code is EngineErrorCode.OVERLOADED
    assert caller.failures == []


def test_one_that_grows_over_its_limit_is_ended(plant, honest, placed):
    death = ends(plant, honest, placed(memory_mb=500), "grow")

    assert "its limit is 500 MB" in death.reason


def test_threads_that_never_end_harm_nobody(plant, honest, placed):
    bad = placed()
    with Caller(plant, honest) as caller:
        plant.ask(bad, "threads")
        assert plant.ask(bad, "answer") == ["did answer"]

    assert caller.failures == []


def test_what_one_changes_in_its_process_stays_there(plant, honest, placed):
    bad = placed()
    plant.ask(bad, "change_process")

    assert plant.ask(bad, "answer") == ["did answer"]
    assert plant.ask(honest, "answer") == ["did answer"]


@pytest.mark.parametrize("deed", ["too_many", "sys_exit", "raise", "write_large_file"])
def test_what_raises_fails_only_its_own_call(plant, honest, placed, deed):
    bad = placed()
    with pytest.raises(EngineError) as caught:
        plant.ask(bad, deed)

    assert caught.value.code is EngineErrorCode.MODEL_ERROR
    assert plant.ask(bad, "answer") == ["did answer"]
    assert plant.deaths(bad) == []


def test_one_that_writes_to_its_home_finds_a_folder(plant, honest, placed):
    bad = placed()

    assert plant.ask(bad, "write_home") == ["did write_home"]
    assert (plant.home.scratch(process_name(bad)) / "note.txt").read_text() == "here"


def test_one_that_loads_for_long_keeps_nobody_waiting(plant, artifact, folder, honest):
    slow = version(save_model(folder / "slow", at_load="sleep 20"), "slow")
    quick = version(artifact, "quick")
    with Caller(plant, honest) as caller:
        plant.place(slow, quick)
        began = time.monotonic()
        plant.wait_ready(quick)
        took_s = time.monotonic() - began
    plant.remove(slow)
    plant.remove(quick)

    assert took_s < 15
    assert caller.failures == []


@pytest.mark.parametrize("at_load", ["import no_such_package", "raise", "sys_exit"])
def test_one_that_cannot_load_says_why(plant, folder, honest, at_load):
    bad = version(save_model(folder / at_load, at_load=at_load), at_load)
    plant.place(bad)
    client = plant.client(bad)

    def failed():
        try:
            return client.status().versions[0].state == "failed"
        except (EngineError, IndexError):
            return False

    wait_until(failed)
    error = client.status().versions[0].error
    client.close()
    plant.remove(bad)

    words = {"import no_such_package": "no_such_package", "sys_exit": "7"}
    assert words.get(at_load, "secret-4711") in error


@pytest.mark.parametrize("at_load", ["exit", "segfault"])
def test_one_that_dies_while_it_loads_is_quarantined(plant, folder, honest, at_load):
    bad = version(save_model(folder / f"dies-{at_load}", at_load=at_load), at_load)
    with Caller(plant, honest) as caller:
        plant.place(bad)
        wait_until(lambda: plant.process(bad).state == "quarantined")
    plant.remove(bad)

    assert len(plant.deaths(bad)) == 2
    assert all(death.loading for death in plant.deaths(bad))
    assert caller.failures == []


def test_one_that_dies_of_made_up_rows_loads_without_them(plant, folder, honest):
    odd = version(save_model(folder / "made-up", at_load="made_up"), "made-up")
    plant.place(odd)

    plant.wait_ready(odd)

    [death] = plant.deaths(odd)
    assert death.loading
    assert plant.ask(odd, "answer") == ["did answer"]
    client = plant.client(odd)
    assert "made-up rows" in client.status().versions[0].apart
    client.close()
    plant.remove(odd)


def test_a_process_has_the_name_of_its_engine(plant, honest):
    shown = psutil.Process(plant.pid(honest)).cmdline()

    assert shown[0] == f"modelyard-engine {process_name(honest)}"


def test_engines_survive_their_zygote(plant, honest):
    pid = plant.pid(honest)
    [zygote] = zygotes(plant)
    with Caller(plant, honest) as caller:
        zygote.kill()
        wait_until(lambda: set(zygotes(plant)) - {zygote})

    assert plant.process(honest).pid == pid
    assert caller.failures == []
