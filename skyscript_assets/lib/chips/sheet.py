"""Contact sheets: chips and their captions on one picture, so that people can look at what the plant makes.

A sheet shows stored JPEG chips as they are; it says whether the imagery is synthetic, and whose it is.
"""

from __future__ import annotations

import importlib.util
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import simplejpeg
from PIL import Image, ImageDraw, ImageFont

from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CHIPS_FILE
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.chips.quality import REASONS
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.files import replacing
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.settings.regions import OSM_ATTRIBUTION, OSM_LICENCE
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tar import read_member

Status = Literal["ok", "rejected"]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

GROUND, INK, FAINT, TILE = (255, 255, 255), (28, 32, 38), (112, 119, 130), (238, 240, 243)
"""Colours of the paper, the captions, the small print and the ground behind a chip that is not square."""

FOCUS, HALO = (255, 214, 10), (0, 0, 0)
"""Colours of the focus box and of the line around it that keeps it visible on any ground."""

GAP_PX = 14
"""Space around chips, pixels."""

CAPTION_LINES = 4
"""Most lines of a caption; the rest of it is cut off."""

MAX_CELL_PX = 1024
"""Greatest side of a chip on a sheet, pixels."""

SHEETS = ("accepted.jpg", "rejected.jpg")
"""Contact sheets beside the chips, written by `write_sheets`."""

MAX_REJECTS = 48
"""Most rejected chips on their sheet, and ..."""

MAX_REJECTS_OF_REASON = 12
"""... most of one reason."""

_CHIP_COLUMNS = ("chip_id", "status", "reason", "shard", "offset", "length", "licence", "attribution", "synthetic")
_PLAN_COLUMNS = ("chip_id", "region", "source", "gsd_m", "width", "height", "focus_box", "stratum", "split")


@dataclass(frozen=True)
class _Look:
    """Sizes of a sheet in pixels, and the fonts that go with them."""

    cell: int
    columns: int
    title: Font
    caption: Font
    small: Font
    line: int

    @property
    def width(self) -> int:
        return GAP_PX + self.columns * (self.cell + GAP_PX)

    @property
    def row_height(self) -> int:
        return self.cell + (CAPTION_LINES + 1) * self.line + 2 * GAP_PX


def contact_sheet(
    chips_folder: Path,
    plan_folder: Path,
    path: Path,
    captions: Mapping[str, str] | None = None,
    *,
    columns: int = 5,
    cell_px: int = 240,
    limit: int = 25,
    note: str = "",
    status: Status = "ok",
    draw_focus: bool = True,
) -> int:
    """Write a JPEG contact sheet of some chips, drawn evenly from all strata; returns how many it shows.

    Args:
        chips_folder: `image_chips` of a region and source.
        plan_folder: `chip_plan` of the same.
        path: Where the JPEG ends.
        captions: Caption by chip id, below each chip; chips without one are left out. None: the stratum is shown, or
            the reason of a rejected chip.
        columns: Chips in a row.
        cell_px: Side of the square that a chip is fitted into.
        limit: Most chips shown.
        note: A line of the header.
        status: Show accepted chips, or rejected ones whose image could be read.
        draw_focus: Mark the corners of the focus box.

    Raises:
        UpstreamMissingError: a table or a tar part is missing.
        CorruptInputError: a stored chip is no JPEG.
    """
    rows = _choose(chips_folder, plan_folder, captions, limit, status)
    image = _draw(chips_folder, rows, captions, _look(columns, cell_px), note, draw_focus=draw_focus)
    _save(image, path)
    return len(rows)


def sheet_preview(
    chips_folder: Path,
    plan_folder: Path,
    captions: Mapping[str, str] | None = None,
    *,
    limit_bytes: int = 150_000,
    status: Status = "ok",
    note: str = "",
) -> bytes:
    """A small contact sheet as JPEG bytes, at most `limit_bytes` long; empty where there is no chip to show.

    Raises:
        UpstreamMissingError: a table or a tar part is missing.
        CorruptInputError: a stored chip is no JPEG.
    """
    rows = _choose(chips_folder, plan_folder, captions, 12, status)
    for count, quality in ((12, 80), (12, 65), (8, 65), (4, 65), (4, 40), (1, 40)):
        if not rows:
            break
        shown = rows[:count]
        image = _draw(chips_folder, shown, captions, _look(min(4, len(shown)), 180), note, draw_focus=True)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= limit_bytes:
            return buffer.getvalue()
    return b""


def write_sheets(chips_folder: Path, plan_folder: Path) -> None:
    """Write the contact sheets of a folder of chips into it: accepted chips, and rejected ones reason by reason.

    Either is there although it may show nothing, and is bounded by the number and size of what it shows.

    Raises:
        UpstreamMissingError: a table or a tar part is missing.
        CorruptInputError: a stored chip is no JPEG.
    """
    accepted, rejected = (chips_folder / name for name in SHEETS)
    contact_sheet(chips_folder, plan_folder, accepted)
    rows, counts = _rejects(chips_folder, plan_folder, MAX_REJECTS_OF_REASON)
    _save(_draw_rejects(chips_folder, rows[:MAX_REJECTS], counts, _look(6, 160)), rejected)


def reject_preview(chips_folder: Path, plan_folder: Path, *, limit_bytes: int = 150_000) -> bytes:
    """Rejected chips by reason as JPEG bytes, at most `limit_bytes` long; empty where none was rejected.

    Raises:
        UpstreamMissingError: a table or a tar part is missing.
        CorruptInputError: a stored chip is no JPEG.
    """
    for of_reason, quality in ((6, 75), (4, 65), (2, 60), (1, 40)):
        rows, counts = _rejects(chips_folder, plan_folder, of_reason)
        if not counts:
            break
        buffer = io.BytesIO()
        sheet = _draw_rejects(chips_folder, rows, counts, _look(min(6, max(2, of_reason)), 130))
        sheet.save(buffer, format="JPEG", quality=quality, optimize=True)
        if buffer.tell() <= limit_bytes:
            return buffer.getvalue()
    return b""


def _rejects(chips_folder: Path, plan_folder: Path, of_reason: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Some rejected chips with an image of each reason, reason by reason, and how many there are of each in all."""
    table = read_table(chips_folder / CHIPS_FILE, CHIP_SCHEMA, columns=("reason",))
    found = Counter(reason for reason in table["reason"].to_pylist() if reason is not None)
    counts: dict[str, int] = {reason: found[reason] for reason in REASONS if found[reason]}
    rows = _choose(chips_folder, plan_folder, None, len(counts) * of_reason, "rejected", of_reason) if counts else []
    return sorted(rows, key=lambda row: list(counts).index(row["reason"])), counts


def _draw_rejects(
    chips_folder: Path, rows: Sequence[Mapping[str, Any]], counts: Mapping[str, int], look: _Look
) -> Image.Image:
    """One sheet for each reason below another, the reason and its count on top of each."""
    sheets = [Image.new("RGB", (look.width, GAP_PX), GROUND)]
    for reason, count in counts.items():
        members = [row for row in rows if row["reason"] == reason]
        shown = "" if members else " · no image"
        note = f"{reason} · {count:,} rejected{shown}"
        sheets.append(_draw(chips_folder, members, None, look, note, draw_focus=True, empty=note))
    if not counts:
        sheets = [_draw(chips_folder, [], None, look, "", draw_focus=False, empty="No chip was rejected")]
    whole = Image.new("RGB", (look.width, sum(sheet.height for sheet in sheets)), GROUND)
    y = 0
    for sheet in sheets:
        whole.paste(sheet, (0, y))
        y += sheet.height
    return whole


def _save(image: Image.Image, path: Path) -> None:
    """Write a JPEG."""
    with replacing(path) as temporary:
        image.save(temporary, format="JPEG", quality=90, optimize=True)


def _choose(
    chips_folder: Path,
    plan_folder: Path,
    captions: Mapping[str, str] | None,
    limit: int,
    status: Status,
    of_group: int | None = None,
) -> list[dict[str, Any]]:
    """Rows of chips joined with their plan: one of each group (stratum, or reason of rejection) in turn, by hash."""
    plan = read_table(plan_folder / "plan.parquet", PLAN_SCHEMA, columns=_PLAN_COLUMNS).to_pylist()
    planned = {row["chip_id"]: row for row in plan}
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_table(chips_folder / CHIPS_FILE, CHIP_SCHEMA, columns=_CHIP_COLUMNS).to_pylist():
        chip_id = row["chip_id"]
        if row["status"] != status or row["shard"] is None or (captions is not None and chip_id not in captions):
            continue
        if chip_id not in planned:
            raise CorruptInputError(f"{chips_folder / CHIPS_FILE}: chip {chip_id} is not in the plan; cut chips again")
        joined = planned[chip_id] | row
        groups[str(joined["stratum"] if status == "ok" else joined["reason"])].append(joined)
    turns = [
        (turn, unit_hash("sheet", name), row)
        for name, members in groups.items()
        for turn, row in enumerate(sorted(members, key=lambda row: unit_hash("sheet", row["chip_id"]))[:of_group])
    ]
    return [row for _, _, row in sorted(turns, key=lambda item: item[:2])[:limit]]


def _draw(
    chips_folder: Path,
    rows: Sequence[Mapping[str, Any]],
    captions: Mapping[str, str] | None,
    look: _Look,
    note: str,
    *,
    draw_focus: bool,
    empty: str = "No chips",
) -> Image.Image:
    """The sheet as an image; `empty` is its title where it shows nothing."""
    header = _header(rows, note) if rows else [empty]
    lines = [(text, font) for text, font in zip(header, [look.title] + [look.small] * 9, strict=False) if text]
    lines = [(part, font) for text, font in lines for part in _wrap(text, font, look.width - 2 * GAP_PX, 3)]
    top = GAP_PX + sum(_line_height(font) for _, font in lines) + GAP_PX
    n_rows = -(-len(rows) // look.columns)
    sheet = Image.new("RGB", (look.width, top + n_rows * look.row_height), GROUND)
    pen = ImageDraw.Draw(sheet)
    y = GAP_PX
    for text, font in lines:
        pen.text((GAP_PX, y), text, fill=INK if font is look.title else FAINT, font=font)
        y += _line_height(font)
    for index, row in enumerate(rows):
        x = GAP_PX + index % look.columns * (look.cell + GAP_PX)
        y = top + index // look.columns * look.row_height
        _draw_chip(sheet, pen, (x, y), chips_folder, row, look, draw_focus=draw_focus)
        caption = row["reason"] or row["stratum"] or "" if captions is None else captions[row["chip_id"]]
        y += look.cell + GAP_PX // 2
        for text in _wrap(caption, look.caption, look.cell, CAPTION_LINES):
            pen.text((x, y), text, fill=INK, font=look.caption)
            y += look.line
        about = f"{row['width']} × {row['height']} px · {row['gsd_m']:.3g} m · {row['split']}"
        pen.text((x, y), about, fill=FAINT, font=look.small)
    return sheet


def _header(rows: Sequence[Mapping[str, Any]], note: str) -> list[str]:
    """Title, note, and whose the imagery and the tags are."""
    places = sorted({f"{row['region']} · {row['source']}" for row in rows})
    synthetic = any(row["synthetic"] for row in rows)
    title = ", ".join(places) + (" · synthetic imagery" if synthetic else "")
    owners = sorted({f"{row['attribution']} ({row['licence']})" for row in rows})
    return [title, note, f"Imagery: {'; '.join(owners)} · Tags: {OSM_ATTRIBUTION} ({OSM_LICENCE})"]


def _draw_chip(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    chips_folder: Path,
    row: Mapping[str, Any],
    look: _Look,
    *,
    draw_focus: bool,
) -> None:
    """Fit a chip into its cell, keeping its shape, and mark the corners of its focus box."""
    chip = _chip_image(chips_folder, row)
    scale = look.cell / max(chip.size)
    size = (max(1, round(chip.width * scale)), max(1, round(chip.height * scale)))
    resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    x, y = place[0] + (look.cell - size[0]) // 2, place[1] + (look.cell - size[1]) // 2
    pen.rectangle((place[0], place[1], place[0] + look.cell - 1, place[1] + look.cell - 1), fill=TILE)
    sheet.paste(chip.resize(size, resampling), (x, y))
    if draw_focus:
        x0, y0, x1, y1 = (value * scale for value in row["focus_box"])
        _brackets(pen, (x + x0, y + y0, x + x1 - 1, y + y1 - 1))


def _chip_image(chips_folder: Path, row: Mapping[str, Any]) -> Image.Image:
    data = read_member(chips_folder / row["shard"], row["offset"], row["length"])
    try:
        return Image.fromarray(simplejpeg.decode_jpeg(data, colorspace="RGB"))
    except ValueError as error:
        raise CorruptInputError(
            f"{chips_folder / row['shard']}: chip {row['chip_id']} is no JPEG ({error}); cut the chips again"
        ) from error


def _brackets(pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    """Mark the corners of a box, so that what is inside stays visible."""
    x0, y0, x1, y1 = box
    arm = max(3.0, min(14.0, (x1 - x0) / 3, (y1 - y0) / 3))
    for colour, width in ((HALO, 4), (FOCUS, 2)):
        for x, dx in ((x0, arm), (x1, -arm)):
            for y, dy in ((y0, arm), (y1, -arm)):
                pen.line([(x + dx, y), (x, y), (x, y + dy)], fill=colour, width=width)


def _look(columns: int, cell_px: int) -> _Look:
    cell = max(48, min(MAX_CELL_PX, cell_px))
    size = max(9, cell // 17)
    caption = _font(size)
    return _Look(cell, max(1, columns), _font(size * 3 // 2), caption, _font(size - 1), _line_height(caption))


def _font(size: int) -> Font:
    """DejaVu Sans, which matplotlib carries and which has the letters of most captions; else Pillow's own font."""
    spec = importlib.util.find_spec("matplotlib")
    for folder in spec.submodule_search_locations or () if spec else ():
        file = Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if file.is_file():
            return ImageFont.truetype(file, size)
    return ImageFont.load_default(size)


def _line_height(font: Font) -> int:
    _, top, _, bottom = font.getbbox("Ág")
    return round((bottom - top) * 1.25) + 1


def _wrap(text: str, font: Font, width: int, max_lines: int) -> list[str]:
    """Break a text into lines of a width in pixels; what does not fit ends in an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(word)
    cut = len(lines) > max_lines
    lines = lines[:max_lines]
    for index, line in enumerate(lines):
        last = cut and index == max_lines - 1
        shown = f"{line}…" if last else line
        while font.getlength(shown) > width and len(line) > 1:
            line = line[:-1]
            shown = f"{line}…"
        lines[index] = shown
    return lines
