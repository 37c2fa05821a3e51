"""Packaged profiles as they are, but for addresses: Monaco, noise and tiny models stand for what is fetched."""

import datetime as dt
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
import yaml
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from tests.earth_engine_server import StoredImage, earth_engine_server, write_key_file
from tests.tile_server import TileServer, tile_server, wcs_document, wms_document
from tests.web import Asked, FileServer, Reply, StacApi, by_range, feature, running
from tests.workshop import write_profile

BBOX = {"west": 7.413, "south": 43.729, "east": 7.429, "north": 43.741}
PART = {"west": 7.418, "south": 43.732, "east": 7.423, "north": 43.736}
"""Enough of it where pixels are small."""

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}


class Counting(FileServer):
    """Counts the bytes of what it answers."""

    sent = 0

    def answer(self, asked: Asked) -> Reply:
        reply = super().answer(asked)
        self.sent += len(reply.body)
        return reply


def _corner(crs: str) -> tuple[float, float]:
    """Some metres outside the region's north-western corner."""
    x, y = rasterio.warp.transform("EPSG:4326", crs, [BBOX["west"]], [BBOX["north"]])
    return round(x[0]) - 300.0, round(y[0]) + 300.0


def _picture(bands: int, side: int, seed: int) -> NDArray[np.uint8]:
    """Squares of eight pixels at random, (bands, side, side)."""
    coarse = np.random.default_rng(seed).integers(20, 230, (bands, side // 8, side // 8), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2)


def _noise(
    path: Path,
    bands: int,
    pixel_m: float,
    side: int,
    seed: int,
    crs: str = "EPSG:32632",
    show: Callable[[NDArray[np.uint8]], NDArray[Any]] = lambda picture: picture,
    inward_m: float = 0.0,
) -> tuple[float, float, float, float]:
    """Write a tiled GeoTIFF over the region, or a part further inward; returns its box in degrees."""
    x, y = _corner(crs)
    transform = Affine(pixel_m, 0, x + inward_m, 0, -pixel_m, y - inward_m)
    values = show(_picture(bands, side, seed))
    kind: dict[str, Any] = {"driver": "GTiff", "width": side, "height": side, "count": bands, "dtype": values.dtype}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    with rasterio.open(path, "w", crs=crs, transform=transform, **kind, **layout) as dataset:
        dataset.write(values)
        dataset.build_overviews([2, 4], rasterio.enums.Resampling.average)
        return rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)


def _eurosat() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        rows = ["filepath,label"]
        for number in range(12):
            picture = io.BytesIO()
            Image.new("RGB", (64, 64), (20 * number, 255 - 20 * number, 90)).save(picture, "JPEG")
            name = f"eurosat/images/{number}.jpg"
            archive.writestr(name, picture.getvalue())
            rows.append(f"{name},{('forest', 'river')[number % 2]}")
        archive.writestr("eurosat/eurosat_img_txt_pairs_test.csv", "\n".join(rows))
        archive.writestr("eurosat/classnames.txt", "forest\nriver\n")
    return content.getvalue()


def _whole(folder: Path, state: dict[str, Any], quick_gelu: bool = False) -> dict[str, Any]:
    """A base that every process finds, those that train too: a folder as open_clip writes it."""
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from safetensors.torch import save_file

    folder.mkdir()
    pixels = {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD, "interpolation": "bicubic"}
    config = {"model_cfg": TINY | {"quick_gelu": quick_gelu}, "preprocess_cfg": pixels}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(state, folder / "open_clip_model.safetensors")
    return {"kind": "open_clip", "name": f"local-dir:{folder}"}


def _catalog(server: FileServer, collection: str, image: Path, box: Any, asset: str, **properties: Any) -> str:
    server.put(f"{collection}.tif", image)
    item = feature("one", box, {asset: server.url(f"{collection}.tif")}, **properties) | {"collection": collection}
    api = StacApi(server, [item])
    api.collection_ids, api.names_next, api.page = [collection], False, 100
    return api.url


def _files(profile: str) -> dict[str, Any]:
    names = ("plant", "regions", "sources", "models", "benchmarks")
    packaged = PACKAGED_PROFILES / profile
    return {name: yaml.safe_load((packaged / f"{name}.yaml").read_text(encoding="utf-8")) for name in names}


def _geofabrik(server: FileServer, place: str, extract: Path) -> str:
    server.put(place, extract)
    digest = hashlib.md5(server.files[place], usedforsecurity=False).hexdigest()
    server.put(f"{place}.md5", f"{digest}  {Path(place).name}\n".encode())
    return server.address


def _signed(server: FileServer, collection: str, *names: str) -> dict[str, Any]:
    """Refuse files without the collection's token, which is handed out; returns what settings say of it."""
    token = {"token": "sv=1&sig=signed", "msft:expiry": "2099-01-01T00:00:00Z"}
    server.routes[f"sas/token/{collection}"] = lambda _: Reply(200, json.dumps(token).encode())
    for name in names:
        content = server.files[name]
        server.routes[name] = lambda asked, content=content: (
            by_range(content, asked.headers.get("range")) if asked.query.get("sig") == "signed" else Reply(403)
        )
    return {"kind": "planetary-computer", "endpoint": server.url("sas"), "hosts": ["127.0.0.1"]}


@contextmanager
def quickstart(folder: Path, extract: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of profile `quickstart`, and the servers that stand for what it names."""
    files = _files("quickstart")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        computer, earth, others = servers = [stack.enter_context(running(Counting())) for _ in range(3)]
        naip_box = _noise(folder / "naip.tif", 4, 0.6, 3200, 1)
        url = _catalog(computer, "naip", folder / "naip.tif", naip_box, "image", datetime="2021-08-01T00:00:00Z")
        signing = _signed(computer, "naip", "naip.tif")
        files["sources"]["sources"]["US"].update(catalog=url, signing=signing)
        del files["sources"]["sources"]["US"]["extent"]
        visual_box = _noise(folder / "visual.tif", 3, 10.0, 512, 2)
        clear = {"datetime": "2024-07-01T10:00:00Z", "eo:cloud_cover": 1.5}
        url = _catalog(earth, "sentinel-2-l2a", folder / "visual.tif", visual_box, "visual", **clear)
        files["sources"]["sources"]["S2"].update(catalog=url)

        place = "north-america/us/district-of-columbia-latest.osm.pbf"
        files["regions"]["geofabrik_mirror"] = _geofabrik(others, place, extract)
        files["regions"]["regions"]["washington"]["bbox"] = BBOX
        archive = others.put("eurosat.zip", _eurosat())
        files["benchmarks"]["benchmarks"]["eurosat"].update(archive=archive, root=str(folder / "sets"))
        files["models"]["bases"]["vit-b-32"] = _whole(folder / "tiny", _weights(folder, "gelu"))
        names = (
            "Planetary Computer: search, token, NAIP",
            "Earth Search: search, Sentinel-2",
            "Geofabrik, archive of EuroSAT",
        )
        yield write_profile(folder / "profile", files), dict(zip(names, servers, strict=True))


# ------------------------------------------------------------------------------------------------- the paper's profile


def packed(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content.getvalue()


def picture(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (level, 255 - level, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def of_set(kind: str, csv: str, classnames: str) -> bytes:
    """An archive as the profile describes it: the CSV at its place, paths from the root, what labels are left open."""
    folder, name = csv.split("/")
    images = {f"{folder}/images/{i}.jpg": picture(40 * i) for i in range(6)}
    if kind == "caption-retrieval":
        lines = [f"{path},a {word} roof" for i, path in enumerate(images) for word in ("red", str(i % 3))]
        return packed({f"{folder}/{name}": "\n".join(["filepath,title", *lines]).encode(), **images})
    rows = [f"{path},{i % 2},{i % 2},{i % 2}" for i, path in enumerate(images)]
    listed = {f"{folder}/{name}": "\n".join(["filepath,label,label_v1,label_v2", *rows]).encode()}
    return packed({**listed, f"{folder}/{Path(classnames).name}": b"flat\ngabled\n", **images})


def offer(server: FileServer, path: str, data: bytes) -> str:
    """Serve a file whose first answer is cut in its middle; returns its address."""
    met: list[Asked] = []

    def answer(asked: Asked) -> Reply:
        reply = by_range(data, asked.headers.get("range"))
        reply.cut = None if met else len(data) // 2
        met.append(asked)
        return reply

    server.routes[path] = answer
    return server.url(path)


def _weights(folder: Path, activation: str) -> dict[str, Any]:
    """Tensors of the tiny architecture `tiny-{activation}`, which is registered in this process."""
    import open_clip
    import torch

    config = TINY | {"quick_gelu": activation == "quick_gelu"}
    (folder / f"tiny-{activation}.json").write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(folder / f"tiny-{activation}.json")
    torch.manual_seed(len(activation))
    state: dict[str, Any] = open_clip.create_model(f"tiny-{activation}").state_dict()
    return state


def _saved(content: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _skyscript_models(bases: dict[str, Any], folder: Path, bucket: FileServer) -> None:
    """Tiny models for all bases: folders for tags, archives of the authors with an optimiser inside, plain files."""
    tensors = {activation: _weights(folder, activation) for activation in ("gelu", "quick_gelu")}
    for name, base in bases.items():
        activation = base.setdefault("activation", "quick_gelu" if "quickgelu" in base["name"] else "gelu")
        if "url" not in base:
            bases[name] = _whole(folder / name, tensors[activation], activation == "quick_gelu")
            continue
        base["name"] = f"tiny-{activation}"
        path = base["url"].partition("//")[2].partition("/")[2]
        content = _saved(tensors[activation])
        if path.endswith(".zip"):
            state = {f"module.{name}": tensor for name, tensor in tensors[activation].items()}
            optimizer = {"param_groups": [{"lr": np.float64(3e-9)}]}
            inner = _saved({"epoch": 20, "state_dict": state, "optimizer": optimizer})
            content = packed({f"{Path(path).stem}/epoch_20.pt": inner})
        base["url"] = offer(bucket, path, content)


def _skyscript_benchmarks(benchmarks: dict[str, Any], folder: Path, bucket: FileServer) -> None:
    for benchmark in benchmarks.values():
        path = benchmark["archive"].partition("//")[2].partition("/")[2]
        if path.endswith(".csv"):
            (folder / "sets" / "images2").mkdir(parents=True)
            for i in range(4):
                (folder / "sets" / "images2" / f"{i}.jpg").write_bytes(picture(60 * i))
            lines = [f"images2/{i}.jpg,one {i},more {i}" for i in range(4)]
            data = "\n".join(["filepath,title,title_multi_objects", *lines]).encode()
        else:
            data = of_set(benchmark["kind"], benchmark["csv"], benchmark.get("classnames", ""))
        benchmark.update(archive=offer(bucket, path, data), root=str(folder / "sets"))


def _planetary_computer(server: Counting, folder: Path, sources: dict[str, Any]) -> None:
    """More items than a page, and no link to the next one; one image is a page of HTML; a search fails at first."""
    box = _noise(folder / "us.tif", 4, 0.6, 1536, 1)
    server.put("us.tif", folder / "us.tif")
    html = server.put("html.tif", b"<html>The service is unavailable</html>")
    items = []
    for day in range(120):
        when = f"{dt.date(2021, 1, 1) + dt.timedelta(day)}T00:00:00Z"
        href = html if day == 119 else server.url("us.tif")
        items.append(feature(f"naip_{day:03}", box, {"image": href}, datetime=when) | {"collection": "naip"})
    names = ["us.tif"]
    for number in (8, 9):
        for year in (2022, 2023):
            hrefs = {}
            for band, colour in enumerate(("red", "green", "blue")):
                name = f"l{number}_{year}_{colour}.tif"
                seed = 100 * number + 10 * (year - 2022) + band
                box = _noise(
                    folder / name,
                    1,
                    30.0,
                    512,
                    seed,
                    show=lambda p: (p * 40.0 + 7000).astype(np.uint16),
                    inward_m=-6000,
                )
                hrefs[colour] = server.put(name, folder / name)
                names.append(name)
            for tier in ("T1", "T2"):
                facts = {"platform": f"landsat-{number}", "landsat:collection_category": tier, "eo:cloud_cover": 1.0}
                item = feature(f"l{number}_{year}_{tier}", box, hrefs, datetime=f"{year}-07-01T10:00:00Z", **facts)
                items.append(item | {"collection": "landsat-c2-l2"})
    api = StacApi(server, items)
    api.collection_ids, api.names_next, api.page = ["naip", "landsat-c2-l2"], False, 100
    offered = iter([Reply(503)])
    server.routes["stac/search"] = lambda asked: next(offered, None) or api.search(asked)
    for key in ("US", "L8", "L9"):
        signing = _signed(server, sources[key]["collection"], *names)
        sources[key].update(catalog=api.url, signing=signing)


def _swisstopo(server: Counting, folder: Path, source: dict[str, Any]) -> None:
    """Pages of 100 with a cursor that is merged, no query; each item also has a copy at 2 m."""
    box = _noise(folder / "ch.tif", 3, 0.1, 3072, 3, "EPSG:2056", inward_m=800)
    server.put("ch.tif", folder / "ch.tif")
    items = []
    for number in range(120):
        stem = f"swissimage-dop10_{number:03}"
        hrefs = {f"{stem}_{gsd}_2056.tif": server.url(name) for gsd, name in (("0.1", "ch.tif"), ("2", "coarse.tif"))}
        when = f"{dt.date(2020, 1, 1) + dt.timedelta(number)}T00:00:00Z"
        items.append(feature(stem, box, hrefs, datetime=when) | {"collection": source["collection"]})
    api = StacApi(server, items)
    api.collection_ids, api.page, api.merges = [source["collection"]], 100, True
    api.conforms = [name for name in api.conforms if not name.endswith("#query")]
    source.update(catalog=api.url)


def _earth_search(server: Counting, folder: Path, source: dict[str, Any]) -> None:
    """Hundreds of clouded items, and few clear ones, of which one is listed twice."""
    items = []
    for number, name in enumerate(("a_0", "a_1", "b_0")):
        box = _noise(folder / f"{name}.tif", 3, 10.0, 512, 20 + number, inward_m=-1500)
        href = server.put(f"{name}.tif", folder / f"{name}.tif")
        when = f"2024-07-{1 if name[0] == 'a' else 9:02}T10:00:00Z"
        items.append(feature(name, box, {"visual": href}, datetime=when, **{"eo:cloud_cover": 1.5}))
    for day in range(300):
        when = f"{dt.date(2023, 1, 1) + dt.timedelta(day)}T10:00:00Z"
        items.append(
            feature(f"c_{day}", box, {"visual": server.url("no.tif")}, datetime=when, **{"eo:cloud_cover": 80.0})
        )
    api = StacApi(server, [item | {"collection": source["collection"]} for item in items])
    api.collection_ids, api.page = [source["collection"]], 100
    source.update(catalog=api.url)


def _maps(server: TileServer, source: dict[str, Any], crs: str) -> None:
    """A WMS, or a WCS of 3 km, whose first pixel is the corner of a picture."""
    left, top = _corner(crs)
    gsd, shown = source["gsd_m"], _picture(3, 4096, 31)

    def part(column: int, row: int, width: int, height: int) -> NDArray[np.uint8]:
        rows, columns = (np.arange(start, start + size) % 4096 for start, size in ((row, height), (column, width)))
        return np.moveaxis(shown[:, rows][:, :, columns], 0, -1)

    def place(query: dict[str, str]) -> tuple[int, int, int, int]:
        if "SUBSET" in query:
            cut = dict(subset.rstrip(")").split("(") for subset in query["SUBSET"].split(";"))
            (west, east), (south, north) = (map(float, cut[name].split(",")) for name in ("E", "N"))
        else:
            west, south, east, north = map(float, query["BBOX"].split(","))
        sizes = (west - left, top - north, east - west, north - south)
        column, row, width, height = (round(size / gsd) for size in sizes)
        return column, row, width, height

    server.draw, server.maps = part, place
    source["url"] = f"{server.address}/{source['kind']}"
    if source["kind"] == "wms":
        document = wms_document("1.3.0", crs=crs, href=source["url"])
    else:
        server.format, server.media_type = "TIFF", "image/tiff"
        document = wcs_document(crs=crs, labels="E N", lower=f"{left} {top - 3000}", upper=f"{left + 3000} {top}")
    server.documents[f"/{source['kind']}"] = document.replace("photos", source["layer"])


def _stored(source: dict[str, Any], levels: tuple[str, int]) -> StoredImage:
    left, top = _corner("EPSG:32632")
    grid = Affine(source["gsd_m"], 0, left + 500, 0, -source["gsd_m"], top - 500)
    when = dt.datetime(2015, 6, 1, 10, tzinfo=dt.UTC)
    return StoredImage(f"{source['collection']}/one", when, grid, crs="EPSG:32632", levels=levels)


@contextmanager
def skyscript(folder: Path, extract: Path, sets_in: int = 1) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of profile `skyscript` for one small region, and the servers that stand for what it names.

    Published models, of which there are many, are scored on one of `sets_in` sets of images each, taken in turn.
    """
    files = _files("skyscript")
    sources, regions = files["sources"]["sources"], files["regions"]["regions"]
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        computer, swiss, earth, bucket, others = (stack.enter_context(running(Counting())) for _ in range(5))
        spain, brandenburg, finland = (stack.enter_context(tile_server()) for _ in range(3))
        google = stack.enter_context(earth_engine_server())
        _planetary_computer(computer, folder, sources)
        _swisstopo(swiss, folder, sources["CH"])
        _earth_search(earth, folder, sources["S2"])
        _maps(spain, sources["ES"], "EPSG:25832")
        _maps(brandenburg, sources["DE"], "EPSG:25832")
        _maps(finland, sources["FI"], "EPSG:25832")
        finland.key = "a-key"
        patch.setenv(sources["FI"]["api_key_variable"], finland.key)
        patch.setenv("EE_KEY_FILE", str(write_key_file(folder / "key.json", google.address)))
        patch.setattr("ee.deprecation._FetchDataCatalogStac", dict)
        for key, levels in (("P3", ("uint8", 1)), ("P5", ("uint16", 40))):
            google.collections[sources[key]["collection"]] = [_stored(sources[key], levels)]
            sources[key].update(url=google.address, credentials_variable="EE_KEY_FILE")
        for source in sources.values():
            source.update({"extent": BBOX} if "extent" in source else {})
            if source["kind"] in ("wms", "wcs"):
                source.update(extent=PART, requests_per_second=100.0)
            source.update({"terms": source["terms"] | {"accepted": True}} if "terms" in source else {})
        place = "europe/liechtenstein-latest.osm.pbf"
        files["regions"]["geofabrik_mirror"] = _geofabrik(others, place, extract)
        files["regions"]["regions"] = {"liechtenstein": regions["liechtenstein"] | {"bbox": BBOX}}
        # So small a region holds objects and chips of 30 m pixels, and cells of training, only where these are small.
        files["plant"]["plan"].update(quota=8, min_object_px=4, min_tile_px=32)
        files["plant"]["split"]["zoom"] = 14
        files["plant"]["scores"]["views"] = 1
        for model in files["models"]["models"].values():
            model["recipe"].update({"batch_size": 16, "epochs": 1} if model["recipe"]["kind"] == "clip" else {})
        _skyscript_models(files["models"]["bases"], folder, bucket)
        _skyscript_benchmarks(files["benchmarks"]["benchmarks"], folder, bucket)
        files["benchmarks"]["bootstrap"] = 100
        sets, bases = list(files["benchmarks"]["benchmarks"]), files["models"]["bases"]
        published = [one for one in files["models"]["models"].values() if "url" in bases[one["base"]]]
        for number, model in enumerate(published):
            model["benchmarks"] = sets[number % sets_in :: sets_in]
        servers = {
            "Planetary Computer": computer,
            "swisstopo": swiss,
            "Earth Search": earth,
            "PNOA": spain,
            "Brandenburg": brandenburg,
            "NLS Finland": finland,
            "Earth Engine": google,
            "bucket of the authors, Hugging Face": bucket,
            "Geofabrik": others,
        }
        yield write_profile(folder / "profile", files), servers
