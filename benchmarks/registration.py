"""How well shifts between OSM and imagery are found, and how often none is seen where there is none to see.

    python benchmarks/registration.py ../shared/data
    python benchmarks/registration.py ../shared/data --paintings 1 --shifts 2

The folder holds extracts in `osm/` (Monaco, Helsinki, Malta), photographs of Kampala with its buildings in
`pairs/kampala_oam/` and other photographs in `imagery/`. Scenes are painted from the extracts, then the georeference of
every scene is moved by known vectors of up to 10 m and the vectors are looked for. Prints Markdown. Road widths are
the painter's own, so that roads fit paintings better than they fit photographs; paintings show how exact the method
is, Kampala that it works on a photograph.
"""

import argparse
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import shapely
from measuring import PROFILE, objects_of, options_of, parser_of, photograph, print_head, print_row, scene_of
from pyproj import Geod, Transformer
from scipy import fft, ndimage
from threadpoolctl import threadpool_limits

from skyscript_assets.lib.geometry import Bounds, utm_crs
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.reader import Pixels, Window
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.registration import estimate
from skyscript_assets.lib.registration.outlines import Frame, Outlines, read_outlines
from skyscript_assets.lib.settings.plant import OffsetSettings

SETTINGS = OffsetSettings()
GROUND = {
    "monaco": [(7.415, 43.730, 7.425, 43.737), (7.424, 43.737, 7.433, 43.744)],
    "helsinki": [(24.935, 60.165, 24.947, 60.171), (24.947, 60.171, 24.959, 60.177)],
    "malta": [(14.500, 35.893, 14.510, 35.901), (14.420, 35.905, 14.430, 35.913)],
}
SUN = [(152.0, 48.0), (205.0, 35.0), (110.0, 60.0)]
"""Azimuth and elevation of the sun in the first, second, third painting of a ground."""

KAMPALA = {19: 0.3, 20: 0.15, 21: 0.075}
OTHERS = {"swissortho_zurich_1091-322.tif": 0.5, "neon_sjer_2018.tif": 0.1}
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
    found: estimate.SceneOffset
    truth: np.ndarray
    seconds: float

    @property
    def error_m(self) -> float:
        """Distance of the best shift, believed or not, from the true one; infinite where there is none."""
        return float(np.hypot(*(np.array(self.found.best) - self.truth))) if self.found.best else float("inf")


class AlteredReader(RasterReader):
    """A reader that gives other pixels than it reads; `alter` is told their column and row."""

    def __init__(self, scene: Scene, alter: Callable[[Pixels, int, int], Pixels]) -> None:
        super().__init__(scene)
        self._alter = alter

    def read_inside(self, window: Window) -> Pixels:
        """Pixels as stored, altered."""
        return self._alter(super().read_inside(window), *window[:2])


def degraded(read: Pixels, column: int, row: int, noise: float, blur_px: float) -> Pixels:
    """Pixels blurred, with noise that is the same at every run."""
    added = np.random.default_rng((column, row)).normal(0, 1, read.rgb.shape) * noise
    levels = ndimage.gaussian_filter(read.rgb.astype(np.float32), (blur_px, blur_px, 0)) + added
    return Pixels(np.clip(levels, 0, 255).astype(np.uint8) * read.valid[..., None], read.mask)


def blind(read: Pixels, column: int, row: int) -> Pixels:
    """Noise."""
    levels = np.random.default_rng((column, row)).normal(120, 30, read.rgb.shape)
    return Pixels(np.clip(levels, 0, 255).astype(np.uint8), None)


def water(read: Pixels, column: int, row: int) -> Pixels:
    """Waves of two lengths, with noise."""
    height, width, _ = read.rgb.shape
    y, x = np.mgrid[row : row + height, column : column + width].astype(np.float64)
    waves = 40 + 4 * np.sin((x + 0.6 * y) / 7) + 3 * np.sin((0.9 * y - 0.3 * x) / 3)
    levels = waves[..., None] + np.random.default_rng((column, row)).normal(0, 2, read.rgb.shape)
    return Pixels(np.clip(levels, 0, 255).astype(np.uint8), None)


def main() -> None:
    """Paint, shift, estimate and print."""
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="folder with osm/, pairs/kampala_oam/ and imagery/")
    parser.add_argument("--paintings", type=int, default=2, choices=(1, 2, 3), help="paintings of a place and GSD")
    parser.add_argument("--places", nargs="+", default=list(GROUND), choices=GROUND, help="places that are painted")
    parser.add_argument("--gsds-m", nargs="+", type=float, default=[0.3, 0.5, 1.0], help="metres a pixel of paintings")
    parser.add_argument("--levels", nargs="+", type=int, default=list(KAMPALA), help="photographs, by level of zoom")
    parser.add_argument("--shifts", type=int, default=4, help="known shifts of every scene")
    options = options_of(parser)
    with tempfile.TemporaryDirectory() as temporary, threadpool_limits(1):
        folder = Path(temporary)
        cases = prepare(options.data, folder, options)
        rng = np.random.default_rng(0)
        unmoved = [run(case, np.zeros(2)) for case in cases]
        print_recovery(unmoved, [(one, vector) for one in unmoved for vector in vectors(rng, options.shifts)])
        print_photographs(one for one in unmoved if not one.case.scene.synthetic)
        print_calibration(cases, rng)
        others = [photograph(options.data / "imagery" / name, gsd, folder / name) for name, gsd in OTHERS.items()]
        print_false_positives(cases, [cases[0].scene, *others])


def prepare(data: Path, work: Path, given: argparse.Namespace) -> list[Case]:
    """Kampala's photographs, and paintings of some places at some GSDs."""
    cases = []
    folder = data / "pairs" / "kampala_oam"
    objects = objects_of(folder / "kampala_buildings_derived.osm.pbf", work / "kampala", KAMPALA_BOX)
    for level in given.levels:
        gsd_m = KAMPALA[level]
        scene = photograph(folder / f"oam_kampala_z{level}.tif", gsd_m, work / f"kampala-{level}", KAMPALA_BOX)
        cases.append(Case(f"Kampala, photograph, {gsd_m * 100:g} cm", scene, read_outlines(objects)))
    for place in given.places:
        for number in range(given.paintings):
            ground = GROUND[place][number % len(GROUND[place])]
            objects = objects_of(data / "osm" / f"{place}.osm.pbf", work / f"{number}" / place, ground)
            for gsd_m in given.gsds_m:
                scene = painting(place, number, gsd_m, ground, objects, work)
                cases.append(Case(f"painted, {gsd_m:g} m", scene, read_outlines(objects)))
    return cases


def painting(place: str, number: int, gsd_m: float, ground: Bounds, objects: Path, work: Path) -> Scene:
    """A painted scene."""
    azimuth, elevation = SUN[number]
    changes = {"gsd_m": gsd_m, "seed": 100 * number + round(gsd_m * 10)}
    changes |= {"sun_azimuth_deg": azimuth, "sun_elevation_deg": elevation}
    source = PROFILE.sources["SYN03"].model_copy(update=changes)
    return scene_of(source, work / f"painting-{place}-{number}-{gsd_m}", ground, place, objects=objects)


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


def relocated(scene: Scene, other: Scene) -> Scene:
    """A scene said to lie where another does."""
    lon, lat = other.footprint.centroid.coords[0]
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
    """Move a scene and estimate its shift."""
    scene = moved(case.scene, vector)
    start = time.perf_counter()
    found = estimate.estimate_scene(reader(scene), case.outlines, SETTINGS)
    return Run(case, found, vector, time.perf_counter() - start)


def baseline(case: Case, vector: np.ndarray, reader: Callable[[Scene], RasterReader] = RasterReader) -> float:
    """Error of the usual way: phase correlation of gradient magnitude and outlines, median over the same windows."""
    scene = moved(case.scene, vector)
    resolution = estimate.resolution_of(scene, SETTINGS)
    side_m = resolution.window_px * resolution.pixel_m
    places = estimate.choose_windows(scene, case.outlines.lengths, side_m, SETTINGS.windows)
    frames = [Frame.at(lon, lat) for lon, lat in places]
    peaks = []
    with reader(scene) as opened:
        for index, pixels in opened.read_many([estimate.window_of(frame, resolution) for frame in frames]):
            levels, _ = estimate.average(pixels, resolution.factor)
            grey = levels.mean(axis=2)
            magnitude = ndimage.gaussian_gradient_magnitude(grey, 1.0)
            drawn = np.abs(estimate.outline_of(case.outlines, frames[index], resolution))
            drawn = ndimage.gaussian_filter(np.pad(drawn, resolution.radius_px), 1.0)
            cross = fft.fft2(magnitude) * np.conj(fft.fft2(drawn))
            surface = fft.fftshift(fft.ifft2(cross / np.maximum(np.abs(cross), 1e-9)).real)
            middle, radius = len(surface) // 2, resolution.radius_px
            surface = surface[middle - radius : middle + radius + 1, middle - radius : middle + radius + 1]
            peaks.append(np.array(np.unravel_index(np.argmax(surface), surface.shape)) - radius)
    dy, dx = np.median(peaks, axis=0) * resolution.pixel_m
    return float(np.hypot(dx - vector[0], -dy - vector[1]))


def print_recovery(unmoved: Sequence[Run], wanted: Iterable[tuple[Run, np.ndarray]]) -> None:
    """Known shifts: how many are recovered, how exactly, in what time."""
    runs: dict[str, list[tuple[Run, float]]] = {}
    for still, vector in wanted:
        one = run(still.case, vector)
        # A photograph has an offset of its own, which nobody knows: the change of the estimate is judged.
        own = np.zeros(2) if still.case.scene.synthetic else np.array(still.found.best)
        judged = dataclasses.replace(one, truth=own + vector)
        runs.setdefault(one.case.group, []).append((judged, baseline(still.case, vector)))
    columns = ["scenes", "moved", "estimated", "within 1 px of the scene", "within 0.3 m"]
    columns += ["error, median (90 %, greatest), m", "within 1 px, plain phase correlation", "seconds a scene"]
    print_head(*columns)
    everything = [pair for pairs in runs.values() for pair in pairs]
    for group, pairs in [*runs.items(), ("all", everything)]:
        good = [one for one, _ in pairs if one.found.status == "estimated"]
        errors = np.array([one.error_m for one in good])
        pixel = np.array([one.case.scene.gsd_m for one in good])
        plain = np.mean([error <= one.case.scene.gsd_m for one, error in pairs])
        shares = [(errors <= limit).sum() / len(pairs) for limit in (pixel, 0.3)]
        spread = f"{np.median(errors):.2f} ({np.quantile(errors, 0.9):.2f}, {errors.max():.2f})" if good else "-"
        seconds = np.median([one.seconds for one, _ in pairs])
        cells = [*(f"{100 * share:.0f} %" for share in shares), spread, f"{100 * plain:.0f} %", f"{seconds:.2f}"]
        print_row(group, len(pairs), len(good), *cells)
    still = np.array([one.error_m for one in unmoved if one.case.scene.synthetic])
    print(
        f"\nPaintings not moved, estimate from zero: median {np.median(still):.2f} m, greatest {still.max():.2f} m.\n"
    )


def print_photographs(runs: Iterable[Run]) -> None:
    """The three photographs of one place."""
    print_head("photograph", "dx, m east", "dy, m north", "confidence", "windows used", "spread, m")
    for one in runs:
        found, (east, north) = one.found, one.found.best
        used = f"{found.windows_used} of {found.windows_tried}"
        cells = [f"{east:+.3f}", f"{north:+.3f}", f"{found.confidence:.2f}", used, f"{found.spread_m:.2f}"]
        print_row(one.case.group.split(", ")[-1], *cells)


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
            reader = partial(AlteredReader, alter=partial(degraded, noise=noise, blur_px=blur_px))
            moved_case = dataclasses.replace(case, outlines=worse)
            runs.append(run(moved_case, vector, reader))
            plain.append(baseline(moved_case, vector, reader))
    print()
    print_head("confidence", "degraded scenes", "right", "median error, m", "status")
    for low, high in itertools.pairwise(BINS):
        inside = [one for one in runs if one.found.best and low <= one.found.confidence < high]
        if inside:
            right = f"{100 * np.mean([one.error_m <= limit(one) for one in inside]):.0f} %"
            error = f"{np.median([one.error_m for one in inside]):.2f}"
            print_row(f"{low:g} to {min(high, 1):g}", len(inside), right, error, statuses(one.found for one in inside))
    believed = [one for one in runs if one.found.status == "estimated"]
    wrong = sum(one.error_m > limit(one) for one in believed)
    right_in = sum(one.error_m <= limit(one) for one in runs)
    plainly = sum(error <= limit(one) for one, error in zip(runs, plain, strict=True))
    print(
        f"\nOf {len(runs)} degraded scenes {len(believed)} are estimated, {wrong} of them wrongly. The best shift, "
        f"believed or not, is right in {right_in}; that of plain phase correlation in {plainly}.\n"
    )


def limit(one: Run) -> float:
    """The error up to which the shift of a degraded scene counts as right, metres."""
    return max(RIGHT_M, one.case.scene.gsd_m)


def statuses(found: Iterable[estimate.SceneOffset]) -> str:
    """The statuses of some estimates, each once."""
    return ", ".join(sorted({one.status for one in found}))


def print_false_positives(cases: Sequence[Case], others: Sequence[Scene]) -> None:
    """Scenes that do not show what OSM has: every shift that is believed is a mistake."""
    painted = [case for case in cases if case.scene.synthetic]
    finest = min(case.scene.gsd_m for case in painted)
    elsewhere = [
        Case("", relocated(other.scene, one.scene), one.outlines)
        for one in painted
        for other in painted
        if one.scene.region != other.scene.region and one.scene.gsd_m == other.scene.gsd_m
    ]
    photographed = [
        Case("", relocated(other, one.scene), one.outlines)
        for one in painted
        if one.scene.gsd_m == finest
        for other in others
    ]
    kinds: dict[str, tuple[Callable[[Scene], RasterReader], list[Case]]] = {
        "noise": (partial(AlteredReader, alter=blind), painted),
        "water": (partial(AlteredReader, alter=water), painted),
        "painting of another place": (RasterReader, elsewhere),
        "photograph of another place": (RasterReader, photographed),
    }
    print_head("scenes", "number", "estimated", "highest confidence", "status")
    for kind, (reader, members) in kinds.items():
        found = [estimate.estimate_scene(reader(case.scene), case.outlines, SETTINGS) for case in members]
        highest = max((one.confidence for one in found), default=0.0)
        believed = sum(one.status == "estimated" for one in found)
        print_row(kind, len(found), believed, f"{highest:.2f}", statuses(found))


if __name__ == "__main__":
    main()
