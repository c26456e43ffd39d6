"""Read a request's rows from images or an uploaded file, or for another version."""

from collections.abc import Generator
from typing import Any

import msgspec

from inference.codecs.decoding import DecodedRequest, with_images
from inference.codecs.files import uploaded
from inference.codecs.files.uploaded import AskedFile, UploadedFile
from inference.codecs.rows.reader import DecodedRows
from inference.dialects.dialect import ReadsFiles
from inference.errors import refusals
from inference.prediction.effects import Effect, ReadImages, ReadUpload
from inference.prediction.stages import KnownCall, PreparedCall
from inference.snapshot.targets import Target

Reading = Generator[Effect, Any, DecodedRequest]


def read_images(
    decoded: DecodedRequest, customer_id: int, remaining_s: float
) -> Reading:
    """Decode the request's images, if it has any."""
    if decoded.images is None:
        return decoded
    if remaining_s <= 0:
        raise refusals.too_late()
    read: DecodedRows = yield ReadImages(decoded.images, remaining_s, customer_id)
    return with_images(decoded, read)


def read_file(known: KnownCall, target: Target, asked: AskedFile) -> Reading:
    """Read the instances from a file that the customer uploaded before."""
    dialect, limits = known.call.dialect, known.entry.admission.limits
    assert isinstance(dialect, ReadsFiles)
    file: UploadedFile = yield ReadUpload(
        uploaded.read(asked.input_uri),
        known.customer_id,
        dialect.max_binary_body_bytes,
    )
    return dialect.decode_file(known.call, target, asked, file, limits)


def decode_for(
    target: Target, call: PreparedCall, remaining_s: float
) -> Generator[Effect, Any, PreparedCall]:
    """Decode the request again for another version, if its signature differs."""
    known, decoded = call.known, call.decoded
    if target.signature != call.target.signature:
        limits = known.entry.admission.limits
        decoded = known.call.dialect.decode(known.call, target, call.body, limits)
        decoded = yield from read_images(decoded, known.customer_id, remaining_s)
    return msgspec.structs.replace(call, target=target, decoded=decoded)
