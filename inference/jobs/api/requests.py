"""Read a request that starts a job: JSON with rows, or a form with a file.

A file goes to the disk as it arrives and is never whole in memory.
"""

from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import IO, Any

import msgspec
from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http import QueryDict, UnreadablePostError
from msgspec import UNSET, Raw, UnsetType
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from inference.api.negotiation import read_body
from inference.codecs.files import uploaded
from inference.codecs.options import read_options
from inference.codecs.strict_json import parse_object
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.errors.problems import problem, with_facts
from inference.jobs.files import JobRequest
from inference.uploads import files as uploaded_files

# For boundaries and fields around the file.
_FORM_BYTES = 64 * 1024
_JSON_MEMBERS = frozenset(
    {"model", "version", "instances", "inputs", "input_uri", "options"}
)
_FORM_FIELDS = frozenset({"model", "version", "file", "options"})
_FORMATS = {
    ".csv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    "text/csv": "csv",
    "application/csv": "csv",
    "application/jsonl": "json",
    "application/x-ndjson": "json",
}


@dataclass(frozen=True, slots=True)
class JsonBody:
    """The members of a JSON object, and its instances as they were written."""

    members: dict[str, Any]
    lines: list[bytes]


class _Instances(msgspec.Struct):
    instances: list[Raw] | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET


class JsonBodyParser(BaseParser):
    """Read a JSON object of limited size strictly."""

    media_type = "application/json"

    def parse(  # type: ignore[override]  # DRF takes any object as request.data
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Any = None,
    ) -> JsonBody:
        body = read_body(stream, advice="Send a file.")
        members = parse_object(body)
        return JsonBody(members=members, lines=_lines(members, body))


class JobUploadHandler(TemporaryFileUploadHandler):
    """Write an upload to FILE_UPLOAD_TEMP_DIR; refuse it once it is too large."""

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        if start + len(raw_data) > settings.JOB_FILE_MAX_BYTES:
            # Closing deletes the file.
            self.file.close()
            raise _file_too_large()
        return super().receive_data_chunk(raw_data, start)


def prepare(request: Request) -> None:
    """Set the upload handler; refuse encoded and too large bodies before reading."""
    encoding = request.headers.get("Content-Encoding", "").lower()
    if encoding not in ("", "identity"):
        message = "Send the body without content encoding."
        raise ApiError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message)
    length = request.META.get("CONTENT_LENGTH") or "0"
    if length.isdecimal() and int(length) > settings.JOB_FILE_MAX_BYTES + _FORM_BYTES:
        raise _file_too_large()
    request._request.upload_handlers = [JobUploadHandler(request._request)]


def read(request: Request) -> JobRequest:
    """Read the request's body; raise ApiError that names every wrong field."""
    try:
        data = request.data
    except SuspiciousOperation:
        raise ApiError(
            ErrorCode.TOO_LARGE, "The form has too many fields, or one is too long."
        ) from None
    except UnreadablePostError:
        raise ApiError(
            ErrorCode.REQUEST_TIMEOUT, "The body did not arrive as a whole."
        ) from None
    if isinstance(data, JsonBody):
        return _read_json(data)
    if not isinstance(data, QueryDict):
        raise ApiError(ErrorCode.INVALID_JSON, "The body is empty.")
    return _read_form(data, request.FILES)


def find_file(asked: JobRequest, *, customer_id: int) -> JobRequest:
    """Add the uploaded file that a request names; raise ApiError."""
    if asked.input_uri is None:
        return asked
    stored = uploaded_files.find(
        uploaded.read(asked.input_uri), customer_id=customer_id
    )
    input_format = _FORMATS.get(stored.content_type)
    if input_format is None:
        raise ApiError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            "Jobs read CSV and JSON Lines. Create the upload with the content type "
            "text/csv or application/jsonl.",
        )
    return replace(asked, stored=stored, input_format=input_format)


def _read_json(body: JsonBody) -> JobRequest:
    members = body.members
    options, problems = _check_common(members, allowed=_JSON_MEMBERS)
    if "instances" in members and "inputs" in members:
        issue = "is another name of instances; send one of them"
        problems.append(problem("inputs", issue))
    name = "inputs" if "inputs" in members else "instances"
    uri = members.get("input_uri")
    if "input_uri" in members:
        if not isinstance(uri, str):
            problems.append(problem("input_uri", "must be the input_uri of an upload"))
        if name in members:
            issue = "cannot be sent beside the instances; send one of them"
            problems.append(problem("input_uri", issue))
    elif name not in members:
        problems.append(problem("instances", "is required, unless a file is sent"))
    elif not body.lines:
        problems.append(problem(name, "must be a list with at least one instance"))
    if problems:
        raise with_facts(problems)
    version = members.get("version")
    return JobRequest(
        model=members["model"],
        version=None if version is None else str(version),
        options=options,
        lines=None if uri else body.lines,
        input_uri=uri,
    )


def _read_form(form: Any, files: Any) -> JobRequest:  # QueryDict and MultiValueDict
    members: dict[str, Any] = {**form.dict(), **files.dict()}
    if text := members.get("options"):
        try:
            members["options"] = parse_object(str(text).encode())
        except (ApiError, UnicodeError):
            members["options"] = text
    else:
        members.pop("options", None)
    options, problems = _check_common(members, allowed=_FORM_FIELDS)
    problems += [
        problem(str(name)[:100], "must be sent once")
        for several in (form, files)
        for name, values in several.lists()
        if len(values) > 1 and name in _FORM_FIELDS
    ]
    upload = files.get("file")
    if not isinstance(upload, TemporaryUploadedFile):
        problems.append(problem("file", "is required, as a file"))
    if problems:
        raise with_facts(problems)
    return JobRequest(
        model=members["model"],
        version=members.get("version") or None,
        options=options,
        upload=upload,
        input_format=_format_of(upload),
    )


def _check_common(
    members: dict[str, Any], *, allowed: frozenset[str]
) -> tuple[dict[str, Any], list[Problem]]:
    problems = [
        problem(str(name)[:100], "is not a member of a job")
        for name in list(members)[:100]
        if name not in allowed
    ]
    model, version = members.get("model"), members.get("version")
    if not isinstance(model, str) or not model:
        problems.append(problem("model", "must be the name of a model"))
    if version is not None and not _is_version(version):
        problems.append(problem("version", "must be a number or an alias"))
    options, bad_options = read_options(members.get("options"))
    given = msgspec.to_builtins(options)
    return {
        name: value for name, value in given.items() if value is not None
    }, problems + bad_options


def _is_version(version: Any) -> bool:
    is_number = isinstance(version, int) and not isinstance(version, bool)
    return is_number or isinstance(version, str)


def _lines(members: dict[str, Any], body: bytes) -> list[bytes]:
    """Cut the instances out of the body, so that numbers stay as they were written."""
    if not isinstance(members.get("instances", members.get("inputs")), list | dict):
        return []
    try:
        found = msgspec.json.decode(body, type=_Instances)
    except msgspec.DecodeError:
        # For example, `instances` is an object.
        return []
    rows = found.inputs if found.instances is UNSET else found.instances
    if rows is UNSET:
        return []
    if isinstance(rows, Raw):
        rows = _split(rows)
    # Line breaks occur only between tokens: JSON escapes them inside strings.
    return [
        bytes(row).replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" for row in rows
    ]


def _split(inputs: Raw) -> list[Raw]:
    """Return `inputs` as a list of instances; it may be a single one."""
    if not bytes(inputs).lstrip().startswith(b"["):
        return [inputs]
    rows: list[Raw] = msgspec.json.decode(inputs, type=list[Raw])
    return rows


def _format_of(upload: TemporaryUploadedFile) -> str:
    suffix = PurePath(upload.name or "").suffix.lower()
    kind = (upload.content_type or "").partition(";")[0].strip().lower()
    input_format = _FORMATS.get(suffix) or _FORMATS.get(kind)
    if input_format is None:
        raise ApiError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            "The file must be CSV (.csv) or JSON Lines (.jsonl).",
        )
    return input_format


def _file_too_large() -> ApiError:
    maximum = settings.JOB_FILE_MAX_BYTES
    return ApiError(
        ErrorCode.TOO_LARGE,
        f"A job's file may have at most {maximum} bytes. Split it.",
        facts={"maximum": maximum},
    )
