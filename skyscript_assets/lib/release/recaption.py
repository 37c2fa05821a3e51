"""The captions of a release written again by other rules, without touching a byte of its images."""

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, CAPTIONS_FILE, CaptionInputs, write_captions
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.errors import CheckFailedError, CorruptInputError, TooLittleDataError
from skyscript_assets.lib.files import claimed
from skyscript_assets.lib.imagery.scenes import write_scenes
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.release import data
from skyscript_assets.lib.release.origins import OBJECTS_FILE, RECIPE_FILE, SIGHT_SCHEMA, WINDOWS_FILE, Origins
from skyscript_assets.lib.release.write import finish
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.settings.load import GivenFile
from skyscript_assets.lib.settings.plant import CaptionSettings, ReleaseSettings
from skyscript_assets.lib.tables import check_table, read_table, write_table, write_tables
from skyscript_assets.lib.tags.snapshot import TAGS_FILE, TAGS_SCHEMA

SAME, CHANGED, SILENT, GONE = "have the captions of before", "have others", "left out: nothing is said", "removed"
"""What becomes of pairs."""

ROWS = 256
"""Pairs, with their images, in memory at a time."""


def recaption(
    release: Path,
    settings: ReleaseSettings,
    config: data.ReleaseConfig,
    captions: CaptionSettings,
    rules: Path,
    out: Path,
    progress: Progress = silent,
) -> Counter[str]:
    """Write a release again with captions by other rules, whole or not at all; pairs by what became of them.

    Captions are made of what travels with it: windows, the map objects in their sight without names, addresses and
    notes, and which tags can be seen at which resolution. A score stays where all captions of its pair do. `settings`
    and `config` tell what it becomes and who is removed; how chips were planned and cut stands in the release.

    Raises:
        CorruptInputError: files of the release are broken, or an image is not the one that was released.
        UpstreamMissingError, OutputSchemaError: it lacks files, or another version wrote them.
        CheckFailedError: a sentence is not proved by the objects.
        TooLittleDataError: no pair has a caption.
        StorageError, OutputBusyError: as `claimed` does.
    """
    origins, counts = Origins.of(release), Counter[str]()
    removed = data.read_removed(config.removed.path) if config.removed else frozenset[str]()
    wanted = {**dict.fromkeys(data.data_files(release), data.DATA_SCHEMA), release / OBJECTS_FILE: SIGHT_SCHEMA}
    for path, schema in (wanted | {release / TAGS_FILE: TAGS_SCHEMA}).items():
        check_table(path, schema)
    with claimed(out) as folder:
        for region, source, windows in origins.partitions():
            said = _said(release, region, windows, captions, rules, folder)
            mine = (pc.field("region") == region) & (pc.field("source") == source)
            rows = _rows(release, mine, windows, removed, said, settings.style, counts)
            data.write_rows(rows, folder / "data" / source, region, frozenset())
            progress(counts.total(), origins.windows.num_rows, "pairs")
        if not counts[SAME] + counts[CHANGED]:
            raise TooLittleDataError(f"nothing is said of any pair of {release}, or all are removed")
        _write_origins(release, origins, removed, folder)
        recipe, before = origins.recipe, GivenFile(path=release / data.SUMS_FILE, sha256="")
        said_of = {"plan": recipe.plan, "zoom": recipe.zoom, "policy": captions.policy, "previous": before}
        finish(settings, config.model_copy(update=said_of), {"audit": [], "gone": counts[GONE]}, folder)
    return counts


def _said(
    release: Path, region: str, windows: pa.Table, captions: CaptionSettings, rules: Path, out: Path
) -> dict[str, dict[str, Any]]:
    """The captions of a partition's chips by id; what they are made of lies in a folder of `out` meanwhile."""
    import pyarrow.dataset as ds

    with tempfile.TemporaryDirectory(dir=out) as name:
        work = Path(name)
        write_table(work / PLAN_FILE, windows.select(PLAN_SCHEMA.names))
        accepted = windows.select(["chip_id"]).append_column("status", pa.repeat("ok", len(windows)))
        write_table(work / "chips.parquet", accepted)
        scanner = ds.dataset(release / OBJECTS_FILE).scanner(OBJECT_SCHEMA.names, filter=pc.field("region") == region)
        write_tables(work / OBJECTS_FILE, OBJECT_SCHEMA, map(pa.table, scanner.to_batches()))
        made = write_captions(CaptionInputs(work, work, work / OBJECTS_FILE, release, rules), captions, work)
        if made["unproven"]:
            told = f"{release}: its objects do not prove sentences of {len(made['unproven'])} pairs"
            raise CheckFailedError(told, "proven_sentences", made["unproven"])
        written = read_table(work / CAPTIONS_FILE, CAPTION_SCHEMA, ["chip_id", *STYLES, "center_tags"])
    return {row["chip_id"]: row for row in written.to_pylist(maps_as_pydicts="strict")}


def _rows(
    release: Path,
    mine: pc.Expression,
    windows: pa.Table,
    removed: frozenset[str],
    said: Mapping[str, Mapping[str, Any]],
    style: str,
    counts: Counter[str],
) -> Iterator[dict[str, Any]]:
    """The pairs of a partition, rows that are `mine`, with what is said of them now; `counts` what became of each."""
    import pyarrow.dataset as ds

    digests = dict(zip(*(windows[name].to_pylist() for name in ("chip_id", "sha256")), strict=True))
    scanner = ds.dataset(data.data_files(release)).scanner(
        data.DATA_SCHEMA.names, filter=mine, batch_size=ROWS, batch_readahead=1, fragment_readahead=1
    )
    for row in (row for batch in scanner.to_batches() for row in batch.to_pylist()):
        found = hashlib.sha256((row["image"] or {}).get("bytes") or b"").hexdigest()
        if digests.pop(row["chip_id"], None) != found:
            raise CorruptInputError(
                f"{release}: the image of {row['chip_id']} is not the one that {WINDOWS_FILE} lists; fetch it again"
            )
        new = said.get(row["chip_id"])
        if not removed.isdisjoint((row["chip_id"], row["object_id"])):
            counts[GONE] += 1
        elif new is None:
            counts[SILENT] += 1
        else:
            same = all(row[each] == new[each] for each in STYLES)
            counts[SAME if same else CHANGED] += 1
            scored = {} if same else {"score": None, "scorer": None}
            texts = {each: new[each] for each in STYLES} | {"text": new[style]}
            yield row | texts | scored | {"tags": data.shown_tags(new["center_tags"])}
    if digests:
        told = f"{len(digests)} pairs of {WINDOWS_FILE}, such as {min(digests)}, are not in its data"
        raise CorruptInputError(f"{release}: {told}; fetch it again")


def _write_origins(release: Path, origins: Origins, removed: frozenset[str], out: Path) -> None:
    """Write what travels with the pairs that are in a folder."""
    import pyarrow.dataset as ds

    kept = pa.concat_arrays([batch["chip_id"] for _, batch in data.batches(out, ["chip_id"])])
    windows = origins.windows.filter(pc.is_in(origins.windows["chip_id"], kept))
    used = set(windows["scene_id"].to_pylist())
    write_table(out / WINDOWS_FILE, windows)
    write_scenes(out, [scene for scene in origins.scenes if scene.scene_id in used])
    for name in (RECIPE_FILE, TAGS_FILE):
        shutil.copyfile(release / name, out / name)
    others = ~pc.field("object_id").isin(pa.array(sorted(removed), pa.string()))
    scanner = ds.dataset(release / OBJECTS_FILE).scanner(SIGHT_SCHEMA.names, filter=others)
    write_tables(out / OBJECTS_FILE, SIGHT_SCHEMA, map(pa.table, scanner.to_batches()))
