"""What a kind of image source is: how its scenes are found, opened and checked, what it needs and what reading costs.

A kind is registered by the package that has it (docs/guide.md, "Your own kind of source"); to ask something of a source
is to look up its kind here.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import shapely

from skyscript_assets.lib import plugins
from skyscript_assets.lib.errors import SceneError, SettingsError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.effective import measure_scenes
from skyscript_assets.lib.imagery.footprints import wrapped
from skyscript_assets.lib.imagery.reader import SceneReader
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.settings.kinds import Kind
from skyscript_assets.lib.settings.sources import SOURCE_KINDS, SourceBase

S = TypeVar("S", bound=SourceBase)


@dataclass(frozen=True)
class Search(Generic[S]):
    """A search for the scenes of a source over a region.

    Attributes:
        key: Of the source.
        shared: What all parts of the profile share; relative paths start at its folder.
        bbox: (west, south, east, north) of the region in degrees.
        out: Existing folder to write into.
        progress: Told what was found.
        objects: `objects.parquet` of the region, where the kind `needs_objects`.
        cache: Existing local folder that readers share, and in which they may keep what they fetch.
    """

    region: str
    key: str
    source: S
    shared: Shared
    bbox: Bounds
    out: Path
    progress: Progress = silent
    objects: Path | None = None
    cache: Path | None = None

    @property
    def ground(self) -> shapely.Geometry:
        """The region's box inside the source's extent, degrees."""
        box, extent = shapely.box(*self.bbox), self.source.extent
        return box if extent is None else box.intersection(shapely.box(*extent.bounds))

    def scene(self, **facts: Any) -> Scene:
        """A scene of the source over the region: the facts of its image, and what the settings say of all of them."""
        source, when = self.source, facts["datetime"]
        stated = {"licence": source.licence, "attribution": source.attribution, "date_is": source.date_is} | facts
        for place, value in {"{year}": f"{when:%Y}", "{month}": f"{when:%m}", "{dataset}": source.title}.items():
            stated["attribution"] = stated["attribution"].replace(place, value)
        return Scene(region=self.region, source=self.key, kind=source.kind, **stated)

    def outside(self, where: str) -> dict[str, Any]:
        """Write a table without a scene, since the region lies outside something; counts that say so."""
        write_scenes(self.out, [])
        return {"scenes": 0, "why_none": f"the region lies outside {where}"}


class Requirement(NamedTuple):
    """Something that a source needs on this machine: what, whether it is there, what to do where it is not."""

    what: str
    met: bool = True
    remedy: str = ""


INTERNET = Requirement("internet")
"""Whether a service answers is found out by its scenes: nothing is asked before."""


def of_variable(variable: str | None, what: str) -> list[Requirement]:
    """An environment variable as a requirement, where the settings name one."""
    if variable is None:
        return []
    return [Requirement(f"{variable} ({what})", bool(os.environ.get(variable, "").strip()), f"{variable} is not set")]


class Reading(NamedTuple):
    """What reading costs: side of a stored or served block in pixels; requests for a chip, a block and a file.

    `requests_s` is how many are allowed in a second; None where only the server's speed limits them.
    """

    block_px: int = 512
    chip_requests: int = 0
    block_requests: int = 0
    file_requests: int = 0
    requests_s: float | None = None


def check_terms(key: str, source: SourceBase) -> None:
    """Raise SettingsError where the terms of a source have not been accepted."""
    if source.terms is not None and not source.terms.accepted:
        raise SettingsError(
            f"source {key} ({source.title}) may be fetched only by its terms: {source.terms.says} Where you keep to "
            f"them, state `accepted: true` under sources.yaml: {key}.terms"
        )


def stated_facts(_key: str, source: SourceBase, _shared: Shared) -> dict[str, Any]:
    """What a source states of its images, unchecked, as JSON values: GSD, extent, date where it has one."""
    return source.model_dump(mode="json", include={"gsd_m", "extent", "datetime"})


@dataclass(frozen=True, kw_only=True)
class SourceKind(Kind[S]):
    """A kind of image source.

    Attributes:
        index: Writes `scenes.parquet` (`lib.imagery.scenes.write_scenes`), perhaps with no row; returns counts.
        open_scene: The reader of a scene, a context manager; the folder is `Search.cache`.
        check_scene: Raises `SceneError` where the image of a scene is not the one that was indexed.
        requirements: What a source needs; no server is asked.
        reading: What reading costs: estimates count with it; what takes no request is measured unasked. Default: local
            files.
        check: Compares what a source states with its images by their headers, as far as they are on this machine;
            returns facts as JSON values, raises `SceneError` or `SettingsError`.
        needs_objects: Whether its scenes are made from OSM objects.
        across_180: Whether it finds scenes over a region that lies across 180 degrees, whose box goes on beyond them.
        sample: The source with settings by which it is asked for one scene alone.
    """

    index: Callable[[Search[S]], Mapping[str, Any]]
    open_scene: Callable[[Scene, S, Path | None], SceneReader]
    check_scene: Callable[[Scene], None] = lambda _scene: None
    requirements: Callable[[S, Shared], list[Requirement]] = lambda _source, _shared: []
    reading: Callable[[S], Reading] = lambda _source: Reading()
    check: Callable[[str, S, Shared], dict[str, Any]] = stated_facts
    needs_objects: bool = False
    across_180: bool = False
    sample: Callable[[S], S] = lambda source: source

    def check_region(self, search: Search[S]) -> None:
        """Raise SceneError where the region lies where the kind cannot follow."""
        if search.bbox[2] > 180.0 and not self.across_180:
            raise SceneError(
                f"region {search.region} lies across 180 degrees {search.bbox}, where source {search.key} cannot be "
                f"searched ({search.source.kind}): make two regions of it, one with east: 180, one with west: -180"
            )

    def find(self, search: Search[S]) -> Mapping[str, Any]:
        """Write the scenes by `index`, and what they show (`effective`) where that is cheap or asked for.

        SceneError: the region lies where the kind cannot follow.
        """
        self.check_region(search)
        counts, source = dict(self.index(search)), search.source
        if source.resolution == "effective" or not (self.needs_objects or any(self.reading(source)[1:4])):
            reader = partial(open_scene, source=source, cache=search.cache)
            counts["coarser_than_pixels"] = measure_scenes(search.out, reader, search.progress)
        return counts


def source_kind(name: str) -> SourceKind[Any]:
    """The kind that is registered under a name; `SettingsError` where none can be had."""
    kind: SourceKind[Any] = plugins.load(SOURCE_KINDS, name)
    return kind


def open_scene(scene: Scene, source: SourceBase, cache: Path | None = None) -> SceneReader:
    """The reader of a scene of a source, a context manager; `cache` is the folder that readers share."""
    return source_kind(source.kind).open_scene(scene, source, cache)


def check_source(key: str, source: SourceBase, shared: Shared) -> dict[str, Any]:
    """Compare what a source states with its images before anything is made, as `SourceKind.check` has it."""
    return source_kind(source.kind).check(key, source, shared)


def check_ground(key: str, source: SourceBase, shared: Shared, outlines: Sequence[shapely.Geometry]) -> None:
    """Check that an image lies where the source's extent is and, where every region states a box, inside one of these.

    Raises:
        SceneError: none does.
    """
    if source.extent is None or not outlines:
        return
    ground, where = wrapped(shapely.box(*source.extent.bounds)), f"sources.yaml: {key}.extent"
    boxes = shared.boxes
    regions = [wrapped(shapely.box(*box.bounds)) for box in boxes if box is not None]
    stated = shapely.union_all(regions).intersection(ground)
    if None not in boxes and stated.area > 0:
        ground, where = stated, f"{where} and the bbox of a region in regions.yaml"
    if not shapely.intersects(ground, outlines).any():
        found = shapely.total_bounds(outlines).round(4).tolist()
        raise SceneError(
            f"no image of source {key} (they lie in {found}) lies in {where}: correct the one or the other"
        )
