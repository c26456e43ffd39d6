import msgspec
import pytest

from inference.engine.wire.messages import VersionKey, VersionToLoad
from inference.engine.wire.notes import Note
from inference.host import deaths
from inference.host.deaths import Deaths
from inference.placement.processes import Death, EngineProcess

CHURN, RISK = VersionKey("churn", 3), VersionKey("risk v2", 1)


def process(*keys, **values):
    versions = tuple(
        VersionToLoad(key=key, path="/a", flavors=(), signature={}) for key in keys
    )
    return EngineProcess(
        name="p", device="cpu", kind="group", versions=versions, **values
    )


def note(key, began_at=0.0, *, loading=False):
    return Note(str(key), 5, 1, began_at, loading)


def death(at, key=CHURN, process="p"):
    return Death(at=at, process=process, version=key, reason="It died.")


def test_the_version_whose_piece_ran_longest_is_named():
    notes = [note(RISK, 1.0), note(CHURN, 2.0)]

    key, found = deaths.attribute(process(CHURN, RISK), notes)

    assert key == RISK
    assert found == notes[0]


def test_what_loads_is_named_only_if_nothing_ran():
    loading, running = note(RISK, 1.0, loading=True), note(CHURN, 2.0)

    assert deaths.attribute(process(CHURN, RISK), [loading, running])[0] == CHURN
    assert deaths.attribute(process(CHURN, RISK), [loading])[0] == RISK


def test_a_version_alone_in_its_process_is_always_named():
    assert deaths.attribute(process(CHURN), []) == (CHURN, None)
    # Whatever a model wrote into the shared memory.
    for forged in ("\x00\x01", RISK, "risk v\N{SUPERSCRIPT TWO}"):
        assert deaths.attribute(process(CHURN), [note(forged)]) == (CHURN, None)


def test_a_process_cannot_name_versions_that_it_does_not_hold():
    forged = [note("risk v7", 1.0), note(CHURN, 2.0)]

    assert deaths.attribute(process(CHURN, RISK), forged) == (CHURN, forged[1])
    assert deaths.attribute(process(CHURN, RISK), forged[:1]) == (None, None)


def test_the_engine_of_a_device_knows_no_versions_by_itself():
    device = EngineProcess(name="cpu", device="cpu")

    assert deaths.attribute(device, [note(RISK)])[0] == RISK
    assert deaths.attribute(device, []) == (None, None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"exit_code": 3, "signal_name": ""},
            "The process ended by itself with exit code 3 while churn v3 predicted "
            "5 rows.",
        ),
        (
            {"exit_code": None, "signal_name": "SIGSEGV"},
            "The process was ended by SIGSEGV while churn v3 predicted 5 rows.",
        ),
        (
            {"exit_code": None, "signal_name": "SIGKILL", "asked": "it used 9 MB."},
            "The process was ended while churn v3 predicted 5 rows: it used 9 MB.",
        ),
    ],
)
def test_a_sentence_says_what_happened(values, words):
    given = {"asked": "", "note": note(CHURN)} | values

    assert deaths.sentence(**given) == words


def test_a_kill_from_elsewhere_is_explained():
    words = deaths.sentence(
        asked="", exit_code=None, signal_name="SIGKILL", note=note(CHURN, loading=True)
    )

    assert words.startswith("The process was killed by SIGKILL while it loaded churn")


@pytest.mark.parametrize(
    ("times", "is_quarantined"),
    [
        ([], False),
        ([1000.0], False),
        ([1000.0, 1599.0], True),
        ([1000.0, 1601.0], False),
        ([100.0, 1000.0, 1100.0], True),
    ],
)
def test_two_deaths_within_ten_minutes_quarantine(tmp_path, times, is_quarantined):
    known = Deaths(tmp_path / "deaths.json")
    for at in times:
        known.add(death(at))

    expected = (CHURN,) if is_quarantined else ()
    assert known.quarantined(process(CHURN, RISK)) == expected
    # Also for the next host of this machine.
    assert Deaths(tmp_path / "deaths.json").quarantined(process(CHURN)) == expected


def test_deaths_before_a_release_or_elsewhere_count_no_more(tmp_path):
    known = Deaths(tmp_path / "deaths.json")
    for one in (death(1000.0), death(1001.0), death(1002.0, process="q")):
        known.add(one)

    assert known.quarantined(process(CHURN, released_at=1000.5)) == ()
    assert known.quarantined(process(RISK)) == (CHURN,)


def test_deaths_are_kept_for_a_day_and_the_last_two_of_a_process_for_longer(tmp_path):
    known = Deaths(tmp_path / "deaths.json")
    for at in (0.0, 1.0, 2.0, 90_000.0):
        known.add(death(at))
    known.add(death(100_000.0, process="q"))

    assert [one.at for one in known.all] == [2.0, 90_000.0, 100_000.0]


def test_a_quarantine_ends_neither_in_time_nor_by_the_deaths_of_others(tmp_path):
    known = Deaths(tmp_path / "deaths.json")
    for at in (10.0, 11.0):
        known.add(death(at))
    # As many as are kept, and more; each is written to the disk.
    for at in range(150):
        known.add(death(100_000.0 + at, process="q"))

    assert known.quarantined(process(CHURN)) == (CHURN,)
    assert len(known.all) == 102


def test_the_output_of_the_last_two_deaths_of_a_process_is_kept(tmp_path):
    known = Deaths(tmp_path / "deaths.json")
    for at in (1.0, 2.0, 3.0):
        known.add(msgspec.structs.replace(death(at), output=f"words {at:g}"))

    assert [one.output for one in known.all] == ["", "words 2", "words 3"]


@pytest.mark.parametrize("text", ["", "[{", '{"a": 1}', "\x00"])
def test_a_torn_file_is_no_reason_not_to_start(tmp_path, text):
    path = tmp_path / "deaths.json"
    path.write_text(text)

    assert Deaths(path).all == []
