"""How well shifts between OSM and imagery are found, and how often none is seen where there is none to see.

    python benchmarks/offset.py ../shared/data
    python benchmarks/offset.py ../shared/data --paintings 1 --shifts 2

The folder holds extracts in `osm/` (Monaco, Helsinki, Malta), photographs of Kampala with its buildings in
`pairs/kampala_oam/` and other photographs in `imagery/`. Scenes are painted from the extracts, then the georeference of
every scene is moved by known vectors of up to 10 m and the vectors are looked for. Prints Markdown. Road widths are
the painter's own, so that roads fit paintings better than they fit photographs; paintings show how exact the method
is, Kampala that it works on a photograph.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import shapely
from pyproj import Geod, Transformer
from scipy import fft, ndimage
from threadpoolctl import threadpool_limits

from skyscript_assets.demo.scene import paint_scene
from skyscript_assets.lib.geometry import utm_crs
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.reader import Pixels, Window
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.files.index import index_files
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import write_objects
from skyscript_assets.lib.registration import estimate as offset
from skyscript_assets.lib.registration.outlines import Frame, Outlines, read_outlines
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.settings.plant import OffsetSettings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.settings.sources import FilesSource, SyntheticSource

PROFILE = load_settings(PACKAGED_PROFILES / "demo")
SETTINGS = OffsetSettings()
GSDS_M = (0.3, 0.5, 1.0)
GROUND = {
    "monaco": [(7.415, 43.730, 7.425, 43.737), (7.424, 43.737, 7.433, 43.744)],
    "helsinki": [(24.935, 60.165, 24.947, 60.171), (24.947, 60.171, 24.959, 60.177)],
    "malta": [(14.500, 35.893, 14.510, 35.901), (14.420, 35.905, 14.430, 35.913)],
}
SUN = [(152.0, 48.0), (205.0, 35.0), (110.0, 60.0)]
"""Azimuth and elevation of the sun in the first, second, third painting of a ground."""

KAMPALA = {19: 0.3, 20: 0.15, 21: 0.075}
KAMPALA_BOX = (32.590, 0.348, 32.596, 0.352)
MAX_SHIFT_M = 10.0
RIGHT_M = 1.5
"""Under degraded conditions a shift counts as right within this, or one pixel where that is more."""

BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.01)


@dataclass(frozen=True)
class Case:
    """A scene with the outlines that belong to it, and its group in the tables."""

    group: str
    scene: Scene
    outlines: Outlines


@dataclass(frozen=True)
class Run:
    """One estimation: what was found, the true shift, the time taken."""

    case: Case
    found: offset.SceneOffset
    truth: np.ndarray
    seconds: float

    @property
    def error_m(self) -> float:
        """Distance of the best shift, believed or not, from the true one; infinite where there is none."""
        return float(np.hypot(*(np.array(self.found.best) - self.truth))) if self.found.best else float("inf")

    @property
    def estimated(self) -> bool:
        """Whether the shift is believed."""
        return self.found.status == "estimated"


class DegradedReader(RasterReader):
    """A reader that blurs what it reads and adds noise, the same at every run."""

    def __init__(self, scene: Scene, noise: float, blur_px: float) -> None:
        super().__init__(scene)
        self._noise, self._blur_px = noise, blur_px

    def read_inside(self, window: Window) -> Pixels:
        """Pixels as stored, blurred, with noise."""
        read = super().read_inside(window)
        noise = np.random.default_rng(window[:2]).normal(0, 1, read.rgb.shape) * self._noise
        levels = ndimage.gaussian_filter(read.rgb.astype(np.float32), (self._blur_px, self._blur_px, 0)) + noise
        return Pixels(np.clip(levels, 0, 255).astype(np.uint8) * read.valid[..., None], read.mask)


def main() -> None:
    """Paint, shift, estimate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with osm/, pairs/kampala_oam/ and imagery/")
    parser.add_argument("--paintings", type=int, default=2, choices=(1, 2, 3), help="paintings of a place and GSD")
    parser.add_argument("--shifts", type=int, default=4, help="known shifts of every scene")
    parser.add_argument("--work", type=Path, help="folder that keeps extracts and paintings for the next run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, threadpool_limits(1):
        cases = prepare(options.data, options.work or Path(temporary), options.paintings)
        rng = np.random.default_rng(0)
        unmoved = [run(case, np.zeros(2)) for case in cases]
        print(f"Load average at the start {os.getloadavg()[0]:.1f}.\n")
        print_recovery(unmoved, [(one, vector) for one in unmoved for vector in vectors(rng, options.shifts)])
        print_kampala([one for one in unmoved if one.case.group.startswith("Kampala")])
        print_calibration(cases, rng)
        print_false_positives(options.data, cases)


# -------------------------------------------------------------------------------------------------------------- scenes


def prepare(data: Path, work: Path, paintings: int) -> list[Case]:
    """Kampala's photographs, and paintings of three places at three GSDs."""
    cases = []
    buildings = objects_of(data / "pairs" / "kampala_oam" / "kampala_buildings_derived.osm.pbf", KAMPALA_BOX, work)
    for level, gsd_m in KAMPALA.items():
        scene = photograph(data / "pairs" / "kampala_oam" / f"oam_kampala_z{level}.tif", gsd_m, KAMPALA_BOX, work)
        cases.append(Case(f"Kampala, photograph, {gsd_m * 100:g} cm", scene, read_outlines(buildings)))
    for place, grounds in GROUND.items():
        for number in range(paintings):
            ground = grounds[number % len(grounds)]
            objects = objects_of(data / "osm" / f"{place}.osm.pbf", ground, work / f"{number}")
            for gsd_m in GSDS_M:
                scene = painting(place, number, gsd_m, ground, objects, work)
                cases.append(Case(f"painted, {gsd_m:g} m", scene, read_outlines(objects)))
    return cases


def objects_of(extract: Path, ground: tuple[float, ...], work: Path) -> Path:
    """`objects.parquet` of an extract."""
    folder = work / extract.name.split(".")[0]
    if not (folder / "objects.parquet").exists():
        folder.mkdir(parents=True)
        box = BBox(**dict(zip(("west", "south", "east", "north"), ground, strict=True)))
        stage_extract("here", Region(title="here", path=str(extract.resolve()), bbox=box), PROFILE, folder)
        write_objects(folder, folder)
    return folder / "objects.parquet"


def painting(place: str, number: int, gsd_m: float, ground: tuple[float, ...], objects: Path, work: Path) -> Scene:
    """A painted scene."""
    folder = work / f"painting-{place}-{number}-{gsd_m}"
    if not (folder / "scenes.parquet").exists():
        folder.mkdir(parents=True)
        azimuth, elevation = SUN[number]
        source = SyntheticSource(
            title="painted",
            gsd_m=gsd_m,
            licence="ODbL-1.0",
            attribution="OpenStreetMap contributors",
            datetime=dt.date(2019, 7, 2),
            seed=100 * number + round(gsd_m * 10),
            sun_azimuth_deg=azimuth,
            sun_elevation_deg=elevation,
        )
        paint_scene(place, f"P{number}", source, ground, objects, folder)
    (scene,) = read_scenes(folder)
    return scene


def photograph(path: Path, gsd_m: float, box: tuple[float, ...], work: Path) -> Scene:
    """A georeferenced photograph as a scene."""
    folder = work / path.stem
    if not (folder / "scenes.parquet").exists():
        folder.mkdir(parents=True)
        source = FilesSource(
            title="photograph",
            gsd_m=gsd_m,
            licence="see its publisher",
            attribution="its publisher",
            paths=(str(path.resolve()),),
            datetime=dt.date(2022, 1, 1),
        )
        index_files("here", "FILES", source, PROFILE, box, folder)
    (scene,) = read_scenes(folder)
    return scene


def moved(scene: Scene, vector: np.ndarray) -> Scene:
    """A scene whose georeference is moved by metres east and north, along the geodesic."""
    x, y = scene.footprint.centroid.coords[0]
    azimuth, distance = np.degrees(np.arctan2(*vector)), np.hypot(*vector)
    lon, lat, _ = Geod(ellps="WGS84").fwd(x, y, azimuth, distance)
    to_crs = Transformer.from_crs(4326, scene.crs, always_xy=True)
    (x0, x1), (y0, y1) = to_crs.transform([x, lon], [y, lat])
    a, b, c, d, e, f = scene.transform
    footprint = shapely.transform(scene.footprint, lambda p: p + np.array([lon - x, lat - y]))
    return dataclasses.replace(scene, transform=(a, b, c + x1 - x0, d, e, f + y1 - y0), footprint=footprint)


def relocated(scene: Scene, lon: float, lat: float) -> Scene:
    """A scene said to lie about another place."""
    crs = utm_crs(lon, lat)
    to_crs = Transformer.from_crs(4326, crs, always_xy=True)
    x, y = to_crs.transform(lon, lat)
    half = np.array([scene.width, scene.height]) * scene.gsd_m / 2
    west, south = to_crs.transform(x - half[0], y - half[1], direction="INVERSE")
    east, north = to_crs.transform(x + half[0], y + half[1], direction="INVERSE")
    transform = (scene.gsd_m, 0.0, x - half[0], 0.0, -scene.gsd_m, y + half[1])
    footprint = shapely.box(west, south, east, north)
    return dataclasses.replace(scene, crs=f"EPSG:{crs.to_epsg()}", transform=transform, footprint=footprint)


def jittered(outlines: Outlines, sigma_m: float, lost: float, rng: np.random.Generator) -> Outlines:
    """Outlines each moved at random by itself, a share of them far away."""
    geometry = []
    for shape in outlines.geometry:
        step = rng.normal(0, sigma_m, 2) + (rng.uniform(-60, 60, 2) if rng.random() < lost else 0.0)
        lat = shapely.bounds(shape)[1]
        degrees = step / (111_320 * np.cos(np.radians(lat)), 111_132)
        geometry.append(shapely.transform(shape, lambda p, d=degrees: p + d))
    return Outlines.of(geometry, outlines.width_m)


def vectors(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Random shifts of up to `MAX_SHIFT_M`, uniform over the disc."""
    angle, length = rng.uniform(0, 2 * np.pi, count), MAX_SHIFT_M * np.sqrt(rng.uniform(0, 1, count))
    return [np.round(length[i] * np.array([np.cos(angle[i]), np.sin(angle[i])]), 3) for i in range(count)]


def run(case: Case, vector: np.ndarray, reader: Callable[[Scene], RasterReader] = RasterReader) -> Run:
    """Move a scene and estimate its offset."""
    scene = moved(case.scene, vector)
    start = time.perf_counter()
    found = offset.estimate_scene(reader(scene), case.outlines, SETTINGS)
    return Run(case, found, vector, time.perf_counter() - start)


def baseline(case: Case, vector: np.ndarray, reader: Callable[[Scene], RasterReader] = RasterReader) -> float:
    """Error of the usual way: phase correlation of gradient magnitude and outlines, median over the same windows."""
    scene = moved(case.scene, vector)
    resolution = offset.resolution_of(scene, SETTINGS)
    side_m = resolution.window_px * resolution.pixel_m
    places = offset.choose_windows(scene, case.outlines.lengths, side_m, SETTINGS.windows)
    frames = [Frame.at(lon, lat) for lon, lat in places]
    peaks = []
    with reader(scene) as opened:
        for index, pixels in opened.read_many([offset.window_of(frame, resolution) for frame in frames]):
            levels, _ = offset.average(pixels, resolution.factor)
            grey = levels.mean(axis=2)
            magnitude = ndimage.gaussian_gradient_magnitude(grey, 1.0)
            drawn = np.abs(offset.outline_of(case.outlines, frames[index], resolution))
            drawn = ndimage.gaussian_filter(np.pad(drawn, resolution.radius_px), 1.0)
            cross = fft.fft2(magnitude) * np.conj(fft.fft2(drawn))
            surface = fft.fftshift(fft.ifft2(cross / np.maximum(np.abs(cross), 1e-9)).real)
            middle, radius = len(surface) // 2, resolution.radius_px
            surface = surface[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1]
            peaks.append(np.array(np.unravel_index(np.argmax(surface), surface.shape)) - radius)
    dy, dx = np.median(peaks, axis=0) * resolution.pixel_m
    return float(np.hypot(dx - vector[0], -dy - vector[1]))


# -------------------------------------------------------------------------------------------------------------- tables


def print_recovery(unmoved: Sequence[Run], wanted: Sequence[tuple[Run, np.ndarray]]) -> None:
    """Known shifts: how many are recovered, how exactly, in what time."""
    runs: dict[str, list[tuple[Run, float]]] = {}
    for still, vector in wanted:
        one = run(still.case, vector)
        # A photograph has an offset of its own, which nobody knows: the change of the estimate is judged.
        own = np.array(still.found.best) if still.case.group.startswith("Kampala") else np.zeros(2)
        judged = dataclasses.replace(one, truth=own + vector)
        runs.setdefault(one.case.group, []).append((judged, baseline(still.case, vector)))
    columns = ["scenes", "moved", "estimated", "within 1 px of the scene", "within 0.3 m"]
    columns += ["error, median (90 %, greatest), m", "within 1 px, plain phase correlation", "seconds a scene"]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    everything = [pair for pairs in runs.values() for pair in pairs]
    for group, pairs in [*runs.items(), ("all", everything)]:
        good = [one for one, _ in pairs if one.estimated]
        errors = np.array([one.error_m for one in good])
        pixel = np.array([one.case.scene.gsd_m for one in good])
        plain = np.mean([error <= one.case.scene.gsd_m for one, error in pairs])
        print(
            f"| {group} | {len(pairs)} | {len(good)} | {100 * (errors <= pixel).sum() / len(pairs):.0f} % | "
            f"{100 * (errors <= 0.3).sum() / len(pairs):.0f} % | {np.median(errors):.2f} "
            f"({np.quantile(errors, 0.9):.2f}, {errors.max():.2f}) | {100 * plain:.0f} % | "
            f"{np.median([one.seconds for one, _ in pairs]):.2f} |"
        )
    still = np.array([one.error_m for one in unmoved if not one.case.group.startswith("Kampala")])
    print(f"\nPaintings not moved, estimate from zero: median {np.median(still):.2f} m, greatest {still.max():.2f} m.")


def print_kampala(runs: Sequence[Run]) -> None:
    """The three photographs of one place."""
    print(
        "\n| photograph | dx, m east | dy, m north | confidence | windows used | spread, m |\n|---|---|---|---|---|---|"
    )
    for one in runs:
        found, name = one.found, one.case.group.split(", ")[-1]
        print(
            f"| {name} | {found.best[0]:+.3f} | {found.best[1]:+.3f} | {found.confidence:.2f} | "
            f"{found.windows_used} of {found.windows_tried} | {found.spread_m:.2f} |"
        )


def print_calibration(cases: Sequence[Case], rng: np.random.Generator) -> None:
    """Worse and worse images and maps: does low confidence mean wrong?"""
    runs: list[Run] = []
    plain: list[float] = []
    for number, case in enumerate(cases):
        for noise, blur_px, jitter_m, lost in (
            (20, 1, 0, 0),
            (40, 2, 1, 0.2),
            (30, 1, 2, 0.4),
            (40, 2, 1.5, 0.5),
            (0, 0, 3, 0.5),
            (0, 0, 2, 0.7),
            (0, 0, 8, 0.9),
        ):
            worse = jittered(case.outlines, jitter_m, lost, np.random.default_rng(number))
            (vector,) = vectors(rng, 1)
            reader = lambda scene, n=noise, b=blur_px: DegradedReader(scene, n, b)  # noqa: E731
            degraded = dataclasses.replace(case, outlines=worse)
            runs.append(run(degraded, vector, reader))
            plain.append(baseline(degraded, vector, reader))
    print("\n| confidence | degraded scenes | right | median error, m | status |\n|---|---|---|---|---|")
    for low, high in itertools.pairwise(BINS):
        inside = [one for one in runs if one.found.best and low <= one.found.confidence < high]
        if inside:
            right = np.mean([one.error_m <= limit(one) for one in inside])
            statuses = sorted({one.found.status for one in inside})
            print(
                f"| {low:g} to {min(high, 1):g} | {len(inside)} | {100 * right:.0f} % | "
                f"{np.median([one.error_m for one in inside]):.2f} | {', '.join(statuses)} |"
            )
    believed = [one for one in runs if one.estimated]
    wrong = sum(one.error_m > limit(one) for one in believed)
    right = sum(one.error_m <= limit(one) for one in runs)
    plainly = sum(error <= limit(one) for one, error in zip(runs, plain, strict=True))
    print(
        f"\nOf {len(runs)} degraded scenes {len(believed)} are estimated, {wrong} of them wrongly. The best shift, "
        f"believed or not, is right in {right}; that of plain phase correlation in {plainly}."
    )


def limit(one: Run) -> float:
    """The error up to which the shift of a degraded scene counts as right, metres."""
    return max(RIGHT_M, one.case.scene.gsd_m)


def print_false_positives(data: Path, cases: Sequence[Case]) -> None:
    """Scenes that do not show what OSM has: every shift that is believed is a mistake."""
    painted = [case for case in cases if case.group.startswith("painted")]
    kinds: dict[str, list[tuple[Case, Callable[[Scene], RasterReader]]]] = {"noise": [], "water": []}
    for case in painted:
        kinds["noise"].append((case, BlindReader))
        kinds["water"].append((case, WaterReader))
    kinds["painting of another place"] = [
        (Case(one.group, relocated(other.scene, *one.scene.footprint.centroid.coords[0]), one.outlines), RasterReader)
        for one in painted
        for other in painted
        if one.scene.region != other.scene.region and one.scene.gsd_m == other.scene.gsd_m
    ]
    kinds["photograph of another place"] = [
        (Case("photograph", relocated(other, *one.scene.footprint.centroid.coords[0]), one.outlines), RasterReader)
        for one in painted
        if one.scene.gsd_m == GSDS_M[0]
        for other in other_photographs(data, cases)
    ]
    print("\n| scenes | number | estimated | highest confidence | status |\n|---|---|---|---|---|")
    for kind, members in kinds.items():
        found = [offset.estimate_scene(reader(case.scene), case.outlines, SETTINGS) for case, reader in members]
        statuses = sorted({one.status for one in found})
        print(
            f"| {kind} | {len(found)} | {sum(one.status == 'estimated' for one in found)} | "
            f"{max(one.confidence for one in found):.2f} | {', '.join(statuses)} |"
        )


class BlindReader(RasterReader):
    """A reader that sees noise."""

    def read_inside(self, window: Window) -> Pixels:
        """Noise."""
        column, row, width, height = window
        levels = np.random.default_rng((column, row)).normal(120, 30, (height, width, 3))
        return Pixels(np.clip(levels, 0, 255).astype(np.uint8), np.ones((height, width), dtype=bool))


class WaterReader(RasterReader):
    """A reader that sees waves."""

    def read_inside(self, window: Window) -> Pixels:
        """Waves of two lengths, with noise."""
        column, row, width, height = window
        y, x = np.mgrid[row : row + height, column : column + width].astype(np.float64)
        waves = 40 + 4 * np.sin((x + 0.6 * y) / 7) + 3 * np.sin((0.9 * y - 0.3 * x) / 3)
        levels = waves[..., None] + np.random.default_rng((column, row)).normal(0, 2, (height, width, 3))
        return Pixels(np.clip(levels, 0, 255).astype(np.uint8), np.ones((height, width), dtype=bool))


def other_photographs(data: Path, cases: Sequence[Case]) -> list[Scene]:
    """Photographs of places without outlines here."""
    scenes = [case.scene for case in cases if case.group == "Kampala, photograph, 30 cm"]
    with tempfile.TemporaryDirectory() as work:
        for name in ("swissortho_zurich_1091-322.tif", "neon_sjer_2018.tif"):
            path = data / "imagery" / name
            with rasterio.open(path) as dataset:
                gsd_m = abs(dataset.transform.a)
            scenes.append(photograph(path, gsd_m, (-180, -90, 180, 90), Path(work)))
    return scenes


if __name__ == "__main__":
    main()
