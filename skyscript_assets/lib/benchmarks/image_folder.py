"""A folder of labelled images as a benchmark: read, checked and packed into one table.

The layout is SkyScript's own for zero-shot sets: a CSV of `filepath,label` and a text file with one class name a line.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Literal

from PIL import Image, UnidentifiedImageError
from pydantic import Field

from skyscript_assets.lib.benchmarks.items import (
    BENCHMARK_FILE,
    ITEM_SCHEMA,
    BenchmarkClass,
    BenchmarkSpec,
    open_items,
    write_model,
)
from skyscript_assets.lib.benchmarks.kind import BenchmarkKind
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError
from skyscript_assets.lib.files import file_stamp
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.benchmarks import BenchmarkBase

MAX_PIXELS = 64_000_000
"""Largest image accepted: a small file can claim to unpack into a huge one."""

MAX_BYTES = 128_000_000
"""Largest image file accepted."""

SHOWN_PROBLEMS = 5
"""Problems of a CSV that an error message lists; the rest is counted."""

IMAGES_AHEAD = 64


Row = tuple[int, str, str]
"""A row of the CSV: its line, the path and the label."""


class ImageFolderBenchmark(BenchmarkBase):
    """A folder of images with a CSV (filepath,label): single-label zero-shot classification by the paper's protocol."""

    kind: Literal["image-folder"] = "image-folder"
    csv: str = Field(description="CSV with the columns filepath and label; paths are relative to it.")
    classnames: str = Field(description="Text file, one class name a line.")
    licence: str = Field("see its publisher", description="Licence of the images.")


def build_image_folder(
    benchmark: ImageFolderBenchmark, csv_path: Path, classnames_path: Path, out: Path, progress: Progress = silent
) -> dict[str, Any]:
    """Check every image and label of a folder, and write `items.parquet` and `benchmark.json`.

    Args:
        benchmark: The benchmark's settings.
        csv_path: Its CSV.
        classnames_path: Its class names.
        out: Folder to write into.
        progress: Listener; counts images.

    Raises:
        MissingInputError: the CSV or the class names do not exist.
        CorruptInputError: either is malformed, or rows have unknown labels, repeated, missing or unreadable images, or
            paths that leave the CSV's folder; the message lists the first of them by line.
    """
    classes = _class_names(classnames_path)
    rows = _rows(csv_path)
    problems: list[str] = []
    unknown = f"is not in {classnames_path.name}"

    def checked(row: Row) -> dict[str, Any] | str:
        line, filepath, label = row
        item = _item(csv_path.parent, filepath, label) if label in classes else f"label {label!r} {unknown}"
        return f"line {line}: {item}" if isinstance(item, str) else item

    with open_items(out) as items:
        for done, item in enumerate(in_order(checked, rows, threads=2, ahead=IMAGES_AHEAD)):
            if done % IMAGES_AHEAD == 0:
                progress(done, len(rows), "images")
            if isinstance(item, str):
                problems.append(item)
            else:
                items.add(item)
        progress(len(rows), len(rows), "images")
        _raise_problems(csv_path, problems)
    spec = BenchmarkSpec(
        kind="image-folder",
        title=benchmark.title,
        synthetic=False,
        statement="Photographs of the published data set as its publisher labelled them.",
        licence=benchmark.licence,
        classes=tuple(BenchmarkClass(name=name, text=name) for name in classes),
        prompts=benchmark.prompts,
        items=items.items,
        images_digest=items.images_digest,
    )
    write_model(out / BENCHMARK_FILE, spec)
    return items.summary({}, synthetic=False)


def _class_names(path: Path) -> list[str]:
    names = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise CorruptInputError(f"{path}: needs at least two class names, one a line, none twice")
    return names


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MissingInputError(f"{path} cannot be read ({error.strerror}): correct benchmarks.yaml") from None
    except UnicodeDecodeError:
        raise CorruptInputError(f"{path} is not UTF-8 text") from None


def _rows(path: Path) -> list[Row]:
    reader = csv.DictReader(io.StringIO(_text(path)))
    try:
        if not {"filepath", "label"} <= set(reader.fieldnames or ()):
            found = reader.fieldnames or "nothing"
            raise CorruptInputError(f"{path}: needs the columns filepath and label, found {found}")
        rows = [(reader.line_num, row["filepath"] or "", row["label"] or "") for row in reader]
    except csv.Error as error:
        raise CorruptInputError(f"{path}: is not CSV after line {reader.line_num} ({error})") from None
    if not rows:
        raise CorruptInputError(f"{path}: has no rows")
    first: dict[str, int] = {}
    for line, filepath, _ in rows:
        if first.setdefault(filepath, line) != line:
            raise CorruptInputError(f"{path}: line {line} repeats {filepath} of line {first[filepath]}")
    return rows


def _item(folder: Path, filepath: str, label: str) -> dict[str, Any] | str:
    """A row of `items.parquet`, once its image has been decoded whole, or one line on what is wrong."""
    if not filepath or "\0" in filepath:
        return f"{filepath}: is no path"
    try:
        path = (folder / filepath).resolve()
        if not path.is_relative_to(folder.resolve()):
            return f"{filepath}: leaves the folder of the CSV"
        if not path.is_file():
            return f"{filepath}: does not exist"
        if path.stat().st_size > MAX_BYTES:
            return f"{filepath}: is larger than {MAX_BYTES // 1_000_000} MB"
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "TIFF")) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return f"{filepath}: has {width} x {height} pixels, more than {MAX_PIXELS // 1_000_000} million"
            image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"{filepath}: cannot be decoded ({' '.join(str(error).split())})"
    known = {"item_id": filepath, "image": data, "label": label, "truth": [label], "split": "test"}
    return dict.fromkeys(ITEM_SCHEMA.names) | known | {"width": width, "height": height}


def _raise_problems(path: Path, problems: list[str]) -> None:
    if problems:
        shown = problems[:SHOWN_PROBLEMS]
        more = len(problems) - len(shown)
        shown += [f"and {more} more"] if more else []
        raise CorruptInputError(
            "\n".join([f"{path}: {len(problems)} rows cannot be used:", *(f"  - {p}" for p in shown)])
        )


KIND = BenchmarkKind(
    settings=ImageFolderBenchmark,
    reads=lambda benchmark, shared: {
        "files": [file_stamp(shared.resolve(path)) for path in (benchmark.csv, benchmark.classnames)]
    },
    build=lambda benchmark, shared, _scenes, out, progress: build_image_folder(
        benchmark, shared.resolve(benchmark.csv), shared.resolve(benchmark.classnames), out, progress
    ),
    labels="one",
)
