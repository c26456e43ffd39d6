"""Predictions from uploaded files: each type of file, and its possible faults."""

import io
import json

import msgspec
import numpy as np
import pytest

from inference.codecs.files import uploaded
from inference.codecs.files.uploaded import UploadedFile
from inference.dialects.open_inference.over_http import OPEN_INFERENCE
from inference.engine.signatures.signature import Column, Layout, Signature
from inference.prediction.effects import EngineCall, ReadUpload
from tests.inference.prediction.test_plan import Driver, code, read, snapshot

URI = "upload://upl_" + "ab" * 16
CSV = b"area,mean radius\n2,1.5\n4,3\n"


class FilesDriver(Driver):
    def __init__(self, content, content_type, published=None):
        super().__init__(published)
        self.file = UploadedFile(content, content_type)

    def perform(self, effect):
        if isinstance(effect, ReadUpload):
            if isinstance(self.file, Exception):
                raise self.file
            return self.file
        return super().perform(effect)

    def rows(self):
        (called,) = (e for e in self.effects if isinstance(e, EngineCall))
        return called.tensors[0].data.tolist()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


ROWS = [[1.5, 2.0], [3.0, 4.0]]
LINES = b'{"mean radius": 1.5, "area": 2}\n\n{"area": 4,\r "mean radius": 3}\r\n'
AS_LIST = b'[{"mean radius": 1.5, "area": 2}, {"area": 4, "mean radius": 3}]'


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (CSV, "text/csv"),
        (AS_LIST, "application/json"),
        (b'{"instances": ' + AS_LIST + b"}", "application/json"),
        (LINES, "application/jsonl"),
        (b"[1.5, 2]\n[3, 4]", "application/x-ndjson"),
        (b"\xef\xbb\xbf[1.5, 2]\n[3, 4]", "application/x-ndjson"),
        (npy(np.array(ROWS, np.float32)), uploaded.NPY),
        (npy(np.asfortranarray(np.array(ROWS, np.float64))), uploaded.NPY),
        (npy(np.array(ROWS, ">f4")), uploaded.NPY),
    ],
)
def test_a_file_of_rows_is_a_request(content, kind):
    driver = FilesDriver(content, kind)

    answer = driver.call({"input_uri": URI})

    assert answer.status == 200, answer.body
    assert driver.rows() == ROWS
    assert len(read(answer)["predictions"]) == 2
    assert answer.event.rows == 2


def test_the_customers_own_file_is_asked_for():
    driver = FilesDriver(CSV, "text/csv")

    driver.call({"input_uri": URI})

    (asked,) = (e for e in driver.effects if isinstance(e, ReadUpload))
    assert (asked.upload_id, asked.customer_id) == (URI[9:], 7)
    assert asked.max_bytes == 32 * 1024 * 1024


@pytest.mark.parametrize(
    ("content", "kind"), [(CSV, "text/csv"), (npy(np.array(ROWS)), uploaded.NPY)]
)
def test_options_beside_the_file_hold(content, kind):
    driver = FilesDriver(content, kind)

    answer = driver.call({"input_uri": URI, "options": {"top_k": 2}})

    assert len(read(answer)["predictions"][0]["scores"]) == 2


def test_a_model_named_beside_the_file_is_found():
    driver = FilesDriver(CSV, "text/csv")

    assert driver.call({"input_uri": URI, "model": "cancer"}, model=None).status == 200


def test_bad_rows_of_a_batch_are_told_one_by_one():
    driver = FilesDriver(b"area,mean radius\nx,1\n2,1.5\n", "text/csv")
    body = {"input_uri": URI, "options": {"return_errors": "individual"}}

    answer = read(driver.call(body, operation="batch"))

    assert answer["predictions"][0] is None
    assert answer["errors"][0]["field"] == "area"


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (b"area\n1\n", "text/csv", (400, "INVALID_INPUT")),
        (b"", "text/csv", (400, "INVALID_INPUT")),
        (b"area,mean radius\n1,2,3\n", "text/csv", (400, "INVALID_INPUT")),
        (b"area,mean radius\n1,-2\n", "text/csv", (422, "UNPROCESSABLE")),
        (CSV + b"1,1\n" * 5, "text/csv", (413, "TOO_LARGE")),
        (b"\xff\xfe", "application/json", (400, "INVALID_JSON")),
        (b"[" * 10_000, "application/json", (400, "INVALID_JSON")),
        (b"{}", "application/json", (400, "INVALID_INPUT")),
        (b"[]", "application/json", (400, "INVALID_INPUT")),
        (b"[1, 2", "application/jsonl", (400, "INVALID_JSON")),
        (b"]}, {", "application/jsonl", (400, "INVALID_JSON")),
        (b"[1,\n2]\n", "application/jsonl", (400, "INVALID_JSON")),
        (b"[1, 2],[3, 4]\n", "application/jsonl", (400, "INVALID_JSON")),
        (b" " * (2**21 + 1), "application/json", (413, "TOO_LARGE")),
        (b"not an array", uploaded.NPY, (400, "INVALID_INPUT")),
        (npy(np.array(ROWS))[:-1], uploaded.NPY, (400, "INVALID_INPUT")),
        (npy(np.array(["a"])), uploaded.NPY, (400, "INVALID_INPUT")),
        (npy(np.array(5.0)), uploaded.NPY, (400, "INVALID_INPUT")),
        (npy(np.ones((1, 3))), uploaded.NPY, (400, "INVALID_INPUT")),
        (npy(np.ones((9, 2))), uploaded.NPY, (413, "TOO_LARGE")),
        (npy(np.array([[-1.0, 1.0]])), uploaded.NPY, (422, "UNPROCESSABLE")),
        (npy(np.array([[np.nan, 1.0]])), uploaded.NPY, (422, "UNPROCESSABLE")),
        (b"\x89PNG", "image/png", (415, "UNSUPPORTED_MEDIA_TYPE")),
    ],
)
def test_a_bad_file_is_refused_like_a_bad_body(content, kind, expected):
    driver = FilesDriver(content, kind)

    answer = driver.call({"input_uri": URI})

    assert code(answer) == expected
    assert not answer.event.charged


def test_the_line_that_is_not_json_is_named():
    driver = FilesDriver(b"[1, 2]\n\n[3, 4\n", "application/jsonl")

    error = read(driver.call({"input_uri": URI}))["error"]

    assert error["message"] == "Line 3 of the file is not JSON."


def served_as(**changes):
    published = snapshot()
    (model, *others) = published.models
    signature = Signature(**changes)
    model = msgspec.structs.replace(
        model,
        versions=tuple(
            msgspec.structs.replace(version, signature=signature)
            for version in model.versions
        ),
    )
    return msgspec.structs.replace(published, models=(model, *others))


@pytest.mark.parametrize("cell", ["1e999", "-1e999"])
def test_a_number_that_is_too_large_is_not_a_missing_one(cell):
    column = Column("size", "float64", required=False)
    published = served_as(layout=Layout.TABLE, columns=(column,))
    driver = FilesDriver(f"size\n{cell}\n".encode(), "text/csv", published)

    answer = driver.call({"input_uri": URI})

    assert code(answer) == (422, "UNPROCESSABLE")
    assert read(answer)["error"]["details"][0]["issue"] == "must be finite"


@pytest.mark.parametrize("value", [2**32 + 5, -(2**31) - 1])
def test_integers_of_an_array_do_not_wrap(value):
    published = served_as(layout=Layout.TENSOR, shape=(2,), dtype="int32")

    def called_with(value):
        array = np.array([[value, 1]])
        driver = FilesDriver(npy(array), uploaded.NPY, published)
        return driver, driver.call({"input_uri": URI})

    assert called_with(2**31 - 1)[0].rows() == [[2**31 - 1, 1]]
    assert code(called_with(value)[1]) == (422, "UNPROCESSABLE")


def test_a_header_that_claims_a_huge_array_takes_no_memory():
    head = "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 2), }\n"
    content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode()

    assert code(FilesDriver(content, uploaded.NPY).call({"input_uri": URI})) == (
        400,
        "INVALID_INPUT",
    )


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "upload://../x", "", 5, None])
def test_only_uris_of_uploads_are_read(uri):
    driver = FilesDriver(CSV, "text/csv")

    answer = driver.call({"input_uri": uri})

    assert code(answer) == (400, "INVALID_INPUT")
    assert not any(isinstance(effect, ReadUpload) for effect in driver.effects)


def test_a_file_beside_instances_is_refused():
    driver = FilesDriver(CSV, "text/csv")

    answer = driver.call({"input_uri": URI, "instances": [[1, 2]]})

    assert code(answer) == (400, "INVALID_INPUT")


@pytest.mark.parametrize(
    ("error", "status"),
    [(uploaded.not_found(), 404), (uploaded.gone(), 410), (uploaded.not_sent(), 409)],
)
def test_what_is_wrong_with_the_upload_is_said(error, status):
    driver = FilesDriver(CSV, "text/csv")
    driver.file = error

    assert driver.call({"input_uri": URI}).status == status


def test_whole_tensors_come_from_an_array():
    published = served_as(layout=Layout.TENSOR, shape=(2, 2), dtype="float32")
    array = np.arange(8, dtype="float32").reshape(2, 2, 2)
    driver = FilesDriver(npy(array), uploaded.NPY, published)

    driver.call({"input_uri": URI})

    assert driver.rows() == array.tolist()


def test_other_protocols_do_not_read_files():
    driver = FilesDriver(CSV, "text/csv")

    answer = driver.call({"input_uri": URI}, dialect=OPEN_INFERENCE)

    assert answer.status == 400
    assert "error" in json.loads(answer.body)
