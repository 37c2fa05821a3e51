"""Images of every kind that publishers use come out as a viewer shows them, or are refused by name."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.towers.images import decode

PICTURE = np.stack([*np.meshgrid(np.arange(40), np.arange(60), indexing="ij"), np.full((40, 60), 50)], 2)
RGB = (PICTURE * 4).clip(0, 255).astype(np.uint8)


def encoded(image: Image.Image, form: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x112] = orientation
    image = Image.fromarray(RGB)
    stored = image.transpose({3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation])
    return encoded(stored, "JPEG", exif=exif, quality=95)


def wide(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint16))


GREY = np.asarray(Image.fromarray(RGB).convert("L"))


@pytest.mark.parametrize(
    ("data", "expected", "within"),
    [
        (encoded(Image.fromarray(RGB), "JPEG", quality=95), RGB, 12),
        (encoded(Image.fromarray(RGB), "JPEG", quality=95, progressive=True), RGB, 12),
        (encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95), RGB, 12),
        (encoded(Image.fromarray(GREY), "JPEG", quality=95), np.stack([GREY] * 3, 2), 6),
        (turned(3), RGB, 12),
        (turned(6), RGB, 12),
        (encoded(Image.fromarray(RGB), "PNG"), RGB, 0),
        (encoded(Image.fromarray(RGB).convert("RGBA"), "PNG"), RGB, 0),
        (encoded(Image.fromarray(GREY).convert("LA"), "PNG"), np.stack([GREY] * 3, 2), 0),
        (encoded(Image.fromarray(GREY).convert("P"), "PNG"), np.stack([GREY] * 3, 2), 0),
        (encoded(Image.fromarray(GREY > 99), "PNG"), np.stack([GREY > 99] * 3, 2) * 255, 0),
        (encoded(wide(GREY.astype(int) * 257), "PNG"), np.stack([GREY] * 3, 2), 0),
        (encoded(wide(GREY.astype(int) * 257), "TIFF"), np.stack([GREY] * 3, 2), 0),
        (encoded(wide(GREY.astype(int) * 257), "TIFF", tiffinfo={262: 0}), 255 - np.stack([GREY] * 3, 2), 0),
        (encoded(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"), RGB, 0),
        (encoded(Image.fromarray(RGB), "WEBP", lossless=True), RGB, 0),
        (encoded(Image.fromarray(RGB), "BMP"), RGB, 0),
        (encoded(Image.fromarray(GREY), "GIF"), np.stack([GREY] * 3, 2), 0),
    ],
)
def test_images_come_out_as_a_viewer_shows_them(data: bytes, expected: np.ndarray, within: int) -> None:
    found = decode(data, "a.jpg")
    assert (found.dtype, found.shape) == (np.uint8, expected.shape)
    assert np.abs(found.astype(int) - expected).max() <= within


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"text", "no image of 1, 3 or 4 bands of JPEG"),
        (encoded(Image.fromarray(RGB), "JPEG")[:-200], "truncated"),
        (encoded(Image.effect_noise((60, 40), 90), "PNG")[:900], "truncated|broken"),
        (encoded(wide(GREY.astype(int) * 16), "PNG"), "16 bits whose values end below 4096"),
        (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), "32 bits or fractions"),
        (encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"), "32 bits or fractions"),
        (encoded(Image.new("RGB", (1000, 1)), "PNG"), "1000 x 1 pixels"),
        (encoded(Image.fromarray(RGB), "PPM"), "no image of"),
    ],
)
def test_what_is_not_shown_is_refused_by_name_and_reason(data: bytes, reason: str) -> None:
    with pytest.raises(CorruptInputError, match=rf"^a\.jpg: cannot be decoded \(.*({reason})") as caught:
        decode(data, "a.jpg")
    assert "0x" not in str(caught.value)
    assert len(str(caught.value)) < 200


REFUSED = {"zero.jpg", "truncated.jpg", "ms13.tif", "grey12in16.tif"}


def test_every_kind_of_the_collected_cases_is_right_or_refused(shared_data: Path) -> None:
    folder = shared_data.parent / "cases" / "60-benchmark-image-kinds"
    if not folder.is_dir():
        pytest.skip(f"the collected cases are absent: {folder} does not exist")
    whole = decode((folder / "rgb.png").read_bytes(), "rgb.png").astype(int)
    grey = whole @ (0.299, 0.587, 0.114)
    refused = []
    for path in sorted(folder.glob("*.*")):
        if path.suffix == ".txt":
            continue
        try:
            found = decode(path.read_bytes(), path.name).astype(int)
        except CorruptInputError as error:
            refused.append(str(error))
            continue
        assert found.shape == whole.shape, path.name
        if path.name not in ("grey16.png", "one-bit.png", "cmyk.jpg"):
            monochrome = "grey" in path.name or path.name in ("la.png", "palette.png")
            against = np.stack([grey] * 3, 2) if monochrome and path.name != "palette.png" else whole
            assert np.abs(found - against).mean() < 6, path.name
        if path.name == "grey16.png":
            assert found[0, :5, 0].tolist() == [0, 3, 6, 10, 13]
            assert found.max() == 241
    assert {message.partition(": cannot be decoded (")[0] for message in refused} == REFUSED
    assert not [message for message in refused if "0x" in message]
