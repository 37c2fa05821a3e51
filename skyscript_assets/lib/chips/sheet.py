"""Contact sheets: chips and their captions on one picture, so that people can look at what the plant makes.

A sheet shows stored JPEG chips as they are; it says whether the imagery is synthetic, and whose it is.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CHIPS_FILE
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.chips.quality import REASONS
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.files import inside, picture_file
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.settings.regions import OSM_ATTRIBUTION, OSM_LICENCE
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tar import read_member

Rows = Sequence[Mapping[str, Any]]
Captions = Mapping[str, tuple[str, Sequence[Sequence[int]]]]
"""By chip id what is said of it, and the boxes of what that is about besides its object, in chip pixels."""

GROUND, INK, FAINT, TILE = (255, 255, 255), (28, 32, 38), (112, 119, 130), (238, 240, 243)
"""Colours of the paper, the captions, the small print and the ground behind a chip that is not square."""

FOCUS, NEAR, HALO = (255, 214, 10), (76, 201, 240), (0, 0, 0)
"""Colours of the focus box, of others, and of the line around the first that keeps it visible on any ground."""

GAP_PX = 14
"""Space around chips, pixels."""

STRATUM_LINES, CAPTION_LINES = 4, 9
"""Most lines of a stratum or reason, and of a caption; the rest of it is cut off."""

SHEETS = ("accepted.jpg", "rejected.jpg")
"""Contact sheets beside the chips, written by `write_sheets`."""

MAX_ACCEPTED, MAX_REJECTED = 25, 48
"""Most chips on either sheet."""

_CHIP_COLUMNS = ("chip_id", "status", "reason", "shard", "offset", "length", "licence", "attribution", "synthetic")
_PLAN_COLUMNS = ("chip_id", "region", "source", "gsd_m", "width", "height", "focus_box", "stratum", "split")


def write_sheets(chips_folder: Path, plan_folder: Path) -> None:
    """Write the contact sheets of a folder of chips into it: accepted chips, and rejected ones reason by reason.

    Either is there although it may show nothing, and is bounded by the number and size of what it shows.

    Raises:
        UpstreamMissingError: a table or a tar part is missing.
        CorruptInputError: a stored chip is no JPEG.
    """
    chips = _read(chips_folder, plan_folder)
    pictures = (
        _draw(chips_folder, _accepted(chips, MAX_ACCEPTED), 5, 240),
        _draw(chips_folder, _rejected(chips, MAX_REJECTED), 6, 160, note=_reasons(chips) or "No chip was rejected"),
    )
    for name, sheet in zip(SHEETS, pictures, strict=True):
        with picture_file(chips_folder / name) as buffer:
            sheet.save(buffer, format="JPEG", quality=90, optimize=True)


def sheet_preview(
    chips_folder: Path, plan_folder: Path, limit_bytes: int, captions: Captions | None = None, *, rejected: bool = False
) -> bytes:
    """A small sheet as JPEG bytes, at most `limit_bytes` long; empty where there is nothing to show.

    With `captions` they stand below each chip, with their boxes drawn, and chips without are left out; else it is the
    stratum. With `rejected` the rejected chips are shown, not the accepted ones. Raises what `write_sheets` does.
    """
    chips = _read(chips_folder, plan_folder)
    note = _reasons(chips) if rejected else ""
    for count, quality in ((12, 80), (12, 65), (8, 65), (4, 65), (4, 40), (1, 40)):
        rows = _rejected(chips, count) if rejected else _accepted(chips, count, captions)
        if not rows and not note:
            break
        buffer = io.BytesIO()
        sheet = _draw(chips_folder, rows, max(2, min(4, len(rows))), 180, captions, note)
        sheet.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= limit_bytes:
            return buffer.getvalue()
    return b""


def _read(chips_folder: Path, plan_folder: Path) -> Rows:
    """The chips of a folder, each with what its plan says of it."""
    plan = read_table(plan_folder / PLAN_FILE, PLAN_SCHEMA, columns=_PLAN_COLUMNS).to_pylist()
    planned = {row["chip_id"]: row for row in plan}
    chips = read_table(chips_folder / CHIPS_FILE, CHIP_SCHEMA, columns=_CHIP_COLUMNS).to_pylist()
    try:
        return [planned[chip["chip_id"]] | chip for chip in chips]
    except KeyError as error:
        raise CorruptInputError(f"{chips_folder / CHIPS_FILE}: chip {error} is not in the plan; cut again") from error


def _accepted(chips: Rows, limit: int, captions: Captions | None = None) -> Rows:
    shown = [chip for chip in chips if chip["status"] == "ok" and (captions is None or chip["chip_id"] in captions)]
    return _in_turn(shown, "stratum")[:limit]


def _rejected(chips: Rows, limit: int) -> Rows:
    """Some rejected chips that have an image, reason by reason."""
    rows = _in_turn([chip for chip in chips if chip["reason"] and chip["shard"]], "reason")[:limit]
    return sorted(rows, key=lambda row: REASONS.index(row["reason"]))


def _reasons(chips: Rows) -> str:
    """How many chips are rejected in all for each reason; empty where none is."""
    found = Counter(chip["reason"] for chip in chips if chip["reason"])
    return "Rejected: " + ", ".join(f"{found[each]:,} {each}" for each in REASONS if found[each]) if found else ""


def _in_turn(chips: Rows, group: str) -> Rows:
    """Chips in an order by hash that takes one of each group in turn."""
    turns: Counter[str] = Counter()
    order = []
    for chip in sorted(chips, key=lambda chip: unit_hash("sheet", chip["chip_id"])):
        name = str(chip[group])
        order.append((turns[name], unit_hash("sheet", name), chip))
        turns[name] += 1
    return [chip for _, _, chip in sorted(order, key=lambda item: item[:2])]


def _draw(
    chips_folder: Path, rows: Rows, columns: int, cell: int, captions: Captions | None = None, note: str = ""
) -> Image.Image:
    """A sheet of cells of some pixels, so many in a row; where it shows nothing, its note is its title."""
    size = max(9, cell // 17)
    large, middle, small = _font(size * 3 // 2), _font(size), _font(size - 1)
    line, width = _line_height(middle), GAP_PX + columns * (cell + GAP_PX)
    most = STRATUM_LINES if captions is None else CAPTION_LINES
    below = [
        (row["reason"] or row["stratum"] or "", ()) if captions is None else captions[row["chip_id"]] for row in rows
    ]
    wrapped = [_wrap(text, middle, cell, most) for text, _ in below]
    row_height = cell + (max(map(len, wrapped), default=0) + 1) * line + 2 * GAP_PX
    header = _header(rows, note) if rows else [note or "No chips"]
    fonts = [large, *[small] * len(header)]
    inner = width - 2 * GAP_PX
    lines = [(each, font) for text, font in zip(header, fonts, strict=False) for each in _wrap(text, font, inner, 3)]
    top = GAP_PX + sum(_line_height(font) for _, font in lines) + GAP_PX
    sheet = Image.new("RGB", (width, top + -(-len(rows) // columns) * row_height), GROUND)
    pen = ImageDraw.Draw(sheet)
    y = GAP_PX
    for text, font in lines:
        pen.text((GAP_PX, y), text, fill=INK if font is large else FAINT, font=font)
        y += _line_height(font)
    for index, row in enumerate(rows):
        x, y = GAP_PX + index % columns * (cell + GAP_PX), top + index // columns * row_height
        _draw_chip(sheet, pen, (x, y), chips_folder, row, cell, below[index][1])
        y += cell + GAP_PX // 2
        for text in wrapped[index]:
            pen.text((x, y), text, fill=INK, font=middle)
            y += line
        about = f"{row['width']} × {row['height']} px · {row['gsd_m']:.3g} m · {row['split']}"
        pen.text((x, y), about, fill=FAINT, font=small)
    return sheet


def _header(rows: Rows, note: str) -> list[str]:
    """Title, note, and whose the imagery and the tags are."""
    places = ", ".join(sorted({f"{row['region']} · {row['source']}" for row in rows}))
    owners = "; ".join(sorted({f"{row['attribution']} ({row['licence']})" for row in rows}))
    synthetic = " · synthetic imagery" if any(row["synthetic"] for row in rows) else ""
    return [places + synthetic, note, f"Imagery: {owners} · Tags: {OSM_ATTRIBUTION} ({OSM_LICENCE})"]


def _draw_chip(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    chips_folder: Path,
    row: Mapping[str, Any],
    cell: int,
    boxes: Sequence[Sequence[int]],
) -> None:
    """Fit a chip into its cell, keeping its shape, outline boxes and mark the corners of its focus box."""
    data = read_member(inside(chips_folder, row["shard"]), row["offset"], row["length"])
    try:
        chip = Image.fromarray(simplejpeg.decode_jpeg(data, colorspace="RGB"))
    except ValueError as error:
        raise CorruptInputError(
            f"{chips_folder / row['shard']}: chip {row['chip_id']} is no JPEG ({error}); cut the chips again"
        ) from error
    scale = cell / max(chip.size)
    size = (max(1, round(chip.width * scale)), max(1, round(chip.height * scale)))
    resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    x, y = place[0] + (cell - size[0]) // 2, place[1] + (cell - size[1]) // 2
    pen.rectangle((place[0], place[1], place[0] + cell - 1, place[1] + cell - 1), fill=TILE)
    sheet.paste(chip.resize(size, resampling), (x, y))
    for box in boxes:
        x0, y0, x1, y1 = (value * scale for value in box)
        pen.rectangle((x + x0, y + y0, x + max(x0, x1 - 1), y + max(y0, y1 - 1)), outline=NEAR)
    # Only the corners of the focus box are drawn, so that what is inside stays visible.
    x0, y0, x1, y1 = (value * scale for value in row["focus_box"])
    left, top, right, bottom = x + x0, y + y0, x + x1 - 1, y + y1 - 1
    arm = max(3.0, min(14.0, (right - left) / 3, (bottom - top) / 3))
    for colour, width in ((HALO, 4), (FOCUS, 2)):
        for column, dx in ((left, arm), (right, -arm)):
            for line, dy in ((top, arm), (bottom, -arm)):
                pen.line([(column + dx, line), (column, line), (column, line + dy)], fill=colour, width=width)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries and which has the letters of most captions."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    _, top, _, bottom = font.getbbox("Ág")
    return round((bottom - top) * 1.25) + 1


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, max_lines: int) -> list[str]:
    """Break a text into lines of a width in pixels; what does not fit ends in an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    for index, line in enumerate(lines[:max_lines]):
        shown = f"{line}…" if index == max_lines - 1 < len(lines) - 1 else line
        while font.getlength(shown) > width and len(line) > 1:
            line = line[:-1]
            shown = f"{line}…"
        lines[index] = shown
    return lines[:max_lines]
