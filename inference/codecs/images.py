"""Decode PNG and JPEG files into rows of a model's input tensor.

Decoding a picture takes milliseconds: processes with an event loop do it in a thread.

1. Take the first frame, and turn it as its EXIF orientation says.
2. Convert it to the mode of the signature: drop transparency, make 8 bits of 16.
3. Scale it to the signature's height and width by bilinear interpolation with
   antialiasing; the proportions may change.

A JPEG of over 4 megapixels is decoded at a fraction of its size, but at least at twice
the size that is needed.
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
from inference.engine.signatures.signature import ONLY_INPUT, Image, Signature
from inference.engine.wire.tensors import Array, Tensor
from inference.errors.api_error import ApiError, ErrorCode, Problem
from inference.errors.problems import shown, summary

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MAX_PIXELS = 20_000_000
# Pixels of one side, as in JPEG: each row and column costs memory, however small.
MAX_SIDE = 65_535
# All decoded pictures of one request; as much as may wait for one version.
MAX_TENSOR_BYTES = 64 * 1024 * 1024
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Larger pictures are decoded one at a time: a PNG of 20 megapixels takes up to 100 MB.
_LARGE_PIXELS = 4_000_000
_one_large = threading.Lock()
# Exceptions that Pillow raises for broken files.
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
    """The pictures of a request, still encoded, and the tensor that they become."""

    # Bytes of each file, or base64 text of them.
    files: tuple[bytes | str, ...]
    # Name of each file in problems.
    fields: tuple[str | None, ...]
    image: Image
    dtype: str
    shape: tuple[int, ...]
    # Bad pictures come back as problems instead of refusing the request.
    individual: bool = False


class _TooManyPixels(Exception):
    """The header of a picture announces too many pixels; the text names the limit."""


def encoded(
    signature: Signature,
    files: list[bytes | str],
    fields: list[str | None],
    *,
    individual: bool = False,
) -> EncodedImages:
    """Prepare pictures to be decoded; raise ApiError if they are too large together."""
    image = signature.image
    assert image is not None, "the caller checked that the model takes pictures"
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
    """Decode pictures, and return a problem for each that is bad.

    Raises ApiError INFERENCE_TIMEOUT before the first picture that would begin after
    `deadline`, in seconds of `time.monotonic`.
    """
    # Filled in place: a list of rows and their stack would take the memory twice.
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
    tensors = (Tensor(ONLY_INPUT, tensor[: len(indexes)]),) if indexes else ()
    return DecodedRows(tensors, indexes, problems)


def refuse_images(problems: list[Problem]) -> ApiError:
    """Return the error for a request with bad pictures; 413 if one is too large."""
    too_large = any(problem.code is ErrorCode.TOO_LARGE for problem in problems)
    code = ErrorCode.TOO_LARGE if too_large else ErrorCode.INVALID_INPUT
    message = summary(problems, "image")
    if too_large:
        message = f"An image has more pixels than this site decodes. {message}"
    details = tuple(
        msgspec.structs.replace(found, code=None) for found in shown(problems)
    )
    return ApiError(code, message, details=details)


def _read_image(file: bytes | str, given: EncodedImages, *, max_pixels: int) -> Array:
    content = file if isinstance(file, bytes) else _from_base64(file)
    if not content.startswith((_PNG, _JPEG)):
        raise ValueError("neither PNG nor JPEG")
    # Imported late: a gateway that never gets a picture does not load Pillow.
    import PIL.Image

    # Pillow only warns at its limit; ours is checked before anything is decoded.
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
        # Decode at a half, a quarter or an eighth of the size, if that is enough.
        enough = 2 * max(image.height, image.width)
        picture.draft(None, (enough, enough))
    picture.load()
    orientation = picture.getexif().get(_ORIENTATION, 1)
    # Orientations from 5 on swap height and width.
    lying = orientation in turns and orientation >= 5
    size = (image.height, image.width) if lying else (image.width, image.height)
    picture = _scaled(picture, image.mode, size)
    if orientation in turns:
        # After scaling, because a small picture is cheaper to turn.
        picture = picture.transpose(turns[orientation])
    return _laid_out(np.array(picture), given)


def _scaled(picture: "Picture", mode: str, size: tuple[int, int]) -> "Picture":
    """Convert and scale, with as few full-size pictures in memory as possible.

    Where the order does not matter, the picture is scaled first and converted small.
    """
    import PIL.Image

    if picture.mode.startswith("I"):
        picture = _high_bytes(picture)
    elif picture.mode == "LA":
        picture = picture.getchannel("L")
    elif picture.mode == "RGBA" and mode == "RGB":
        bands = [_resized(picture.getchannel(band), size) for band in mode]
        return PIL.Image.merge("RGB", bands)
    # Pillow would warn of transparency in a palette; the colours do not depend on it.
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
    """Make 8 bits of 16; `convert` would clip all values above 255."""
    import PIL.Image

    pixels: Any = np.asarray(picture)
    if pixels.dtype == np.dtype("<u2"):
        # Without an intermediate copy: 20 megapixels of 16 bits are 40 MB.
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
