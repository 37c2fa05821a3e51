"""What a release's pairs come from, and travels with them: windows of scenes, and the map objects in sight."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from pydantic import ValidationError

from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CUT_VERSION
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.files import is_name, write_json
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes, write_scenes
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.pairs.leaks import LEAK_SCHEMA, LEAKS_FILE
from skyscript_assets.lib.pairs.table import joined
from skyscript_assets.lib.release.data import ReleaseInputs, data_files
from skyscript_assets.lib.settings.base import Model
from skyscript_assets.lib.settings.plant import ChipSettings, PlanSettings
from skyscript_assets.lib.tables import geo_metadata, read_batches, read_table, write_tables
from skyscript_assets.lib.tags.snapshot import TAGS_FILE
from skyscript_assets.lib.tags.text import text_reason

WINDOWS_FILE, RECIPE_FILE, OBJECTS_FILE = "rebuild.parquet", "rebuild.json", "objects.parquet"

WINDOW_SCHEMA = pa.schema([*PLAN_SCHEMA, CHIP_SCHEMA.field("sha256")])
"""Columns of `rebuild.parquet`: the plan of each pair, and the digest of its JPEG."""

_SIGHT = pa.schema([("region", pa.string()), *OBJECT_SCHEMA])
SIGHT_SCHEMA = _SIGHT.with_metadata({b"geo": geo_metadata(_SIGHT, "geometry")})
"""Columns of `objects.parquet`, objects whose box meets a chip's. Tags that are names, addresses, contacts and the like
(`text_reason`) are left out."""

MAX_PX = 4096
"""Longest side of a chip."""

_LEADS_OUT = re.compile(r"^/|^$|(^|/)\.\.(/|$)|\0")


class Recipe(Model):
    """`rebuild.json`: the version of the code that cut images, and by which settings; what else the card tells."""

    code: str
    chips: ChipSettings
    plan: PlanSettings
    zoom: int
    leaks: dict[str, int]


class Origins(NamedTuple):
    """What a release's pairs come from."""

    recipe: Recipe
    windows: pa.Table
    scenes: list[Scene]

    @classmethod
    def of(cls, release: Path) -> Self:
        """That of a release, of which others may have written any byte.

        Raises:
            CorruptInputError: its files are broken, or lead out of a folder or to a server, or would fill the memory.
            UpstreamMissingError: it has no such files.
        """
        try:
            recipe = Recipe.model_validate_json((release / RECIPE_FILE).read_bytes())
        except (OSError, ValidationError, RecursionError) as error:
            raise CorruptInputError(
                f"{release / RECIPE_FILE} cannot be read ({error}); fetch the release again"
            ) from error
        windows, scenes = read_table(release / WINDOWS_FILE, WINDOW_SCHEMA), read_scenes(release)
        names = {name for column in ("chip_id", "region", "source") for name in windows[column].to_pylist()}
        wrong = [name for name in names if not is_name(name or "")]
        wrong += [href for scene in scenes for href in scene.hrefs if _LEADS_OUT.search(href.partition("://")[0])]
        if wrong or (pc.max(pc.max_element_wise(windows["width"], windows["height"])).as_py() or 0) > MAX_PX:
            told = f"{wrong[0]!r:.80} is no name here" if wrong else f"a chip is larger than {MAX_PX} pixels"
            raise CorruptInputError(f"{release}: {told}; take releases from people whom you trust")
        return cls(recipe, windows, scenes)

    def partitions(self) -> Iterator[tuple[str, str, pa.Table]]:
        """Region, source and their windows, by name."""
        pairs = self.windows.group_by(["region", "source"]).aggregate([]).to_pylist()
        for region, source in sorted((each["region"], each["source"]) for each in pairs):
            mine = pc.and_(pc.equal(self.windows["region"], region), pc.equal(self.windows["source"], source))
            yield region, source, self.windows.filter(mine)


def write_origins(inputs: ReleaseInputs, removed: frozenset[str], release: Path) -> None:
    """Write `rebuild.parquet`, `scenes.parquet`, `rebuild.json`, `tags.parquet` and `objects.parquet` of the pairs.

    Objects that are `removed` stay out.
    """
    import pyarrow.dataset as ds

    pairs, used = ds.dataset(data_files(release)), list[Scene]()

    def windows() -> Iterator[pa.Table]:
        for (region, source), folders in sorted(inputs.partitions.items()):
            mine = (ds.field("region") == region) & (ds.field("source") == source)
            known = pairs.to_table(columns=["chip_id", "sha256"], filter=mine).combine_chunks()
            plan = read_table(folders.plan / PLAN_FILE, PLAN_SCHEMA).select(PLAN_SCHEMA.names)
            plan = joined(plan.filter(pc.is_in(plan["chip_id"], known["chip_id"])), known, "chip_id", ["sha256"])
            shown = set(plan["scene_id"].to_pylist())
            used.extend(_public(one) for one in read_scenes(inputs.scenes[region, source]) if one.scene_id in shown)
            yield plan.cast(WINDOW_SCHEMA)

    def objects() -> Iterator[pa.Table]:
        gone = pa.array(sorted(removed), pa.string())
        for region, folder in sorted({region: each.objects for (region, _), each in inputs.partitions.items()}.items()):
            boxes = pairs.to_table(columns=["bbox"], filter=ds.field("region") == region)["bbox"]
            for table in _in_sight(region, folder / "objects.parquet", boxes) if folder is not None else ():
                yield table.filter(pc.invert(pc.is_in(table["object_id"], gone))).cast(SIGHT_SCHEMA)

    write_tables(release / WINDOWS_FILE, WINDOW_SCHEMA, windows())
    write_scenes(release, used)
    config, leaks = inputs.config, read_table(inputs.manifest / LEAKS_FILE, LEAK_SCHEMA, ["kind"])["kind"]
    recipe = Recipe(
        code=CUT_VERSION, chips=config.chips, plan=config.plan, zoom=config.zoom, leaks=Counter(leaks.to_pylist())
    )
    write_json(release / RECIPE_FILE, recipe.model_dump(mode="json"))
    shutil.copyfile(inputs.snapshot / TAGS_FILE, release / TAGS_FILE)
    write_tables(release / OBJECTS_FILE, SIGHT_SCHEMA, objects())


def _public(scene: Scene) -> Scene:
    """A scene without the folders of the machine that its files were on."""
    return replace(scene, hrefs=tuple(PurePosixPath(href).name if href[0] == "/" else href for href in scene.hrefs))


def _in_sight(region: str, path: Path, boxes: pa.ChunkedArray) -> Iterator[pa.Table]:
    """Objects whose box meets one of the boxes, [n, 4] degrees, some in memory at a time."""
    tree = shapely.STRtree(shapely.box(*pc.list_flatten(boxes).to_numpy().reshape(-1, 4).T))
    kind, place = OBJECT_SCHEMA.field("tags"), OBJECT_SCHEMA.get_field_index("tags")
    for batch in read_batches(path, OBJECT_SCHEMA, 65_536):
        sides = [batch["bbox"].field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")]
        table = pa.table(batch).take(np.unique(tree.query(shapely.box(*sides))[0]))
        tags = [[tag for tag in own if text_reason(*tag) in (None, "number")] for own in table["tags"].to_pylist()]
        table = table.set_column(place, kind, pa.array(tags, kind.type))
        yield table.add_column(0, "region", pa.array([region] * len(table), pa.string()))
