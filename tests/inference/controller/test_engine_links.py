"""A link's view never shows a version that the engine was told to unload."""

import msgspec

from inference.controller.engine_links import EngineLink
from inference.engine.wire.errors import EngineError, EngineErrorCode
from inference.engine.wire.messages import (
    Batching,
    VersionKey,
    VersionStatus,
    VersionToLoad,
)
from tests.fakes import FakeControlledEngine

KEY = VersionKey("m", 1)
VERSION = VersionToLoad(key=KEY, path="/a", flavors=(), signature={})


def link_to(engine):
    return EngineLink(name="cpu", address="/x", client=engine)


def loaded_engine():
    engine = FakeControlledEngine()
    engine.loaded[KEY] = VersionStatus(key=KEY, state="ready")
    return engine


def test_an_engine_that_was_not_asked_yet_is_neither_there_nor_away():
    view = link_to(FakeControlledEngine()).view

    assert not view.asked
    assert view.status is None


def test_commands_are_sent_in_order_with_the_next_poll():
    engine = FakeControlledEngine()
    link = link_to(engine)

    link.load(VERSION)
    link.unload(KEY)
    link.load(VERSION)
    link.poll()

    assert engine.commands == [("load", KEY), ("unload", KEY), ("load", KEY)]


def test_a_version_to_unload_is_gone_from_the_view_at_once():
    engine = loaded_engine()
    link = link_to(engine)
    link.poll()

    link.unload(KEY)

    assert link.view.versions == {}
    assert KEY in engine.loaded


def test_a_version_to_load_is_loading_in_the_view_at_once():
    link = link_to(FakeControlledEngine())
    link.poll()

    link.load(VERSION)

    assert link.view.versions[KEY].state == "loading"


def test_a_report_from_before_an_unload_does_not_bring_the_version_back():
    engine = loaded_engine()
    link = link_to(engine)
    report = engine.status

    def unload_while_reporting():
        status = report()
        link.unload(KEY)
        return status

    engine.status = unload_while_reporting
    link.poll()

    assert link.view.versions == {}


def test_a_refused_command_does_not_hide_the_report():
    engine = loaded_engine()
    link = link_to(engine)

    def refuse(key):
        raise EngineError(EngineErrorCode.BAD_REQUEST, "no")

    engine.unload = refuse
    link.unload(KEY)
    link.poll()

    assert link.view.versions[KEY].state == "ready"


def test_an_engine_that_is_away_has_a_reason_and_no_versions():
    engine = loaded_engine()
    link = link_to(engine)
    link.poll()

    engine.reachable = False
    link.poll()

    assert link.view.status is None
    assert link.view.error == "no such socket"
    assert link.view.versions == {}


def test_a_running_link_polls_until_it_is_stopped():
    engine = loaded_engine()
    link = link_to(engine)
    link.start()

    while not link.view.asked:
        link.join(0.01)
    link.stop()
    link.join(60)

    assert link.view.versions.keys() == {KEY}


def test_a_version_that_answers_goes_on_answering_with_new_limits():
    link = link_to(loaded_engine())
    link.poll()
    limits = Batching(max_batch_rows=8)

    link.load(msgspec.structs.replace(VERSION, batching=limits, pinned=False))

    version = link.view.versions[KEY]
    assert version.state == "ready"
    assert version.batching == limits
    assert not version.pinned
