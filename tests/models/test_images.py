"""The decoder against PIL itself, and against files made to break it."""

import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ImageCms import ImageCmsProfile, createProfile

from sds_clip.models.errors import ModelError
from sds_clip.models.images.decode import ImageError, ImageLimits, decode_file, decode_image, open_image

WIDTH, HEIGHT = 40, 24
LIMITS = ImageLimits(max_bytes=100_000, max_pixels=10_000, max_side=400, max_aspect=20.0)


def _picture(mode: str = "RGB") -> Image.Image:
    """Blocks of random colours: no symmetry, so that a wrong turn shows."""
    colours = np.random.default_rng(7).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3))
    return Image.fromarray(np.kron(colours, np.ones((8, 8, 1))).astype(np.uint8)).convert(mode)


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _frames() -> list[Image.Image]:
    return [_picture().rotate(180), _picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]


def _grey_16() -> Image.Image:
    return Image.fromarray(np.asarray(_picture("L")).astype(np.uint16) * 256 + 77)


def _translucent() -> Image.Image:
    image = _picture("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def _palette_with_alpha() -> bytes:
    return _saved(_picture("P"), "PNG", transparency=bytes(range(256)))


def _with_adobe_marker(*, jfif: bool) -> bytes:
    """An RGB JPEG by its Adobe marker, which JFIF's overrules: the same data in other colours."""
    data = _saved(_picture(), "JPEG")
    app0_end = 2 + 2 + 16
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\0"
    return data[: app0_end if jfif else 2] + adobe + data[app0_end:]


def _gif_of_screen(width: int, height: int) -> bytes:
    data = _saved(_picture("P"), "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def _png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"".join(
        struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))
        for kind, body in chunks
    )


_GREY, _RGB, _GREY_ALPHA, _RGBA = 0, 2, 4, 6
"""Colour types of PNG."""


def _png_of(width: int, height: int, *data: bytes, bits: int = 8, colours: int = _RGB) -> bytes:
    header = struct.pack(">LLBBBBB", width, height, bits, colours, 0, 0, 0)
    pixels = [(b"IDAT", part) for part in data]
    return b"\x89PNG\r\n\x1a\n" + _png_chunks((b"IHDR", header), *pixels, (b"IEND", b""))


FILES = {
    "jpeg": _saved(_picture(), "JPEG"),
    "jpeg grey": _saved(_picture("L"), "JPEG"),
    "jpeg cmyk": _saved(_picture("CMYK"), "JPEG"),
    "jpeg progressive": _saved(_picture(), "JPEG", progressive=True),
    "jpeg progressive cmyk": _saved(_picture("CMYK"), "JPEG", progressive=True),
    "jpeg restart": _saved(_picture(), "JPEG", restart_marker_blocks=1),
    "jpeg adobe": _with_adobe_marker(jfif=False),
    "jpeg jfif and adobe": _with_adobe_marker(jfif=True),
    "jpeg rgb": _saved(_picture(), "JPEG", keep_rgb=True),
    "mpo": _saved(_picture(), "MPO", save_all=True, append_images=_frames()),
    "png 1-bit": _saved(_picture("1"), "PNG"),
    "png grey": _saved(_picture("L"), "PNG"),
    "png grey transparent": _saved(_picture("L"), "PNG", transparency=3),
    "png grey alpha": _saved(_picture("LA"), "PNG"),
    "png palette": _saved(_picture("P"), "PNG"),
    "png palette transparent": _saved(_picture("P"), "PNG", transparency=1),
    "png palette alpha": _palette_with_alpha(),
    "png rgb": _saved(_picture(), "PNG"),
    "png rgb transparent": _saved(_picture(), "PNG", transparency=(1, 2, 3)),
    "png rgba": _saved(_translucent(), "PNG"),
    "png 16-bit": _saved(_grey_16(), "PNG"),
    "apng": _saved(_picture(), "PNG", save_all=True, append_images=_frames()),
    "webp": _saved(_picture(), "WEBP"),
    "webp lossless": _saved(_picture(), "WEBP", lossless=True),
    "webp alpha": _saved(_translucent(), "WEBP", exact=True),
    "webp animated": _saved(_picture(), "WEBP", save_all=True, append_images=_frames()),
    "gif": _saved(_picture("P"), "GIF"),
    "gif grey": _saved(_picture("L"), "GIF"),
    "gif frame over its screen": _gif_of_screen(WIDTH - 8, HEIGHT - 8),
    "gif smaller than its screen": _gif_of_screen(WIDTH + 5, HEIGHT + 3),
    "gif transparent": _saved(_picture("P"), "GIF", transparency=0),
    "gif animated": _saved(_picture(), "GIF", save_all=True, append_images=_frames(), disposal=2),
}


def _by_pil(data: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns about palettes with alpha, the decoder must not.
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _outcome(data: bytes, limits: ImageLimits, *, orient: bool) -> Image.Image | ImageError:
    try:
        return decode_image(data, limits, orient=orient)
    except ImageError as error:
        return error


def _code(data: bytes, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, limits)
    return caught.value.code


@pytest.mark.parametrize("name", FILES)
def test_evaluation_gets_exactly_the_pixels_of_pil(name: str) -> None:
    image = decode_image(FILES[name], LIMITS, orient=False)

    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), _by_pil(FILES[name]))


@pytest.mark.parametrize("name", [name for name in FILES if name != "png 16-bit"])
def test_serving_gets_the_same_pixels_where_nothing_is_turned(name: str) -> None:
    np.testing.assert_array_equal(np.asarray(decode_image(FILES[name], LIMITS)), _by_pil(FILES[name]))


@pytest.mark.parametrize("name", FILES)
def test_file_cut_at_any_byte_is_refused_or_whole(name: str) -> None:
    data = FILES[name]
    whole = _by_pil(data)
    for length in range(len(data)):
        outcome = _outcome(data[:length], LIMITS, orient=False)
        if isinstance(outcome, ImageError):
            assert outcome.code in ("image_empty", "image_format", "image_truncated")
        else:
            np.testing.assert_array_equal(np.asarray(outcome), whole)


@pytest.mark.parametrize("name", [name for name in FILES if "animated" not in name and name != "mpo"])
def test_file_without_its_last_quarter_is_truncated(name: str) -> None:
    data = FILES[name]

    assert _code(data[: len(data) * 3 // 4]) == "image_truncated"


def test_jpeg_of_two_frames_cut_in_the_second_gives_the_first() -> None:
    data = FILES["mpo"]

    image = decode_image(data[: len(data) * 9 // 10], LIMITS)

    np.testing.assert_array_equal(np.asarray(image), _by_pil(_saved(_picture(), "JPEG")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied_when_serving_only(orientation: int, format: str) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker, so that the tag is not the only one"
    data = _saved(_picture(), format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))

    np.testing.assert_array_equal(np.asarray(decode_image(data, LIMITS)), np.asarray(upright.convert("RGB")))
    np.testing.assert_array_equal(np.asarray(decode_image(data, LIMITS, orient=False)), _by_pil(data))


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II*\0",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0",
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x06\0\0\0",
        b"nonsense" * 1000,
    ],
    ids=["empty", "header only", "offset outside", "count outside", "value 9", "text", "nonsense"],
)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_means_upright(exif: bytes, format: str) -> None:
    data = _saved(_picture(), format, exif=b"Exif\0\0" + exif)

    np.testing.assert_array_equal(np.asarray(decode_image(data, LIMITS)), _by_pil(data))


@given(st.binary(max_size=200))
@example(b"II*\0" + b"\x08\0\0\0" + b"\xff" * 100)
def test_any_exif_leaves_the_picture_readable(exif: bytes) -> None:
    for block in (exif, b"II*\0\x08\0\0\0\x01\0" + exif):
        image = decode_image(_saved(_picture(), "JPEG", exif=b"Exif\0\0" + block), LIMITS)

        assert sorted(image.size) == sorted((WIDTH, HEIGHT))


def test_16_bit_grey_keeps_its_high_byte_when_serving() -> None:
    image = decode_image(FILES["png 16-bit"], LIMITS)

    np.testing.assert_array_equal(np.asarray(image), np.asarray(_picture("L").convert("RGB")))


def test_16_bit_grey_above_255_is_white_in_evaluation() -> None:
    levels = np.array([[0, 100, 255, 256, 65_535]], dtype=np.uint16)

    image = decode_image(_saved(Image.fromarray(levels), "PNG"), orient=False)

    np.testing.assert_array_equal(np.asarray(image)[0, :, 0], [0, 100, 255, 255, 255])


@pytest.mark.parametrize("orient", [True, False])
@pytest.mark.parametrize(
    ("colours", "values", "pixel"),
    [
        (_RGB, [200, 99, 10, 255, 0, 128], (200, 10, 0)),
        (_RGBA, [200, 99, 10, 255, 0, 128, 7, 7], (200, 10, 0)),
        (_GREY_ALPHA, [200, 99, 7, 7], (200, 200, 200)),
    ],
    ids=["rgb", "rgba", "grey alpha"],
)
def test_16_bits_a_channel_keep_their_high_byte(
    colours: int, values: list[int], pixel: tuple[int, ...], orient: bool
) -> None:
    data = _png_of(1, 1, zlib.compress(b"\0" + bytes(values)), bits=16, colours=colours)

    assert decode_image(data, orient=orient).getpixel((0, 0)) == pixel


@pytest.mark.parametrize(
    ("bits", "row", "levels"),
    [(1, 0b01_000000, [0, 255]), (2, 0b00_01_10_11, [0, 85, 170, 255]), (4, 0x1F, [17, 255])],
)
def test_grey_of_few_bits_is_spread_over_8(bits: int, row: int, levels: list[int]) -> None:
    data = _png_of(len(levels), 1, zlib.compress(bytes([0, row])), bits=bits, colours=_GREY)

    np.testing.assert_array_equal(np.asarray(decode_image(data))[0, :, 1], levels)


def _hidden_red(format: str) -> bytes:
    if format == "GIF":
        palette = Image.new("P", (16, 16), 1)
        palette.putpalette([0, 0, 0, 255, 0, 0])
        return _saved(palette, format, transparency=1)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    return _saved(Image.new("RGBA", (16, 16), (255, 0, 0, 0)), format, **options)


@pytest.mark.parametrize("orient", [True, False])
@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF"])
def test_what_is_transparent_has_the_colour_under_it(format: str, orient: bool) -> None:
    assert decode_image(_hidden_red(format), orient=orient).getpixel((8, 8)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("inks", "light"),
    [((0, 255, 255, 0), (255, 0, 0)), ((255, 0, 0, 0), (0, 255, 255)), ((128, 0, 0, 128), (63, 127, 127))],
)
def test_inks_take_light_away_one_after_the_other(inks: tuple[int, ...], light: tuple[int, ...]) -> None:
    data = _saved(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)

    np.testing.assert_allclose(decode_image(data).getpixel((8, 8)), light, atol=2)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_colour_profile_changes_no_pixel(format: str) -> None:
    profile = ImageCmsProfile(createProfile("LAB")).tobytes()
    plain, profiled = (
        decode_image(_saved(_picture(), format, **options)) for options in ({}, {"icc_profile": profile})
    )

    np.testing.assert_array_equal(np.asarray(profiled), np.asarray(plain))


def test_1x1_image_is_decoded() -> None:
    data = _saved(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG")

    assert decode_image(data).getpixel((0, 0)) == (9, 8, 7)


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<?xml version='1.0'?><svg/>",
        b"\n<!DOCTYPE html><html></html>",
        b"plain text",
        b"\x00\x00\x00\x1cftypavif",
        b"\x00\x00\x00\x18ftypheic",
        b"\x00\x00\x00\x0cJXL \r\n\x87\n",
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",
        _saved(_picture(), "TIFF"),
        _saved(_picture(), "BMP"),
        _saved(_picture(), "ICO"),
        _saved(_picture(), "PPM"),
        b"%PDF-1.7",
    ],
    ids=[
        "svg",
        "xml",
        "html",
        "text",
        "avif",
        "heic",
        "jpeg xl",
        "jpeg 2000",
        "tiff",
        "bmp",
        "ico",
        "ppm",
        "pdf",
    ],
)
def test_other_format_is_refused_by_content(data: bytes) -> None:
    assert _code(data) == "image_format"


def test_no_bytes_are_refused() -> None:
    assert _code(b"") == "image_empty"


def test_file_over_the_byte_limit_is_refused() -> None:
    assert _code(FILES["jpeg"], ImageLimits(max_bytes=len(FILES["jpeg"]) - 1)) == "image_too_large"
    decode_image(FILES["jpeg"], ImageLimits(max_bytes=len(FILES["jpeg"])))


def _gif_frame_claiming(width: int, height: int) -> bytes:
    data = FILES["gif"]
    place = data.index(b"\x2c\0\0\0\0" + struct.pack("<HH", WIDTH, HEIGHT)) + 5
    return data[:place] + struct.pack("<HH", width, height) + data[place + 4 :]


def _jpeg_claiming(width: int, height: int) -> bytes:
    data = FILES["jpeg"]
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def _webp_claiming(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<L", 10) + b"\0\0\0\0" + canvas + FILES["webp"][12:]
    return b"RIFF" + struct.pack("<L", 4 + len(chunk)) + b"WEBP" + chunk


@pytest.mark.parametrize(
    "data",
    [
        _png_of(60_000, 60_000, zlib.compress(b"\0" * 100)),
        _gif_of_screen(60_000, 60_000),
        _gif_frame_claiming(60_000, 60_000),
        _jpeg_claiming(60_000, 60_000),
        _webp_claiming(60_000, 60_000),
    ],
    ids=["png", "gif", "gif frame", "jpeg", "webp"],
)
def test_huge_claim_is_refused_before_memory_is_taken(data: bytes) -> None:
    tracemalloc.start()
    try:
        code = _code(data, ImageLimits())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert code == "image_too_large"
    assert peak_bytes < 200_000


def test_long_side_is_refused_though_its_pixels_are_few() -> None:
    data = _saved(Image.new("L", (401, 21)), "PNG")

    assert _code(data) == "image_too_large"


def test_narrow_image_is_refused() -> None:
    assert _code(_saved(Image.new("L", (210, 10)), "PNG")) == "image_too_narrow"
    decode_image(_saved(Image.new("L", (200, 10)), "PNG"), LIMITS)


def test_limit_over_what_pil_warns_about_is_refused() -> None:
    with pytest.raises(ValueError, match="max_pixels"):
        ImageLimits(max_pixels=100_000_000)


def test_jpeg_with_scans_without_end_is_refused() -> None:
    data = FILES["jpeg progressive"]
    scan = data[data.rindex(b"\xff\xda") : -2]
    many = data[:-2] + scan * 400 + b"\xff\xd9"

    assert _code(many, ImageLimits(max_pixels=WIDTH * HEIGHT * 10)) == "image_too_complex"
    assert decode_image(data, ImageLimits(max_pixels=WIDTH * HEIGHT)).size == (WIDTH, HEIGHT)


def test_progressive_jpeg_with_many_restart_markers_is_decoded() -> None:
    image = _picture("L").resize((300, 300))
    data = _saved(image, "JPEG", progressive=True, restart_marker_blocks=1)
    assert sum(data.count(bytes([0xFF, 0xD0 + number])) for number in range(8)) > 5000

    np.testing.assert_array_equal(np.asarray(decode_image(data)), _by_pil(data))


def test_jpeg_of_endless_segments_is_refused() -> None:
    assert _code(b"\xff\xd8" + b"\xff\xe1\0\x02" * 10_000 + FILES["jpeg"][2:]) == "image_corrupt"


def test_gif_of_endless_blocks_is_refused() -> None:
    data = FILES["gif grey"]
    start = data.index(b"\x2c\0\0\0\0" + struct.pack("<HH", WIDTH, HEIGHT))
    comment = b"\x21\xfe" + b"\x01x" * 1_000_000 + b"\0"

    assert _code(data[:start] + comment + data[start:], ImageLimits()) == "image_corrupt"


def test_png_of_endless_chunks_is_refused() -> None:
    plain = FILES["png rgb"]
    after_header = 8 + 25

    data = plain[:after_header] + _png_chunks((b"teSt", b"")) * 400_000 + plain[after_header:]

    assert _code(data, ImageLimits()) == "image_corrupt"


def test_compressed_text_and_profiles_in_a_png_take_no_memory() -> None:
    bomb = zlib.compress(b"\0" * 50_000_000)
    text = (b"zTXt", b"Comment\0\0" + bomb)
    profile = (b"iCCP", b"profile\0\0" + bomb)
    # Text that is not UTF-8 escapes Pillow's limit on the text of a file.
    other = [(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(b"\xff" * 1_000_000)) for _ in range(60)]
    plain = FILES["png rgb"]
    after_header = 8 + 25
    data = plain[:after_header] + _png_chunks(profile, *[text] * 5, *other) + plain[after_header:]

    tracemalloc.start()
    try:
        image = decode_image(data, ImageLimits())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    np.testing.assert_array_equal(np.asarray(image), _by_pil(plain))
    assert peak_bytes < 1_000_000


def test_a_jpeg_keeps_one_exif_block_for_its_decoder() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _saved(_picture(), "JPEG", exif=exif)
    start = data.index(b"\xff\xe1")
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    more = b"\xff\xe1\xff\xffExif\0\0" + bytes(0xFFFF - 8)

    file = open_image(data[:end] + more * 150 + data[end:], ImageLimits())

    assert len(file.data) < len(data) + 100
    assert decode_file(file).size == (HEIGHT, WIDTH)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("png")])
def test_png_with_a_flipped_pixel_byte_is_refused(name: str) -> None:
    data = bytearray(FILES[name])
    data[data.index(b"IDAT") + 8] ^= 0x10

    assert _code(bytes(data)) == "image_corrupt"


def test_png_whose_own_checksum_never_reaches_the_decoder_is_refused_when_damaged() -> None:
    """The zlib checksum stands in a second IDAT, which a decoder that has all its rows does not read."""
    rows = b"".join(b"\0" + bytes(range(30)) for _ in range(10))
    stream = zlib.compress(rows, 0)
    whole = _png_of(10, 10, stream[:-4], stream[-4:])
    np.testing.assert_array_equal(np.asarray(decode_image(whole)), _by_pil(whole))
    place = whole.index(b"IDAT") + 4 + 20

    assert _code(whole[:place] + b"\xaa" + whole[place + 1 :]) == "image_corrupt"


def test_jpeg_with_a_large_comment_and_profile_is_decoded() -> None:
    data = _saved(_picture(), "JPEG", comment=b"c" * 60_000, icc_profile=b"p" * 300_000)

    image = decode_image(data, ImageLimits())

    np.testing.assert_array_equal(np.asarray(image), _by_pil(FILES["jpeg"]))


def test_12_bit_jpeg_is_refused() -> None:
    data = FILES["jpeg"].replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c")

    assert _code(data) == "image_corrupt"


def test_pil_never_speaks_to_the_caller() -> None:
    damaged = bytearray(FILES["webp"])
    damaged[20:24] = b"\xff\xff\xff\xff"
    with pytest.raises(ImageError) as caught:
        decode_image(bytes(damaged))

    assert str(caught.value) == (
        "The image file is damaged or of an unusual kind; save it again as an ordinary JPEG or PNG."
    )
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, ModelError)


@st.composite
def _mutations(draw: st.DrawFn) -> bytes:
    data = bytearray(FILES[draw(st.sampled_from(sorted(FILES)))])
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(["flip", "set", "delete", "insert", "repeat", "cut"]))
        if kind == "flip":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[place : place + 4] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "delete":
            del data[place : place + draw(st.integers(1, 20))]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=20))
        elif kind == "repeat":
            data[place:place] = data[place : place + draw(st.integers(1, 200))]
        else:
            del data[place:]
        if not data:
            break
    return bytes(data)


def _check_anything(data: bytes) -> None:
    for orient in (True, False):
        outcome = _outcome(data, LIMITS, orient=orient)
        if isinstance(outcome, ImageError):
            assert outcome.code.startswith("image_")
            assert str(outcome).endswith(".")
        else:
            assert outcome.mode == "RGB"
            assert np.asarray(outcome).shape == (outcome.height, outcome.width, 3)
            assert outcome.width * outcome.height <= LIMITS.max_pixels
            assert max(outcome.size) <= min(LIMITS.max_side, LIMITS.max_aspect * min(outcome.size))


@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow])
@given(_mutations())
def test_damaged_file_gives_an_image_within_limits_or_an_image_error(data: bytes) -> None:
    _check_anything(data)


@settings(max_examples=300)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBP", b"GIF89a"]),
)
def test_arbitrary_bytes_give_an_image_within_limits_or_an_image_error(data: bytes, magic: bytes) -> None:
    _check_anything(magic + data)
