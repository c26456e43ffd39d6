from inference.host import output
from inference.installation.log_lines import log_files


def test_the_last_lines_that_the_model_wrote_are_read(tmp_path):
    path = tmp_path / "engine.log"
    lines = [f"line {number}" for number in range(100)]
    path.write_text("\n".join([*lines, '{"event": "ready", "process": "engine"}']))

    assert output.tail(path).splitlines() == lines[-50:]


def test_what_an_earlier_process_wrote_is_not_read(tmp_path):
    path = tmp_path / "engine.log"
    path.write_text("earlier\n")
    start = log_files.size(path)
    with path.open("a") as file:
        file.write("now\n")

    assert output.tail(path, since=start) == "now"


def test_a_log_that_was_emptied_meanwhile_is_read_from_its_beginning(tmp_path):
    path = tmp_path / "engine.log"
    path.write_text("new\n")

    assert output.tail(path, since=1000) == "new"


def test_bytes_that_are_no_text_are_replaced(tmp_path):
    path = tmp_path / "engine.log"
    path.write_bytes(b"\xff\x00good\n")

    assert output.tail(path) == "\ufffdgood"


def test_a_long_log_is_kept_once_and_emptied(tmp_path):
    path = tmp_path / "engine.log"
    path.write_text("x" * 101)

    output.rotate(path, most=100)

    assert path.read_text() == ""
    assert (tmp_path / "engine.log.1").read_text() == "x" * 101


def test_a_flood_is_not_kept(tmp_path):
    path = tmp_path / "engine.log"
    path.write_text("x" * 1000)

    output.rotate(path, most=100)

    assert path.read_text() == ""
    assert not (tmp_path / "engine.log.1").exists()
    assert output.tail(tmp_path / "none.log") == ""
