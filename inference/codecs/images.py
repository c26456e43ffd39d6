"""PNG and JPEG files to rows of a model's input tensor. Pure, but slow.

To decode a picture takes milliseconds, so whoever has an event loop does it in a
thread. The rule: the first frame, turned as its EXIF orientation says, converted to the
mode of the signature (transparency is dropped, 16 bits become 8), and scaled to its
height and width by bilinear interpolation with antialiasing, proportions not kept. A
JPEG of over 4 megapixels is decoded at a fraction of its size, at least twice what is
needed.
"""

import binascii
import io
import struct
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from inference.codecs.rows.reader import DecodedRows
from inference.codecs.rows.values import invalid
from inference.engine.signatures.signature import Image, Signature
from inference.engine.wire.tensors import Array, Tensor
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.errors.problems import shown, summary

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_PIXELS = 20_000_000
# Of a side, as in JPEG: rows and columns cost memory of their own, whatever is in them.
MAX_SIDE = 65_535
# Of the decoded pictures of one request: as much as waits for a version at most.
MAX_TENSOR_BYTES = 64 * 1024 * 1024
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Beyond so many pixels one at a time: 20 megapixels of PNG take up to 100 MB.
_LARGE_PIXELS = 4_000_000
_one_large = threading.Lock()
# What Pillow raises for broken files.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    struct.error,
    zlib.error,
)
_ORIENTATION = 0x0112


class EncodedImages(msgspec.Struct, frozen=True):
    """The pictures of a request, still as files, and what they become."""

    # Bytes of a file, or these as base64 text.
    files: tuple[bytes | str, ...]
    # By which names problems are told.
    fields: tuple[str | None, ...]
    image: Image
    dtype: str
    shape: tuple[int, ...]
    # Bad pictures come back as problems instead of refusing the request.
    individual: bool = False


class _TooManyPixels(Exception):
    """The header of a picture says that it is larger than is decoded; so the text."""


def encoded(
    signature: Signature,
    files: list[bytes | str],
    fields: list[str | None],
    *,
    individual: bool = False,
) -> EncodedImages:
    """Raise ApiError if the decoded pictures together would be too large."""
    image = signature.image
    assert image is not None, "the caller asked whether it takes pictures"
    values = image.height * image.width * (3 if image.mode == "RGB" else 1)
    row_bytes = values * np.dtype(signature.dtype).itemsize
    if len(files) > 1 and len(files) * row_bytes > MAX_TENSOR_BYTES:
        most = max(MAX_TENSOR_BYTES // row_bytes, 1)
        raise ApiError(
            ErrorCode.TOO_LARGE,
            f"{len(files)} images are more than the {most} that one request to this "
            "model may hold. Split them up.",
            facts={"limit": "max_images", "maximum": most},
        )
    return EncodedImages(
        tuple(files),
        tuple(fields),
        image,
        signature.dtype,
        signature.shape,
        individual,
    )


def read_images(
    given: EncodedImages, *, max_pixels: int, deadline: float
) -> DecodedRows:
    """Decode pictures, the good apart from the bad; raises ApiError.

    `deadline` is one of `time.monotonic`; a picture that was begun is finished.
    """
    # Filled in place: a list of rows and their stack would be there twice.
    tensor: Any = None
    indexes: list[int] = []
    problems: list[Problem] = []
    for index, (file, field) in enumerate(zip(given.files, given.fields, strict=True)):
        if time.monotonic() > deadline:
            raise ApiError(
                ErrorCode.INFERENCE_TIMEOUT,
                "The images could not be decoded before the deadline. Send fewer or "
                "smaller ones.",
            )
        try:
            row = _read_image(file, given, max_pixels=max_pixels)
        except _TooManyPixels as too_many:
            issue = str(too_many)
            problem = msgspec.structs.replace(
                invalid(index, field, issue), code=ErrorCode.TOO_LARGE
            )
        except _BROKEN:
            problem = invalid(index, field, "must be a whole PNG or JPEG image")
        else:
            if tensor is None:
                tensor = np.empty((len(given.files), *row.shape), row.dtype)
            tensor[len(indexes)] = row
            indexes.append(index)
            continue
        problems.append(problem)
    tensors = (Tensor("input", tensor[: len(indexes)]),) if indexes else ()
    return DecodedRows(tensors, indexes, problems)


def refuse_images(problems: list[Problem]) -> ApiError:
    """Make the error of a request with these problems; 413 if one is too large."""
    too_large = any(problem.code is ErrorCode.TOO_LARGE for problem in problems)
    code = ErrorCode.TOO_LARGE if too_large else ErrorCode.INVALID_INPUT
    message = summary(problems, "image")
    if too_large:
        message = f"An image has more pixels than are decoded here. {message}"
    details = tuple(
        msgspec.structs.replace(found, code=None) for found in shown(problems)
    )
    return ApiError(code, message, details=details)


def _read_image(file: bytes | str, given: EncodedImages, *, max_pixels: int) -> Array:
    content = file if isinstance(file, bytes) else _from_base64(file)
    if not content.startswith((_PNG, _JPEG)):
        raise ValueError("neither PNG nor JPEG")
    # Deferred: gateways that never see a picture do without.
    import PIL.Image

    # Pillow's own limit is a warning; ours is looked at before anything is decoded.
    PIL.Image.MAX_IMAGE_PIXELS = None
    with PIL.Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
        pixels = picture.width * picture.height
        if pixels > max_pixels:
            raise _TooManyPixels(f"must have at most {max_pixels} pixels")
        if max(picture.size) > MAX_SIDE:
            raise _TooManyPixels(f"must have at most {MAX_SIDE} pixels on a side")
        if pixels <= _LARGE_PIXELS:
            return _to_array(picture, given)
        with _one_large:
            return _to_array(picture, given)


def _from_base64(text: str) -> bytes:
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise ValueError("not base64")
    return binascii.a2b_base64(text.encode("ascii"), strict_mode=True)


def _to_array(picture: "Picture", given: EncodedImages) -> Array:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    image = given.image
    if picture.format == "JPEG" and picture.width * picture.height > _LARGE_PIXELS:
        # Decoded at a half, a quarter or an eighth, if that leaves enough.
        enough = 2 * max(image.height, image.width)
        picture.draft(None, (enough, enough))
    picture.load()
    orientation = picture.getexif().get(_ORIENTATION, 1)
    # From 5 on the turns make of height width.
    lying = orientation in turns and orientation >= 5
    size = (image.height, image.width) if lying else (image.width, image.height)
    picture = _scaled(picture, image.mode, size)
    if orientation in turns:
        # The small picture, which is cheaper than the large one.
        picture = picture.transpose(turns[orientation])
    return _laid_out(np.array(picture), given)


def _scaled(picture: "Picture", mode: str, size: tuple[int, int]) -> "Picture":
    """Convert and scale, with as few whole pictures at once as that takes.

    What is converted last is converted small, where the order does not matter.
    """
    import PIL.Image

    if picture.mode.startswith("I"):
        picture = _high_bytes(picture)
    elif picture.mode == "LA":
        picture = picture.getchannel("L")
    elif picture.mode == "RGBA" and mode == "RGB":
        bands = [_resized(picture.getchannel(band), size) for band in mode]
        return PIL.Image.merge("RGB", bands)
    # The colours of the palette stay; Pillow would warn.
    picture.info.pop("transparency", None)
    if picture.mode == "L":
        return _resized(picture, size).convert(mode)
    if picture.mode != mode:
        picture = picture.convert(mode)
    return _resized(picture, size)


def _resized(picture: "Picture", size: tuple[int, int]) -> "Picture":
    from PIL.Image import Resampling

    if picture.size == size:
        return picture
    return picture.resize(size, Resampling.BILINEAR)


def _high_bytes(picture: "Picture") -> "Picture":
    """Make 8 bits of 16; `convert` would cut off what is above 255."""
    import PIL.Image

    pixels: Any = np.asarray(picture)
    if pixels.dtype == np.dtype("<u2"):
        # In place: 16 bits of 20 megapixels are 40 MB.
        return PIL.Image.fromarray(pixels.view(np.uint8)[:, 1::2].copy())
    high = (pixels >> 8).clip(0, 255).astype(np.uint8)
    return PIL.Image.fromarray(high)


def _laid_out(pixels: Any, given: EncodedImages) -> Array:
    dtype: np.dtype[Any] = np.dtype(given.dtype)
    row: Array = pixels.astype(dtype)
    if dtype.kind == "f":
        row /= dtype.type(255)
    if row.ndim == 2 and len(given.shape) != 2:
        row = row[:, :, None]
    if given.image.channels_first and row.ndim == 3:
        row = np.ascontiguousarray(row.transpose(2, 0, 1))
    return row
