"""Benchmarks of images that others publish: a CSV or folders of one class each, and lists of captions.

Archives are fetched below a root. What their publishers do not say is looked up and told: where paths start, whether
labels are words or indices. SkyScript's sets of attributes (roof shape, smoothness, surface)
have several columns of labels, of which some are empty.
"""

import csv
import io
import json
import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from skyscript_assets.lib.archive import fetch
from skyscript_assets.lib.benchmarks.items import ITEM_SCHEMA, BenchmarkClass, ItemsWriter, open_items, write_captions
from skyscript_assets.lib.benchmarks.kind import BenchmarkKind
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError
from skyscript_assets.lib.files import file_stamp
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import UNSEEN, Sha256, Shared, WebAddress
from skyscript_assets.lib.settings.benchmarks import BenchmarkBase
from skyscript_assets.lib.towers.images import decode, read_file

SHOWN_PROBLEMS = 5
"""Problems of a list that an error message shows; the rest is counted."""

IMAGES_AHEAD = 64


class PublishedBenchmark(BenchmarkBase):
    """What both kinds state: where the files are."""

    root: Annotated[str, UNSEEN] = Field(".", description="Folder that paths start at, from `~` or the profile's.")
    archive: WebAddress | None = Field(None, description="Address of what is fetched below the root, a zip unpacked.")
    sha256: Sha256 | None = Field(None, description="Digest of what the address gives; default: that of first sight.")
    csv: str | None = Field(None, description="CSV below the root; without one, folders of the root are the classes.")
    licence: str = Field("see its publisher", description="Licence of the images.")


class ImageFolderBenchmark(PublishedBenchmark):
    """Images of one class each, by a CSV or by folders: zero-shot classification by the paper's protocol."""

    kind: Literal["image-folder"] = "image-folder"
    classnames: str | None = Field(None, description="File of class names, one a line; default: the labels, sorted.")
    label: str = Field("label", description="Column of the labels: class names, or indices into the class names.")
    images: int | None = Field(None, ge=1, description="Images that its publisher tells of; another number is told.")
    classes: int | None = Field(None, ge=2, description="Classes that its publisher tells of; another number is told.")


class CaptionRetrievalBenchmark(PublishedBenchmark):
    """Images and captions: which caption belongs to an image, and which image to a caption."""

    kind: Literal["caption-retrieval"] = "caption-retrieval"
    csv: str = Field(description="List below the root: CSV with a column filepath, or a JSON of images and sentences.")
    caption: str = Field("title", description="Column of the captions.")
    prefix: str = Field("a satellite image. ", description="Put before each caption (paper; not for its own 30K).")


class _Row(NamedTuple):
    """A line of a list: its number, the image's path, and the label or caption."""

    line: int
    path: str
    text: str


class _Listed(NamedTuple):
    """A benchmark's list: its place, the root, the folder that its paths start at and how that is told, its rows."""

    file: Path
    root: Path
    base: Path
    start: str
    rows: list[_Row]


def build_image_folder(
    benchmark: ImageFolderBenchmark, shared: Shared, out: Path, progress: Progress = silent
) -> dict[str, Any]:
    """Check every image and label of a set, and write `items.parquet` and `benchmark.json`.

    Raises:
        MissingInputError: the CSV or the class names do not exist.
        CorruptInputError: either is malformed, or rows have unknown labels, repeated, missing or unreadable images, or
            paths that leave their folder; the message lists the first of them by line.
        SkyScriptError: what `lib.archive.fetch` raises.
    """
    listed = _listed(benchmark, shared, benchmark.label, progress)
    rows = [row for row in listed.rows if row.text]
    first: dict[str, int] = {}
    for row in rows:
        if row.path and first.setdefault(row.path, row.line) != row.line:
            raise CorruptInputError(f"{listed.file}: line {row.line} repeats {row.path} of line {first[row.path]}")
    names = sorted({row.text for row in rows})
    if benchmark.classnames is not None:
        given = listed.root / Path(benchmark.classnames).expanduser()
        lines = _text(given if given.exists() else listed.file.with_name(given.name)).splitlines()
        names = [line.strip() for line in lines if line.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise CorruptInputError(f"{listed.file}: needs at least two class names, none twice; found {names[:5]}")
    labels = [row.text for row in rows]
    indices = not set(labels) & set(names) and all(re.fullmatch(r"\d+(\.0)?", label) for label in labels)
    if indices:
        labels = [names[i] if (i := int(float(label))) < len(names) else label for label in labels]
    texts = [name.replace("_", " ") if benchmark.csv is None else name for name in names]
    classes = [BenchmarkClass(name=name, text=text) for name, text in zip(names, texts, strict=True)]
    found = {"labels": "indices" if indices else "words", "paths start at": listed.start}
    for what, number, known in (("images", len(rows), benchmark.images), ("classes", len(names), benchmark.classes)):
        if known is not None:
            found[what] = f"{number}" if number == known else f"{number}, where its publisher tells of {known}"
    skipped = {"no label": len(listed.rows) - len(rows)} if len(rows) < len(listed.rows) else {}
    items = _pack(benchmark, listed, rows, labels, classes, found, out, progress)
    return items.summary(skipped, synthetic=False) | {"found": found}


def build_caption_retrieval(
    benchmark: CaptionRetrievalBenchmark, shared: Shared, out: Path, progress: Progress = silent
) -> dict[str, Any]:
    """Check every image of a list, and write `items.parquet`, `captions.parquet` and `benchmark.json`.

    Each image and each caption counts once, however often the list names it; a caption may be true of any number of
    images, and a row without one tells nothing. Arguments and errors are those of `build_image_folder`.
    """
    listed = _listed(benchmark, shared, benchmark.caption, progress)
    rows = [row for row in listed.rows if row.text.strip()]
    told = dict.fromkeys((row.path, benchmark.prefix + row.text.strip()) for row in rows)
    images = list({row.path: row for row in rows}.values())
    items = _pack(benchmark, listed, images, [None] * len(images), (), {"paths start at": listed.start}, out, progress)
    captions = [caption for _, caption in told]
    write_captions(out, [path for path, _ in told], captions)
    counts = {"captions": len(set(captions)), "pairs": len(told), "found": {"paths start at": listed.start}}
    return items.summary({}, synthetic=False) | counts


def _listed(benchmark: PublishedBenchmark, shared: Shared, column: str, progress: Progress) -> _Listed:
    """The list of a benchmark, fetched where it is published and not there."""
    root = shared.resolve(benchmark.root)
    place = fetch(benchmark.archive, root, benchmark.sha256, progress) if benchmark.archive else root
    if benchmark.csv is None:
        paths = [path.relative_to(place).as_posix() for path in _class_images(place)]
        rows = [_Row(i + 1, path, path.partition("/")[0]) for i, path in enumerate(paths)]
        return _Listed(place, root, place, "the folder of classes", rows)
    file = (root / Path(benchmark.csv).expanduser()).resolve()
    if benchmark.archive and not file.exists() and len(elsewhere := list(place.rglob(file.name))) == 1:
        file = elsewhere[0]
    rows = _rows(file, column)
    # SkyScript's authors start at the root. Where the first image is not there, the way to the list is tried.
    way = [file.parent, *file.parents]
    folders = way[: way.index(root) + 1][::-1] if root in way else way[:1]
    base = next((folder for folder in folders if os.path.isfile(folder / rows[0].path)), way[0])  # noqa: PTH113 (never raises)
    return _Listed(file, root, base, "the root" if base == root else f"the folder {base.name}", rows)


def _class_images(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("*/**/*") if path.is_file() and not path.name.startswith("."))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MissingInputError(f"{path} cannot be read ({error.strerror}): correct benchmarks.yaml") from None
    except UnicodeDecodeError:
        raise CorruptInputError(f"{path} is not UTF-8 text") from None


def _rows(path: Path, column: str) -> list[_Row]:
    """The rows of a CSV, or of a JSON of captions as RSICD's publishers have it, of which the test split counts."""
    text = _text(path)
    try:
        if path.suffix == ".json":
            told = [one for one in json.loads(text)["images"] if one.get("split", "test") == "test"]
            pairs = [(one["filename"], sentence["raw"]) for one in told for sentence in one["sentences"]]
            rows = [_Row(i + 1, *map(str, pair)) for i, pair in enumerate(pairs)]
        else:
            reader = csv.DictReader(io.StringIO(text))
            names = reader.fieldnames or ()
            if not {"filepath", column} <= set(names):
                found = ", ".join(names)[:200] or "nothing"
                raise CorruptInputError(f"{path}: needs the columns filepath and {column}, found {found}")
            rows = [_Row(reader.line_num, row["filepath"] or "", row[column] or "") for row in reader]
    except csv.Error as error:
        raise CorruptInputError(f"{path}: is not CSV after line {reader.line_num} ({error})") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CorruptInputError(f"{path}: is no list of images and their sentences ({error!r:.100})") from None
    if not rows:
        raise CorruptInputError(f"{path}: has no rows")
    return [row._replace(path=posixpath.normpath(row.path) if row.path else "") for row in rows]


def _pack(
    benchmark: PublishedBenchmark,
    listed: _Listed,
    rows: Sequence[_Row],
    labels: Sequence[str | None],
    classes: Sequence[BenchmarkClass],
    found: dict[str, str],
    out: Path,
    progress: Progress,
) -> ItemsWriter:
    """Check the images of some rows, and write them and the benchmark's description; returns the writer of items."""
    problems: list[str] = []
    names = {cls.name for cls in classes}

    def checked(pair: tuple[_Row, str | None]) -> dict[str, Any] | str:
        row, label = pair
        try:
            if label is not None and label not in names:
                raise CorruptInputError(f"label {label!r} is not among the {len(names)} class names")
            return _item(listed.base, row.path, label)
        except CorruptInputError as error:
            return f"line {row.line}: {error}"

    with open_items(out) as items:
        pairs = zip(rows, labels, strict=True)
        for done, item in enumerate(in_order(checked, pairs, threads=2, ahead=IMAGES_AHEAD)):
            if done % IMAGES_AHEAD == 0:
                progress(done, len(rows), "images")
            if isinstance(item, str):
                problems.append(item)
            else:
                items.add(item)
        progress(len(rows), len(rows), "images")
        if problems:
            more = [f"and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
            shown = "\n".join(f"  - {problem}" for problem in [*problems[:SHOWN_PROBLEMS], *more])
            raise CorruptInputError(f"{listed.file}: {len(problems)} rows cannot be used:\n{shown}")
    said = "; ".join(f"{what}: {form}" for what, form in found.items())
    statement = f"Photographs of the published data set as its publisher described them. Found: {said}."
    items.describe(
        benchmark, out, synthetic=False, statement=statement, licence=benchmark.licence, classes=tuple(classes)
    )
    return items


def _item(base: Path, name: str, label: str | None) -> dict[str, Any]:
    """A row of `items.parquet`, once its image has been decoded whole."""
    try:
        path = (base / name).resolve()
        if not name:
            raise CorruptInputError(f"{name}: is no path")
        if not path.is_relative_to(base.resolve()):
            raise CorruptInputError(f"{name}: leaves the folder {base.name}")
        if not path.is_file():
            raise CorruptInputError(f"{name}: does not exist")
        data = read_file(path, name)
    except (OSError, ValueError) as error:
        raise CorruptInputError(f"{name}: is no path that can be read ({error})") from None
    height, width, _ = decode(data, name).shape
    truth = [] if label is None else [label]
    known = {"item_id": name, "image": data, "label": label, "truth": truth, "split": "test"}
    return dict.fromkeys(ITEM_SCHEMA.names) | known | {"width": width, "height": height}


def _reads(benchmark: PublishedBenchmark, shared: Shared) -> dict[str, Any]:
    """Stamps of lists and folders on this machine; an archive is known by its address."""
    root = shared.resolve(benchmark.root)
    names = [name for name in (benchmark.csv, getattr(benchmark, "classnames", None)) if name is not None]
    files = [root / Path(name).expanduser() for name in names] if benchmark.csv else _class_images(root)
    return {"files": [] if benchmark.archive else [file_stamp(path) for path in files]}


KIND = BenchmarkKind(
    settings=ImageFolderBenchmark,
    version="2",
    reads=_reads,
    build=lambda benchmark, shared, _inputs, out, progress: build_image_folder(benchmark, shared, out, progress),
    labels="one",
)

CAPTIONS = BenchmarkKind(
    settings=CaptionRetrievalBenchmark,
    reads=_reads,
    build=lambda benchmark, shared, _inputs, out, progress: build_caption_retrieval(benchmark, shared, out, progress),
    labels="captions",
)
