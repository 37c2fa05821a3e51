import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.sources.services.decode import decode_tile


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture
def levels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(1, 255, (20, 30, 3)).astype(np.uint8)


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG file from its raw rows (PNG 3rd edition, 11.2), of kinds that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        extra and chunk(b"tRNS", extra),
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_plain_tile_is_decoded_as_it_is(levels: NDArray[np.uint8]) -> None:
    pixels = decode_tile(encoded(Image.fromarray(levels)), 30, 20)
    np.testing.assert_array_equal(pixels.rgb, levels)
    assert pixels.valid.all()


@pytest.mark.parametrize(("format_", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_jpeg_and_webp_are_decoded(format_: str, options: dict[str, Any]) -> None:
    ramp = np.repeat(np.linspace(10, 240, 30, dtype=np.uint8)[np.newaxis, :, np.newaxis], 20, axis=0).repeat(3, axis=2)
    pixels = decode_tile(encoded(Image.fromarray(ramp), format_, **options), 30, 20)
    assert np.abs(pixels.rgb.astype(int) - ramp).max() <= 4
    assert pixels.valid.all()


def test_fully_transparent_pixels_hold_no_data(levels: NDArray[np.uint8]) -> None:
    alpha = np.full((20, 30, 1), 255, dtype=np.uint8)
    alpha[:5], alpha[5:7] = 0, 1
    pixels = decode_tile(encoded(Image.fromarray(np.concatenate([levels, alpha], axis=2))), 30, 20)
    assert not pixels.valid[:5].any()
    assert pixels.valid[5:].all()
    assert not pixels.rgb[:5].any()
    np.testing.assert_array_equal(pixels.rgb[5:], levels[5:])


def test_palettes_have_colours_and_a_transparent_entry() -> None:
    indices = np.arange(600, dtype=np.uint8).reshape(20, 30) % 4
    image = Image.fromarray(indices, mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    pixels = decode_tile(encoded(image, transparency=2), 30, 20)
    assert pixels.rgb[0, 1].tolist() == [40, 50, 60]
    np.testing.assert_array_equal(pixels.valid, indices != 2)


def test_grey_and_grey_with_alpha_are_shown_in_three_channels(levels: NDArray[np.uint8]) -> None:
    grey = levels[..., 0]
    np.testing.assert_array_equal(decode_tile(encoded(Image.fromarray(grey)), 30, 20).rgb[..., 2], grey)
    with_alpha = Image.fromarray(np.stack([grey, np.where(grey > 100, 255, 0).astype(np.uint8)], axis=2), mode="LA")
    np.testing.assert_array_equal(decode_tile(encoded(with_alpha), 30, 20).valid, grey > 100)


def test_16_bit_grey_and_colours_keep_their_upper_byte() -> None:
    values = np.random.default_rng(1).integers(256, 65535, (20, 30)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    key = struct.pack(">H", int(values[3, 4]))
    pixels = decode_tile(png(30, 20, 16, 0, rows, key), 30, 20)
    expected = (values >> 8).astype(np.uint8)
    expected[3, 4] = 0
    np.testing.assert_array_equal(pixels.rgb[..., 0], expected)
    assert not pixels.valid[3, 4]
    assert pixels.valid.sum() == 599
    colours = np.random.default_rng(2).integers(0, 65535, (20, 30, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in colours)
    np.testing.assert_array_equal(decode_tile(png(30, 20, 16, 2, rows), 30, 20).rgb, (colours >> 8).astype(np.uint8))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_tile_of_one_colour_holds_no_data(level: int) -> None:
    tile = Image.fromarray(np.full((20, 30, 3), level, dtype=np.uint8))
    for format_ in ("PNG", "JPEG"):
        assert not decode_tile(encoded(tile, format_), 30, 20).valid.any()


def test_a_colour_may_stand_for_no_data(levels: NDArray[np.uint8]) -> None:
    levels[:4] = (255, 255, 255)
    levels[4] = (255, 255, 254)
    pixels = decode_tile(encoded(Image.fromarray(levels)), 30, 20, nodata=(255, 255, 255))
    assert not pixels.valid[:4].any()
    assert pixels.valid[4:].all()


def test_a_bomb_is_refused_by_its_header() -> None:
    rows = zlib.compress(b"")
    bomb = png(100_000, 100_000, 8, 2, rows)
    with pytest.raises(CorruptInputError):
        decode_tile(bomb, 256, 256)
    with pytest.raises(CorruptInputError, match="has 8000 x 8000 pixels instead of 256 x 256"):
        decode_tile(png(8000, 8000, 8, 2, rows), 256, 256)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a" + bytes(100),
        b"II*\0" + bytes(100),
        b"\xff\xd8\xff\xe0" + bytes(50),
    ],
)
def test_what_is_no_whole_image_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptInputError, match="is no whole PNG, JPEG, WebP or TIFF image"):
        decode_tile(data, 256, 256)


def test_a_truncated_image_is_refused(levels: NDArray[np.uint8]) -> None:
    for format_ in ("PNG", "JPEG", "WEBP", "TIFF"):
        data = encoded(Image.fromarray(levels), format_)
        with pytest.raises(CorruptInputError, match="is no whole"):
            decode_tile(data[: len(data) // 2], 30, 20)


def test_other_formats_are_not_guessed_at(levels: NDArray[np.uint8]) -> None:
    for format_ in ("GIF", "BMP"):
        with pytest.raises(CorruptInputError):
            decode_tile(encoded(Image.fromarray(levels), format_), 30, 20)
