import base64
import io
import struct
import time
import zlib

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.codecs.decoding import InstanceDecoder, with_images
from inference.codecs.images import MAX_PIXELS, encoded, read_images
from inference.engine.signatures.signature import Image, Layout, Signature
from inference.errors.api_error import ApiError, ErrorCode

COLOUR = Signature(
    layout=Layout.TENSOR,
    dtype="float32",
    shape=(3, 4, 6),
    image=Image(mode="RGB", height=4, width=6, channels_first=True),
)
GREY = Signature(
    layout=Layout.TENSOR,
    dtype="uint8",
    shape=(4, 6),
    image=Image(mode="L", height=4, width=6),
)
colour = InstanceDecoder(COLOUR)


def picture(mode="RGB", size=(6, 4), colour=(255, 0, 51), kind="PNG", **options):
    file = io.BytesIO()
    PIL.Image.new(mode, size, colour).save(file, kind, **options)
    return file.getvalue()


def read(*files, signature=COLOUR, max_pixels=MAX_PIXELS, seconds=60.0):
    given = encoded(signature, list(files), [None] * len(files))
    return read_images(
        given, max_pixels=max_pixels, deadline=time.monotonic() + seconds
    )


def row(file, **options):
    found = read(file, **options)
    assert not found.problems
    return found.tensors[0].data[0]


def bomb(width, height):
    """Make a PNG of a few hundred bytes whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(b"\0" * 10_000), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


def test_floats_are_from_0_to_1_with_channels_first():
    data = row(picture())

    assert data.dtype == np.float32
    assert data.shape == (3, 4, 6)
    np.testing.assert_allclose(data[:, 0, 0], [1, 0, 0.2], atol=1e-6)


def test_integers_are_from_0_to_255_and_grey_needs_no_channel():
    data = row(picture("L", colour=77), signature=GREY)

    assert (data.dtype, data.shape) == (np.uint8, (4, 6))
    assert set(data.flat) == {77}


@pytest.mark.parametrize(
    ("mode", "value", "kind"),
    [
        ("RGBA", (255, 0, 51, 128), "PNG"),
        ("P", 0, "PNG"),
        ("1", 1, "PNG"),
        ("LA", (9, 9), "PNG"),
        ("CMYK", (0, 255, 204, 0), "JPEG"),
        ("L", 200, "JPEG"),
    ],
)
def test_every_mode_becomes_the_models(mode, value, kind):
    assert row(picture(mode, colour=value, kind=kind)).shape == (3, 4, 6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1"])
@pytest.mark.parametrize("wanted", ["RGB", "L"])
def test_scaling_before_converting_changes_nothing(mode, wanted):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 4), np.uint8)
    noise[..., 3] = 255
    original = PIL.Image.fromarray(noise, "RGBA")
    original = original.convert("RGB") if mode in ("P", "1", "L") else original
    file = io.BytesIO()
    original.convert(mode).save(file, "PNG")
    image = Image(mode=wanted, height=4, width=6)
    shape = (4, 6) if wanted == "L" else (4, 6, 3)
    signature = Signature(layout=Layout.TENSOR, dtype="uint8", shape=shape, image=image)

    given = encoded(signature, [file.getvalue()], [None])
    read = read_images(given, max_pixels=10_000, deadline=time.monotonic() + 60)

    decoded = PIL.Image.open(file).convert("RGBA").convert("RGB").convert(wanted)
    expected = np.array(decoded.resize((6, 4), PIL.Image.Resampling.BILINEAR))
    assert np.abs(read.tensors[0].data[0].astype(int) - expected).max() <= 1


def test_sixteen_bits_keep_their_brightness():
    file = io.BytesIO()
    PIL.Image.fromarray(np.full((4, 6), 0x8000, np.uint16)).save(file, "PNG")

    assert set(row(file.getvalue(), signature=GREY).flat) == {0x80}


def test_pictures_are_scaled_to_the_models_size():
    assert row(picture(size=(60, 90), kind="JPEG")).shape == (3, 4, 6)


def test_exif_orientation_is_obeyed():
    upright = PIL.Image.new("L", (4, 6), 0)
    upright.paste(255, (0, 0, 4, 1))  # the top row is white
    # A camera held sideways stores a turned picture and the orientation to undo it.
    stored, exif = upright.transpose(PIL.Image.Transpose.ROTATE_90), PIL.Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    stored.save(file, "PNG", exif=exif)
    signature = Signature(
        layout=Layout.TENSOR,
        dtype="uint8",
        shape=(6, 4),
        image=Image(mode="L", height=6, width=4),
    )

    np.testing.assert_array_equal(
        row(file.getvalue(), signature=signature), np.asarray(upright)
    )


def test_first_frame_of_an_animation_counts():
    file = io.BytesIO()
    frames = [PIL.Image.new("L", (6, 4), shade) for shade in (10, 200)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])

    assert set(row(file.getvalue(), signature=GREY).flat) == {10}


def test_base64_may_be_a_data_url():
    text = base64.b64encode(picture()).decode()

    for file in (text, f"data:image/png;base64,{text}"):
        assert row(file).shape == (3, 4, 6)


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"GIF89a" + b"\0" * 50,
        picture()[:-28],
        picture(kind="JPEG")[:-30],
        picture()[:40],
        bomb(400, 400),
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        "not base64",
        "data:image/png,abc",
        "",
        "é",
    ],
)
def test_broken_files_are_named_beside_the_good_ones(file):
    found = read(picture(), file, picture())

    assert found.indexes == [0, 2]
    assert [problem.index for problem in found.problems] == [1]
    assert found.tensors[0].data.shape == (2, 3, 4, 6)


def test_many_pictures_never_become_a_tensor_of_any_size():
    large = Signature(
        layout=Layout.TENSOR,
        dtype="float32",
        shape=(1000, 1000, 3),
        image=Image(mode="RGB", height=1000, width=1000),
    )

    with pytest.raises(ApiError) as caught:
        encoded(large, [b""] * 6, [None] * 6)

    assert caught.value.status == 413
    assert caught.value.facts == {"limit": "max_images", "maximum": 5}


def test_bombs_are_refused_by_their_header():
    started = time.process_time()

    found = read(bomb(50_000, 50_000))

    assert time.process_time() - started < 0.5
    assert [problem.code for problem in found.problems] == [ErrorCode.TOO_LARGE]


@pytest.mark.parametrize("size", [(1, 20_000_000), (20_000_000, 1), (65_536, 1)])
def test_narrow_bombs_are_refused_by_their_header(size):
    (found,) = read(bomb(*size), max_pixels=MAX_PIXELS).problems

    assert found.code is ErrorCode.TOO_LARGE
    assert found.issue == "must have at most 65535 pixels on a side"


def test_pixels_are_counted_exactly():
    assert not read(picture(size=(10, 10)), max_pixels=100).problems
    assert read(picture(size=(10, 10)), max_pixels=99).problems


def test_deadline_ends_the_work():
    with pytest.raises(ApiError) as caught:
        read(picture(), seconds=-1.0)

    assert caught.value.code is ErrorCode.INFERENCE_TIMEOUT


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_damaged_files_raise_nothing_else(position, damage):
    for kind in ("PNG", "JPEG"):
        file = picture(kind=kind, size=(9, 9))
        found = read(file[:position] + damage + file[position + len(damage) :])
        assert len(found.indexes) + len(found.problems) == 1


def decode(body, content_type=None, **options):
    decoded = colour.decode_request(body, content_type=content_type, **options)
    assert decoded.images is not None
    found = read_images(
        decoded.images, max_pixels=MAX_PIXELS, deadline=time.monotonic() + 60
    )
    return with_images(decoded, found)


def test_an_image_is_a_body():
    decoded = decode(picture(), b"image/png")

    assert (decoded.rows, decoded.tensors[0].data.shape) == (1, (1, 3, 4, 6))


def form(*parts):
    body = b""
    for name, content, extra in parts:
        body += b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n' % (
            name,
            extra,
        )
        body += content + b"\r\n"
    return body + b"--b--\r\n", b"multipart/form-data; boundary=b"


FILE = b'; filename="a"'


def test_form_holds_one_image_per_part_and_options():
    body = form(
        (b"a", picture(), FILE),
        (b"b", picture(kind="JPEG"), FILE),
        (b"options", b'{"top_k": 2}', b""),
    )

    decoded = decode(*body)

    assert decoded.rows == 2
    assert decoded.options.top_k == 2


@pytest.mark.parametrize(
    "row",
    ["{}", {"b64": "{}"}, "data:image/png;base64,{}"],
    ids=["text", "b64", "data URL"],
)
def test_json_holds_images_as_base64(row):
    import json

    text = base64.b64encode(picture()).decode()
    body = json.dumps({"instances": [row]}).replace("{}", text).encode()

    assert decode(body).tensors[0].data.shape == (1, 3, 4, 6)


def test_bad_image_names_its_part():
    with pytest.raises(ApiError) as caught:
        decode(*form((b"good", picture(), FILE), (b"bad", b"x", FILE)))

    [detail] = caught.value.details
    assert (caught.value.status, detail.index, detail.field) == (400, 1, "bad")


def test_bad_images_leave_the_good_ones_where_asked():
    body = form(
        (b"bad", b"x", FILE),
        (b"good", picture(), FILE),
        (b"options", b'{"return_errors": "individual"}', b""),
    )

    decoded = decode(*body, individual=True)

    assert (decoded.rows, decoded.total, decoded.indexes) == (1, 2, (1,))
    assert [found.field for found in decoded.problems] == ["bad"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(), 400),
        (form((b"a", b"x", b"")), 400),
        (form((b"a", b"{}", b'; filename="a"\r\nContent-Type: text/csv')), 400),
        (form((b"a", picture(), FILE), (b"options", b"{", b"")), 400),
        (form((b"a", picture(), FILE), (b"options", b'{"x": 1}', b"")), 400),
        (form((b"a", picture(), FILE), (b"parameters", b'{"x": 1}', b"")), 400),
        (form(*[(b"a", b"", FILE)] * 3), 413),
    ],
)
def test_bad_forms_are_refused(body, status):
    with pytest.raises(ApiError) as caught:
        colour.decode_request(body[0], content_type=body[1], max_rows=2)

    assert caught.value.status == status


def test_other_models_take_no_images():
    decoder = InstanceDecoder(Signature(layout=Layout.TENSOR, shape=(2,)))

    with pytest.raises(ApiError) as caught:
        decoder.decode_request(picture(), content_type=b"image/png")

    assert caught.value.status == 415


def test_nested_lists_still_are_rows_of_such_a_model():
    import json

    body = json.dumps({"instances": np.zeros((1, 3, 4, 6)).tolist()}).encode()

    assert colour.decode_request(body).tensors[0].data.shape == (1, 3, 4, 6)
