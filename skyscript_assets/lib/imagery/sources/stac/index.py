"""Scenes of the source kind `stac`: items of a catalog whose images were opened and are what the catalog says.

An item that lacks something, or whose image does, is listed in `unusable_items.json` with the reason, and the others go
on; a server that fails for now ends the index, so that no scene is lost to a bad moment.
"""

import itertools
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import shapely
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError, SceneError, SettingsError, UnreachableError
from skyscript_assets.lib.files import file_stamp
from skyscript_assets.lib.imagery.geotiff.describe import (
    Description,
    Preview,
    Stated,
    describe,
    located,
    nodata_of,
    scene_id,
    unwarned,
)
from skyscript_assets.lib.imagery.geotiff.raster import OpenImage, read_raw
from skyscript_assets.lib.imagery.geotiff.remote import ImageFile
from skyscript_assets.lib.imagery.reader import Window
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes, write_unusable
from skyscript_assets.lib.imagery.sources.kind import (
    INTERNET,
    Reading,
    Search,
    SourceKind,
    check_ground,
    of_variable,
    stated_facts,
)
from skyscript_assets.lib.imagery.sources.stac.catalog import find_items
from skyscript_assets.lib.imagery.sources.stac.hrefs import open_href
from skyscript_assets.lib.imagery.sources.stac.items import Item
from skyscript_assets.lib.imagery.sources.stac.reader import RemoteReader, joint_fingerprint
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.settings.base import Shared

WORLD = (-180.0, -90.0, 180.0, 90.0)

PREVIEW_PX = 512
"""Least longer side of the overview from which footprint and percentiles are taken."""

MAX_PREVIEW_PIXELS = 1 << 22
"""A larger overview, or file without one, is not fetched for that."""

LEAST_HONEST_SHARE = 0.5
"""Share of an item's footprint that its image must have: catalogs round corners, and list scenes of several tiles."""

ITEM_PLACES, CELL_PLACES = 5, 160
"""Places along a side by which an item, and a cell of a search, is asked whether it has enough scenes."""

TWIN_S, TWIN_SHARE = 60.0, 0.9
"""Most seconds between, and least common share of the ground of, two items that are one acquisition."""

OPENED_AT_ONCE = 8


def index_stac(search: Search[StacSource]) -> dict[str, Any]:
    """Write `scenes.parquet`: the best items over a region, perhaps none, and `unusable_items.json`.

    Returns:
        Numbers of `items` over the region that were looked at, of those `passing` the rules of the source, and of what
        became of these: `scenes`, of which an alpha band hides most of `mostly_hidden`, so that it may be none;
        `enough`: better ones cover their ground already; `over_limit`: there are as many scenes as the source allows;
        `outside` the region; `without_data`; `duplicates` of another one; `unusable`.

    Raises:
        RefusedError: the server refuses the catalog.
        CorruptInputError: the catalog is none, or its pages go in circles.
        SceneError: there are items, but none can be used; or too many.
        UnreachableError: a server failed on every try.
    """
    index, seen, passing = _Index(search), 0, 0
    with unwarned():
        for found in find_items(search.key, search.source, search.shared.folder, search.bbox, index.wants):
            seen, passing = seen + found.seen, passing + len(found.items) + len(found.unusable)
            index.unusable += found.unusable
            waiting = index.sorted(found.items)
            while wave := index.wave(waiting):
                for item, scene in zip(wave, in_order(index.attempt, wave, threads=OPENED_AT_ONCE), strict=True):
                    index.take(item, scene)
                search.progress(passing - len(waiting), passing, "items")
            index.left_out["over_limit"] += len(waiting)
    write_unusable(search.out, index.unusable)
    if index.unusable and not (index.scenes or index.left_out["outside"] or index.left_out["without_data"]):
        (name, reason), count = index.unusable[0], len(index.unusable)
        raise SceneError(
            f"source {search.key}: none of {count} items over {search.region} can be used; {name}: {reason}"
        )
    write_scenes(search.out, index.scenes.values())
    counts = {"items": seen, "passing": passing, "scenes": len(index.scenes), **index.left_out}
    hidden = len(index.hidden & index.scenes.keys())
    return {**counts, "mostly_hidden": hidden, "unusable": len(index.unusable)}


def check_items(key: str, source: StacSource, shared: Shared) -> dict[str, Any]:
    """Compare what a source states with the items of a catalog on this machine, and their images where these are.

    The index leaves out what cannot be used: so one image that is as stated, or is elsewhere, will do.

    Returns:
        What is stated, and the number of `items` that the rules of the source let pass.

    Raises:
        MissingInputError: the catalog does not exist.
        CorruptInputError: it is none.
        SceneError: no item has a date and an image as stated, or none lies on the ground that is stated.
    """
    if not source.is_local:
        return stated_facts(key, source, shared)
    try:
        (found,) = find_items(key, source, shared.folder, WORLD, lambda _: True)
    except (SceneError, UnreachableError):
        # There are too many to look at all, or some are elsewhere: the index, which asks for one region, will tell.
        return stated_facts(key, source, shared)
    reasons = [f"{name}: {reason}" for name, reason in found.unusable]
    stated = Stated(key, source.gsd_m, source.scaling, source.nodata)
    for item in found.items:
        href = item.hrefs[0]
        if href.startswith("/vsi") or urlsplit(href).scheme not in ("", "file"):
            break
        try:
            with unwarned(), open_href(href, source).open() as dataset:
                located(OpenImage(href, (dataset,), source.band_numbers), stated)
            break
        except (CorruptInputError, SceneError) as error:
            reasons.append(f"{item.id}: {error}")
    else:
        if reasons:
            raise SceneError(f"source {key}: none of {len(reasons)} items can be used; {reasons[0]}")
    check_ground(key, source, shared, [item.claimed for item in found.items if item.claimed is not None])
    return stated_facts(key, source, shared) | {"items": len(found.items)}


def _preference(item: Item, sort: str) -> tuple[float, float, str]:
    """What items are sorted by, the preferred first."""
    age = -item.datetime.timestamp()
    if sort == "cloud":
        return (1.0 if item.cloud_share is None else item.cloud_share, age, item.id)
    return (age if sort == "newest" else -age, 0.0, item.id)


class _Index:
    """The scenes taken so far."""

    def __init__(self, search: Search[StacSource]) -> None:
        self._search, self._source, self._ground = search, search.source, shapely.box(*search.bbox)
        self._taken: dict[Item, shapely.Geometry] = {}
        self._near: dict[Item, shapely.Geometry] = {}
        self.scenes: dict[str, Scene] = {}
        self.unusable: list[tuple[str, str]] = []
        self.hidden: set[str] = set()
        self.left_out = dict.fromkeys(("enough", "over_limit", "outside", "without_data", "duplicates"), 0)

    def wants(self, ground: shapely.Geometry) -> bool:
        """Whether some place of a ground has fewer than `depth` scenes, and there may be more."""
        self._look_at(ground)
        return len(self.scenes) < self._source.limit and self._lacks(ground, self._near.values(), CELL_PLACES)

    def sorted(self, items: Sequence[Item]) -> list[Item]:
        """Items to be taken in turn, the preferred first."""
        claimed = [item.claimed for item in items if item.claimed is not None]
        self._look_at(shapely.box(*shapely.total_bounds(claimed)) if len(claimed) == len(items) > 0 else self._ground)
        return sorted(items, key=lambda item: _preference(item, self._source.sort))

    def _look_at(self, ground: shapely.Geometry) -> None:
        """Of the scenes that were taken look at those alone that reach a ground, of a large region few."""
        reach = shapely.intersects(list(self._taken.values()), ground)
        self._near = {item: taken for (item, taken), near in zip(self._taken.items(), reach, strict=True) if near}

    def wave(self, waiting: list[Item]) -> list[Item]:
        """The next items to open, removed from those that wait: as many as are surely needed if all can be used."""
        chosen: list[Item] = []
        while waiting and len(chosen) < min(OPENED_AT_ONCE, self._source.limit - len(self.scenes)):
            item = waiting[0]
            ground = [other.claimed for other in chosen if other.claimed is not None]
            if any(_is_twin(item, other) for other in self._near):
                self.left_out["duplicates"] += 1
            elif not any(_is_twin(item, other) for other in chosen) and self._needed(item, ground):
                chosen.append(item)
            elif chosen:  # it may be needed yet, if one of these proves unusable
                break
            else:
                self.left_out["enough"] += 1
            waiting.pop(0)
        return chosen

    def _needed(self, item: Item, chosen: Sequence[shapely.Geometry]) -> bool:
        """Whether some place of an item has fewer than `depth` scenes."""
        if item.claimed is None or len(self._near) + len(chosen) < self._source.depth:
            return True
        return self._lacks(item.claimed.intersection(self._ground), [*self._near.values(), *chosen], ITEM_PLACES)

    def _lacks(self, area: shapely.Geometry, taken: Iterable[shapely.Geometry], side: int) -> bool:
        points, grounds = _places(area, side), np.array(list(taken), dtype=object)
        over = shapely.STRtree(grounds[shapely.intersects(grounds, area)])
        at, _ = over.query(shapely.points(points), predicate="within")
        return bool((np.bincount(at, minlength=len(points)) < self._source.depth).any())

    def take(self, item: Item, scene: Scene | str | None) -> None:
        """Count what an attempt came to."""
        if isinstance(scene, str):
            self.unusable.append((item.id, scene))
        elif scene is None:
            self.left_out["without_data"] += 1
        elif scene.scene_id in self.scenes:
            self.left_out["duplicates"] += 1
        elif not scene.footprint.intersects(self._ground):
            self.left_out["outside"] += 1
        else:
            self.scenes[scene.scene_id] = scene
            self._taken[item] = self._near[item] = scene.footprint

    def attempt(self, item: Item) -> Scene | str | None:
        """The scene that an item is, the reason why it is none, or None where it has no data."""
        source = self._source
        try:
            files = tuple(open_href(href, source, afresh=True) for href in item.hrefs)
            stated = Stated(self._search.key, source.gsd_m, source.scaling, source.nodata, item.calibration)
            found = _described(files, stated, source)
            footprint = None if found is None else _honest(item, found)
        except (CorruptInputError, SceneError, SettingsError) as error:  # of settings: an address that is none
            return str(error)
        if found is None:
            return None
        fingerprint = joint_fingerprint(files)
        name = scene_id(item.id, fingerprint)
        if found.mostly_hidden:
            self.hidden.add(name)
        return self._search.scene(
            scene_id=name,
            datetime=item.datetime,
            footprint=footprint,
            cloud_share=item.cloud_share,
            hrefs=item.hrefs,
            access={"item": item.id},
            fingerprint=fingerprint,
            licence=item.licence or source.licence,
            **found.columns,
        )


def _described(files: Sequence[ImageFile], stated: Stated, source: StacSource) -> Description | None:
    """The facts of an image; the headers alone, and one overview, are fetched."""
    with ExitStack() as stack:
        datasets = tuple(stack.enter_context(file.open()) for file in files)
        image = OpenImage(files[0].name, datasets, source.band_numbers, source.alpha == "ignore")
        grids = {(dataset.crs, dataset.transform, dataset.width, dataset.height) for dataset in datasets}
        if len(grids) > 1:
            raise SceneError(
                f"{image.name} and the other assets {', '.join(source.assets)} differ in CRS, pixels or size: name "
                "three assets of one resolution"
            )
        return describe(image, stated, lambda: _preview(files, image, nodata_of(image, stated)))


def _preview(files: Sequence[ImageFile], image: OpenImage, nodata: float | None) -> Preview:
    """The smallest overview that is large enough, or a small image as it is; None where that would be much to fetch."""
    dataset = image.datasets[0]
    factors = dataset.overviews(image.bands[0])
    longer = max(dataset.width, dataset.height)
    large = [number for number, factor in enumerate(factors) if longer / factor >= PREVIEW_PX]
    number = max(large, default=0) if factors else None
    factor = 1 if number is None else factors[number]
    if dataset.width * dataset.height / factor**2 > MAX_PREVIEW_PIXELS:
        return None
    whole = Window(0, 0, dataset.width, dataset.height)
    with ExitStack() as stack:
        opened = tuple(stack.enter_context(file.open([whole], number)) for file in files)
        return read_raw(replace(image, datasets=opened), nodata)


def _honest(item: Item, found: Description) -> shapely.Geometry:
    """The ground that both the item and its image have; SceneError where it claims ground that the image has not."""
    claimed = item.claimed
    west, _, east, _ = found.outline.bounds
    if claimed is None or (west == -180 and east == 180):
        # Catalogs write footprints across the antimeridian in many ways; the image's own is right.
        return found.footprint
    share = claimed.intersection(found.outline).area / claimed.area
    if share < LEAST_HONEST_SHARE:
        raise SceneError(
            f"its image has {share:.0%} of the footprint that the catalog claims: the item is wrong, or belongs to "
            "another image"
        )
    footprint = shapely.normalize(claimed.intersection(found.footprint))
    if footprint.is_empty:
        raise SceneError("its image has no data inside the footprint that the catalog claims")
    return footprint


def _is_twin(item: Item, other: Item) -> bool:
    """Whether two items are one acquisition listed twice (Element84/earth-search#25): of one minute and one ground.

    Parts of one pass, and tiles of one flight, have grounds of their own.
    """
    if abs((item.datetime - other.datetime).total_seconds()) > TWIN_S or item.claimed is None or other.claimed is None:
        return False
    common = item.claimed.intersection(other.claimed).area
    return bool(common >= TWIN_SHARE * max(item.claimed.area, other.claimed.area))


def _places(ground: shapely.Geometry, side: int) -> NDArray[np.float64]:
    """Points (n, 2) that stand for an area: a point inside, and those of a grid of `side` x `side` that lie in it."""
    west, south, east, north = ground.bounds
    steps = (np.arange(side) + 0.5) / side
    grid = np.array(list(itertools.product(west + steps * (east - west), south + steps * (north - south))))
    inside = grid[shapely.contains_xy(ground, grid)]
    point = ground.representative_point()
    return np.vstack([inside, [[point.x, point.y]]])


KIND = SourceKind(
    settings=StacSource,
    version="2",
    reads=lambda source, shared: {"files": [file_stamp(shared.resolve(source.catalog))] if source.is_local else []},
    index=index_stac,
    open_scene=lambda scene, source, _cache: RemoteReader(scene, source),
    requirements=lambda source, _: [INTERNET, *of_variable(source.token.env if source.token else None, "a token")],
    # To open a file takes two requests: for its header, and for the places of its blocks.
    reading=lambda _source: Reading(block_requests=1, file_requests=2),
    check=check_items,
    sample=lambda source: source.model_copy(update={"depth": 1, "limit": 1}),
)
