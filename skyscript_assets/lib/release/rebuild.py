"""The images of a release made again from their scenes, elsewhere and later; each that is another one says why."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CHIPS_FILE, CUT_VERSION, CutInputs, cut_chips
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError, SettingsError
from skyscript_assets.lib.files import locked, replacing
from skyscript_assets.lib.imagery.reader import SceneReader
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.imagery.sources.kind import source_kind
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.release.origins import Origins
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.settings.sources import SourceBase
from skyscript_assets.lib.tables import read_table, write_table

REBUILT_FILE = "rebuilt.csv"
SAME, MISSING, CHANGED = "same", "scene missing", "scene's digest differs"
PIXELS, CODE = "pixels differ", "code version differs"
"""What becomes of a sample. Where the code's version differs, so do the pixels, and the code may be why."""


def rebuild(
    release: Path, out: Path, sources: Mapping[str, SourceBase], scenes: Path | None = None, progress: Progress = silent
) -> Counter[str]:
    """Cut the chips of a release again into `{out}/{region}/{source}`, and tell of each in `{out}/rebuilt.csv`.

    The folders are those of `image_chips`. A rebuild that was killed goes on in the same folder. `sources` by key are
    asked for those that are read over a network; scenes that are files lie in `scenes` or in its `{region}/{source}`,
    by default in the release. Returns samples by what became of them.

    Raises:
        CorruptInputError: the release's files are broken, or name what lies elsewhere.
        OutputBusyError: another process writes into the folder.
        SettingsError: `sources` lack one that is read over a network.
        UpstreamMissingError: the release has no such files.
    """
    origins, counts = Origins.of(release), Counter[str]()
    out.mkdir(parents=True, exist_ok=True)
    with (
        locked(out, out),
        replacing(out / REBUILT_FILE) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(("chip_id", "outcome", "why"))
        for region, source, windows in origins.partitions():
            mine = [scene for scene in origins.scenes if (scene.region, scene.source) == (region, source)]
            known = [_located(scene, (scenes or release).absolute()) for scene in mine]
            cut = partial(_cut, settings=origins.recipe.chips, out=out / region / source, progress=progress)
            for chip_id, outcome, why in cut(windows, known, sources):
                outcome = CODE if outcome == PIXELS and origins.recipe.code != CUT_VERSION else outcome
                table.writerow((chip_id, outcome, why))
                counts[outcome] += 1
    return counts


def _located(scene: Scene, folder: Path) -> Scene:
    """A scene whose files, which have names alone, are looked for in a folder."""
    own = folder / scene.region / scene.source
    found = (href if "/" in href else (own if (own / href).is_file() else folder) / href for href in scene.hrefs)
    return replace(scene, hrefs=tuple(map(str, found)))


def _cut(
    windows: pa.Table,
    scenes: Sequence[Scene],
    sources: Mapping[str, SourceBase],
    settings: ChipSettings,
    out: Path,
    progress: Progress,
) -> Iterator[tuple[str, str, str]]:
    """Cut the chips of a region and source; of each its id, what became of it, and why."""
    away: dict[str, tuple[str, str]] = {}
    for scene in scenes:
        try:
            source_kind(scene.kind).check_scene(scene)
        except (MissingInputError, CorruptInputError, SceneError) as error:
            away[scene.scene_id] = MISSING if isinstance(error, MissingInputError) else CHANGED, str(error)
    there = [scene.scene_id for scene in scenes if scene.scene_id not in away]
    usable = pc.is_in(windows["scene_id"], value_set=pa.array(there, pa.string()))
    for row in windows.filter(pc.invert(usable)).select(["chip_id", "scene_id"]).to_pylist():
        yield row["chip_id"], *away.get(row["scene_id"], (MISSING, f"no scene {row['scene_id']} in the release"))
    wanted = windows.filter(usable)
    if not len(wanted):
        return

    def opened(scene: Scene) -> SceneReader:
        source = sources.get(scene.source)
        if (source is None or source.kind != scene.kind) and not scene.path.is_file():
            raise SettingsError(f"sources.yaml has no source {scene.source}, whose scenes are {scene.kind}: state it")
        return source_kind(scene.kind).open_scene(scene, source, None)

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_table(out / PLAN_FILE, wanted.select(PLAN_SCHEMA.names))
        write_scenes(out, scenes)
        cut_chips(CutInputs(out, out, opened), settings, out, progress)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CorruptInputError(f"{out.name}: its chips cannot be cut ({error}); fetch the release again") from error
    chips = read_table(out / CHIPS_FILE, CHIP_SCHEMA, ["chip_id", "sha256", "reason"]).to_pylist()
    for chip, sha256 in zip(chips, wanted["sha256"].to_pylist(), strict=True):
        same = chip["sha256"] == sha256
        differs = PIXELS if chip["sha256"] is not None else MISSING
        yield chip["chip_id"], SAME if same else differs, "" if same else chip["reason"] or ""
