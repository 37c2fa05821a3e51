"""Pairs that others made, as the columns by which pairs are read: a CSV, tars of WebDataset.

The published SkyScript is a CSV as well. Its `metas` are pickles, which can run anything when they are read: they never
are, so that boxes and tags of its images are not known here.
"""

import csv
import io
import itertools
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError
from skyscript_assets.lib.files import inside
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.pairs.images import Images, Place
from skyscript_assets.lib.pairs.thumbnails import fingerprint
from skyscript_assets.lib.tables import ROW_GROUP_ROWS, fields
from skyscript_assets.lib.tar import BLOCK
from skyscript_assets.lib.threads import cores
from skyscript_assets.lib.towers.images import decode

PAIR_SCHEMA = pa.schema(
    [
        *fields(pa.large_string(), "chip_id", "shard"),
        *fields(pa.int64(), "offset", "length"),
        *fields(pa.large_string(), "sha256", "text", "split"),
        PLAN_SCHEMA.field("focus_box"),
    ]
)
"""Columns by which pairs are read, those of `Place` first; of foreign pairs `sha256` and `focus_box` are null."""

IMAGES = ("jpg", "jpeg", "png", "webp", "tif", "tiff")
MAX_TEXT_BYTES = 1 << 20
SHOWN = 5
"""Missing images that a message names."""

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError, OSError)
"""What reading a list or tar that is none, or damaged, raises besides the errors of csv and tarfile."""

_SKYSCRIPT_NAME = r"^(?:.*/)?(?P<object_id>[anwr]\d+)_[A-Z0-9]+_\d\d(?:\.\w+)?$"
_LISTED = pa.schema([PAIR_SCHEMA.field(name) for name in ("chip_id", "shard", "offset", "length", "text", "split")])
_Row = tuple[str, str, int, int, str, str]


@dataclass(frozen=True)
class Foreign:
    """Pairs of others, as columns of `PAIR_SCHEMA`; `chip_id` is the image's path or key, `shard` starts at `root`.

    There is an `object_id` where a name tells it; `skipped` are pairs that were left out, having no image or text.
    """

    table: pa.Table
    root: Path
    skipped: int = 0

    @property
    def images(self) -> Images:
        """How their images are read."""
        return Images(lambda shard: inside(self.root, shard), decode, "get it again, or list the pairs again")

    def with_digests(self) -> Self:
        """The same with `sha256` and `phash`, made as in `chips.parquet`: each image is read and decoded once.

        Raises:
            CorruptInputError: an image cannot be decoded; and what `Images.read` raises.
        """
        places = [*map(Place, *(self.table[name].to_pylist() for name in Place._fields))]
        different = {place[1:3]: place for place in places}
        images = self.images

        def known(place: Place) -> dict[str, Any]:
            return fingerprint(images.read(place), f"{place.shard}: {place.chip_id}")

        found = dict(zip(different, in_order(known, different.values(), threads=cores()), strict=True))
        table = self.table.drop_columns("sha256")
        for name, kind in (("sha256", pa.large_string()), ("phash", pa.string())):
            table = table.append_column(name, pa.array([found[place[1:3]][name] for place in places], kind))
        return replace(self, table=table)


def foreign_pairs(
    source: Path | str,
    images: Path | str | None = None,
    *,
    path: str = "filepath",
    title: str = "title",
    split: str = "train",
    skip_missing: bool = False,
) -> Foreign:
    """List pairs that others made: a CSV; a tar of WebDataset, not compressed, or a folder of them.

    Samples of a tar are an image with a txt or a json. `images` is the folder that paths start at, by default that of
    the list. `path`, `title` and `split` name columns, or keys of the json; where none is called like `split`, that is
    the split of all. With `skip_missing` pairs without image or text are left out, and counted.

    Raises:
        MissingInputError: the source is not there, or images are not; they are counted, some are named.
        CorruptInputError: the source cannot be read, or a path leads out of the folder.
    """
    source = Path(source)
    root = Path(images or (source if source.is_dir() else source.parent))
    tars = sorted(root.rglob("*.tar")) if source.is_dir() else [source] if source.suffix == ".tar" else []
    rows = _samples(tars, root, title, split) if tars else _files(source, root, path, title, split)
    blocks = [_LISTED.empty_table()]
    try:
        while block := list(itertools.islice(rows, ROW_GROUP_ROWS)):
            blocks.append(pa.table([*map(pa.array, zip(*block, strict=True))], names=_LISTED.names).cast(_LISTED))
    except FileNotFoundError as error:
        raise MissingInputError(f"{source} does not exist") from error
    except (*UNREADABLE, csv.Error, tarfile.TarError) as error:
        raise CorruptInputError(f"{source} is no list of pairs that can be read ({str(error)[:300]})") from error
    listed = pa.concat_tables(blocks)
    there = pc.and_(pc.greater(listed["length"], 0), pc.not_equal(pc.utf8_trim_whitespace(listed["text"]), ""))
    lost, listed = listed.filter(pc.invert(there))["chip_id"], listed.filter(there)
    if len(lost) and not skip_missing:
        told = f"{source}: {len(lost):,} of {len(there):,} pairs have no image or text below {root}"
        names = ", ".join(lost.slice(0, SHOWN).to_pylist())
        raise MissingInputError(f"{told}: {names}; get them, or leave them out by skip_missing")
    for number, field in enumerate(PAIR_SCHEMA):
        if field.name not in listed.column_names:
            listed = listed.add_column(number, field, pa.nulls(len(listed), field.type))
    named = pc.struct_field(pc.extract_regex(listed["chip_id"], _SKYSCRIPT_NAME), "object_id")
    return Foreign(listed.append_column("object_id", named), root, len(lost))


def _files(source: Path, root: Path, path: str, title: str, split: str) -> Iterator[_Row]:
    """Rows of a CSV with the place of each image: a whole file; its length is 0 where there is none."""
    with source.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            if row.get(path) is None or row.get(title) is None:
                raise ValueError(f"a row has no {path} and {title}, its columns are {', '.join(map(str, row))}")
            image = inside(root, row[path])
            size = image.stat().st_size if image.is_file() else 0
            yield row[path], row[path], 0, size, row[title], row.get(split) or split


def _samples(tars: Iterable[Path], root: Path, title: str, split: str) -> Iterator[_Row]:
    """Samples of tars: members of one name up to its first dot, one after another."""
    for tar in tars:
        shard = tar.relative_to(root).as_posix()
        for key, found in itertools.groupby(_members(tar), lambda member: member[0]):
            parts = {ending.lower(): (start, size, told) for _, ending, start, size, told in found}
            offset, length, _ = next((parts[ending] for ending in IMAGES if ending in parts), (0, 0, b""))
            facts = json.loads(parts["json"][2]) if "json" in parts else {}
            text = parts["txt"][2].decode() if "txt" in parts else str(facts.get(title) or "")
            yield key, shard, offset, length, text, str(facts.get(split) or split)


def _members(path: Path) -> Iterator[tuple[str, str, int, int, bytes]]:
    """Key, ending and place of the files in a tar, and what is in those of text."""
    with _Bounded(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            if not member.offset < member.offset_data <= tar.offset:
                raise CorruptInputError(f"{path} is damaged at byte {member.offset}: get it again")
            tar.members = []  # type: ignore[attr-defined]
            folder, slash, name = member.name.rpartition("/")
            key, _, ending = name.partition(".")
            if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                told = min(member.size, MAX_TEXT_BYTES) if ending.lower() in ("txt", "json") else 0
                text = os.pread(file.fileno(), told, member.offset_data)
                yield folder + slash + key, ending, member.offset_data, member.size, text
        if os.pread(file.fileno(), BLOCK, tar.offset) != bytes(BLOCK):
            raise CorruptInputError(f"{path} is cut or damaged at byte {tar.offset}: get it again")


class _Bounded(io.FileIO):
    """A file that gives no header of a tar that would fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_TEXT_BYTES:
            raise ValueError(f"{self.name}: a header of {size} bytes")
        return super().read(size)
