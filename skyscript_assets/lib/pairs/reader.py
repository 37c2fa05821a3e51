"""Pairs to train on: every pass in another order over all of them, images decoded by threads ahead of their use.

Rows lie in a memory-mapped file (Arrow) that all processes of a machine share; a process holds the order, eight bytes a
pair, a window of rows and the images that are decoded ahead. Each image is read by its place, from a file or as a range
of an object: so the order is the same everywhere, wholly random as that of shuffled blocks is not, and can be entered
at any position. An object store is asked once for each pair; threads hide how long that takes.
"""

import functools
import hashlib
import itertools
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, CAPTIONS_FILE
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.errors import SettingsError, StorageError, TooLittleDataError, UpstreamMissingError
from skyscript_assets.lib.files import digest, replacing
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.pairs.foreign import PAIR_SCHEMA, Foreign
from skyscript_assets.lib.pairs.images import Images, Place, chip_images
from skyscript_assets.lib.pairs.manifest import MANIFEST_SCHEMA
from skyscript_assets.lib.pairs.selection import SELECTED_BY, Selection
from skyscript_assets.lib.pairs.table import joined
from skyscript_assets.lib.storage.records import Head, OutputKey
from skyscript_assets.lib.storage.store import VERSIONS, Store
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.threads import cores
from skyscript_assets.lib.towers.views import UInt8Array

WINDOW, TASK = 1024, 8
"""Rows that are looked up at once, and those that a thread reads and decodes at a time."""

REMOTE_THREADS = 32
"""Threads where an answer takes much longer than decoding it."""

MANIFEST = OutputKey("training_manifest")


class Pair(NamedTuple):
    """An image, uint8 (height, width, 3), its caption, and the pixels of the object that it is about, where known."""

    image: UInt8Array
    text: str
    chip_id: str
    split: str
    focus_box: list[int] | None


class Pairs:
    """Pairs of a data folder, or foreign ones, in another order in every pass: each `for` gives what is left of one.

    DataLoader takes it for an IterableDataset where torch was imported before. Its workers know of no pass before their
    own: call `set_epoch` before each.

    Args:
        data: The data folder or its address (`s3://bucket/data`), or foreign pairs.
        splits: A split, or several.
        seed: Seed of the order.
        rank: Number of this process among `ranks`, which share out a pass; some have a pair more than others. Default:
            by torch's process group, else 0 of 1.
        ranks: Their number.
        threads: Threads that read and decode; 1: whoever iterates does. Default: over an object store 32, else in a
            DataLoader's worker 1, else one for each core, 16 at most.
        transform: Called by these threads with each `Pair`; what it returns is given instead.
        scratch: Local folder for the mapped file, and for copies of an object store's tables, which needs one; default:
            below the data folder.
        wanted: More of `Selection`: `share`, `regions`, `sources`, `max_gsd_m`, `tags`, `style`, `prefix`.

    Raises:
        UpstreamMissingError: there is no manifest yet.
        TooLittleDataError: no pair is wanted.
        SettingsError: foreign pairs are chosen by what nobody knows of them; there is no such rank, style or share.
        StorageError: the mapped file cannot be written.
    """

    def __init__(
        self,
        data: str | Path | Foreign,
        splits: str | tuple[str, ...] = "train",
        *,
        seed: int = 0,
        rank: int | None = None,
        ranks: int | None = None,
        threads: int | None = None,
        transform: Callable[[Pair], Any] | None = None,
        scratch: str | Path | None = None,
        **wanted: Any,
    ) -> None:
        self._wanted = Selection(splits=(splits,) if isinstance(splits, str) else tuple(splits), **wanted)
        self._data, self._seed, self._transform = data, seed, transform
        self._scratch = None if scratch is None else Path(scratch)
        if rank is None and ranks is None:
            rank, ranks = _ranks()
        if rank is None or ranks is None or not 0 <= rank < ranks:
            raise SettingsError(f"rank {rank} of {ranks}: state both, ranks count from 0")
        if seed < 0:
            raise SettingsError(f"seed {seed}: seeds count from 0")
        self._rank, self._ranks = rank, ranks
        self.epoch, self.position, self._epoch_is_set = 0, 0, False
        rows, images, name = self._opened
        self._count, self._of = int(rows.num_rows), f"{name} {seed}"
        self._threads = threads or (REMOTE_THREADS if images.remote else None)
        if not self._count:
            raise TooLittleDataError("no pair is wanted: ask for more splits, regions, sources or tags")
        if torch := sys.modules.get("torch"):
            torch.utils.data.IterableDataset.register(Pairs)

    def __len__(self) -> int:
        """Pairs of this rank in a pass."""
        return (self._count - self._rank + self._ranks - 1) // self._ranks

    def __iter__(self) -> Iterator[Any]:
        """What is left of this pass: `Pair`s, or what `transform` made of them.

        Raises:
            CorruptInputError, UpstreamMissingError: an image is not the one that was listed; shard and chip are named.
            SettingsError: in a DataLoader's worker, and no epoch was set.
        """
        number, of, threads = self._consumer()
        epoch, start = self.epoch, self.position
        tasks = self._tasks(self._order()[start + number :: of])
        done: Generator[Iterable[Any], None, None] = (map(self._pair, task) for task in tasks)
        if threads > 1:
            done = in_order(lambda task: list(map(self._pair, task)), tasks, threads=threads, ahead=2 * threads)
        try:
            for taken, pair in enumerate(itertools.chain.from_iterable(done), start=1):
                self.epoch, self.position = epoch, start + taken * of
                yield pair
        finally:
            done.close()
        self.epoch, self.position = epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Begin a pass, from 0 on; equal numbers have equal orders.

        Raises:
            SettingsError: it is no such number.
        """
        if epoch < 0:
            raise SettingsError(f"epoch {epoch}: passes count from 0")
        self.epoch, self.position, self._epoch_is_set = epoch, 0, True

    def state_dict(self) -> dict[str, Any]:
        """Epoch, and position: pairs of it that all ranks and workers together were given, each equally many."""
        return {"epoch": self.epoch, "position": self.position, "of": self._of}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken, on any number of ranks and workers.

        Raises:
            SettingsError: it is of another manifest, selection or seed, or no state.
        """
        if state.get("of") != self._of or not {"epoch", "position"} <= state.keys():
            raise SettingsError("the reader's state is of another manifest, selection or seed: begin with set_epoch")
        self.set_epoch(state["epoch"])
        self.position = state["position"]

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open, which a worker that is not forked opens again."""
        return {name: value for name, value in vars(self).items() if name != "_opened"}

    @functools.cached_property
    def _opened(self) -> tuple[pa.Table, Images, str]:
        """The rows, how their images are read, and what tells these rows from others."""
        if isinstance(self._data, Foreign):
            return _foreign(self._data, self._wanted)
        return _own(Store(self._data, self._scratch), self._wanted, self._scratch)

    def _consumer(self) -> tuple[int, int, int]:
        """Number of this process among the workers of all ranks, how many these are, and threads of each."""
        torch = sys.modules.get("torch")
        worker = torch.utils.data.get_worker_info() if torch else None
        if worker is None:
            return self._rank, self._ranks, self._threads or min(16, cores())
        if not self._epoch_is_set:
            raise SettingsError("a DataLoader's workers do not know the pass before: call set_epoch before each pass")
        return worker.id * self._ranks + self._rank, self._ranks * worker.num_workers, self._threads or 1

    def _order(self) -> IntArray:
        """Numbers of rows in the order of this pass; no release of numpy draws otherwise."""
        drawn = np.random.PCG64(np.random.SeedSequence([self._seed, self.epoch])).random_raw(self._count)
        return np.argsort(drawn, kind="stable")

    def _tasks(self, numbers: IntArray) -> Iterator[list[tuple[Any, ...]]]:
        for start in range(0, len(numbers), WINDOW):
            window = np.ascontiguousarray(numbers[start : start + WINDOW])
            # Not pa.array, which imports pandas when it is given an array first.
            wanted = pa.Array.from_buffers(pa.int64(), len(window), [None, pa.py_buffer(window)])
            rows = self._opened[0].take(wanted)
            listed = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
            yield from (listed[at : at + TASK] for at in range(0, len(listed), TASK))

    def _pair(self, row: tuple[Any, ...]) -> Any:
        *place, text, split, box = row
        image = self._opened[1].pixels(Place(*place))
        pair = Pair(image, self._wanted.prefix + text, place[0], split, box)
        return pair if self._transform is None else self._transform(pair)


def _ranks() -> tuple[int, int]:
    torch = sys.modules.get("torch")
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _foreign(pairs: Foreign, wanted: Selection) -> tuple[pa.Table, Images, str]:
    if wanted != Selection(splits=wanted.splits, prefix=wanted.prefix):
        raise SettingsError("foreign pairs have no score, region, source, GSD, tags or style: choose by split alone")
    rows = pairs.table.filter(pc.is_in(pairs.table["split"], value_set=pa.array(wanted.splits)))
    rows = rows.select(PAIR_SCHEMA.names).combine_chunks()
    listed = hashlib.sha256()
    for chunk in (*rows["chip_id"].chunks, *rows["text"].chunks):
        for buffer in filter(None, chunk.buffers()):
            listed.update(buffer)
    return rows, pairs.images, digest([str(pairs.root), listed.hexdigest(), wanted.splits])


def _own(store: Store, wanted: Selection, scratch: Path | None) -> tuple[pa.Table, Images, str]:
    """Of the current manifest; images are those of the current chips of their regions and sources."""
    name = digest([_head(store, MANIFEST).version, repr(replace(wanted, prefix=""))])
    path = (
        Path(store.local, ".cache/pairs", f"{name}.arrow") if store.remote or not scratch else scratch / f"{name}.arrow"
    )
    try:
        if not path.exists():
            rows = _chosen(store, wanted)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary, pa.ipc.new_file(str(temporary), PAIR_SCHEMA) as writer:
                writer.write_table(rows)
        rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise StorageError(f"{path} cannot be used ({error}): remove it, or name a folder by scratch=") from error

    @functools.cache
    def folder_of(region: str, source: str) -> Path:
        key = OutputKey("image_chips", (region, source))
        folder = Path(VERSIONS, key.path) if store.remote else store.versions(key)
        return folder / _head(store, key).version

    return rows, chip_images(folder_of, store.remote), name


def _head(store: Store, key: OutputKey) -> Head:
    if (head := store.head(key)) is None:
        raise UpstreamMissingError(f"{store.root} has no {key}: run `skyscript run {key}` first")
    return head


def _chosen(store: Store, wanted: Selection) -> pa.Table:
    """The wanted rows of the manifest, as one chunk: looking rows up in several is slow."""
    places = ("chip_id", "image_shard", "image_offset", "image_length", "image_sha256")
    columns = [*places, wanted.style, "split", "focus_box"]
    rows = read_table(store.folder(MANIFEST) / "manifest.parquet", MANIFEST_SCHEMA, [*{*columns, *SELECTED_BY}])
    rows = rows.filter(wanted.of_manifest(rows))
    if wanted.looks_closer:
        partitions = rows.group_by(["region", "source"]).aggregate([]).to_pylist()
        known = pa.concat_tables(_looked_at(store, tuple(each.values())) for each in partitions)
        rows = rows.filter(pc.is_in(rows["chip_id"], known.filter(wanted.of_pairs(known))["chip_id"]))
    return rows.select(columns).rename_columns(PAIR_SCHEMA.names).cast(PAIR_SCHEMA).combine_chunks()


def _looked_at(store: Store, partition: tuple[str, ...]) -> pa.Table:
    """GSD and tags, which the manifest does not know, of the chips of a region and source."""
    plan, captions = (store.folder(OutputKey(asset, partition)) for asset in ("chip_plan", "captions"))
    planned = read_table(plan / "plan.parquet", PLAN_SCHEMA, ["chip_id", "gsd_m"])
    tags = read_table(captions / CAPTIONS_FILE, CAPTION_SCHEMA, ["chip_id", "center_tags"])
    return joined(planned, tags, "chip_id", ["center_tags"])
