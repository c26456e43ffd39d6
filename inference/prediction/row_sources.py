"""How the plan comes by rows that the body alone does not give. Pure.

Pictures, uploaded files, and the same request for another version.
"""

from collections.abc import Generator
from typing import Any

from inference.codecs.decoding import DecodedRequest, with_images
from inference.codecs.files import uploaded
from inference.codecs.files.uploaded import AskedFile, UploadedFile
from inference.codecs.rows.reader import DecodedRows
from inference.dialects.dialect import Call, ReadsFiles
from inference.errors import refusals
from inference.prediction.effects import Effect, ReadImages, ReadUpload
from inference.prediction.progress import CallProgress
from inference.snapshot.targets import Target

Reading = Generator[Effect, Any, DecodedRequest]


def read_images(
    decoded: DecodedRequest, progress: CallProgress, remaining_s: float
) -> Reading:
    """Have pictures decoded, if there are any."""
    if decoded.images is None:
        return decoded
    if remaining_s <= 0:
        raise refusals.too_late()
    assert progress.entry is not None
    read: DecodedRows = yield ReadImages(
        decoded.images, remaining_s, progress.entry.key.customer_id
    )
    return with_images(decoded, read)


def read_file(
    call: Call, progress: CallProgress, target: Target, asked: AskedFile
) -> Reading:
    """Read the instances out of a file that the customer uploaded before."""
    dialect, entry = call.dialect, progress.entry
    assert isinstance(dialect, ReadsFiles)
    assert entry is not None
    file: UploadedFile = yield ReadUpload(
        uploaded.read(asked.input_uri),
        entry.key.customer_id,
        dialect.max_binary_body_bytes,
    )
    return dialect.decode_file(call, target, asked, file, entry.admission.limits)


def decode_for(
    target: Target,
    call: Call,
    progress: CallProgress,
    body: bytes,
    decoded: DecodedRequest,
    remaining_s: float,
) -> Reading:
    """Read the request again for a version that takes something else."""
    if target.signature == progress.target.signature:  # type: ignore[union-attr]
        return decoded
    limits = progress.entry.admission.limits  # type: ignore[union-attr]
    decoded = call.dialect.decode(call, target, body, limits)
    return (yield from read_images(decoded, progress, remaining_s))
