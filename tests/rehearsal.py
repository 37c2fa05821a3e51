"""Profile `quickstart` as it is, but for addresses: Monaco, noise and a tiny model stand for what is fetched."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
import yaml
from affine import Affine
from PIL import Image

from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from tests.web import Asked, FileServer, Reply, StacApi, by_range, feature, running
from tests.workshop import write_profile

BBOX = {"west": 7.413, "south": 43.729, "east": 7.429, "north": 43.741}
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


def _noise(path: Path, bands: int, pixel_m: float, side: int, seed: int) -> tuple[float, float, float, float]:
    """Write a tiled GeoTIFF over the region; returns its box in degrees."""
    x, y = rasterio.warp.transform("EPSG:4326", "EPSG:32632", [BBOX["west"]], [BBOX["north"]])
    transform = Affine(pixel_m, 0, x[0] - 300, 0, -pixel_m, y[0] + 300)
    coarse = np.random.default_rng(seed).integers(20, 230, (bands, side // 8, side // 8), dtype=np.uint8)
    kind: dict[str, Any] = {"driver": "GTiff", "width": side, "height": side, "count": bands, "dtype": "uint8"}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    with rasterio.open(path, "w", crs="EPSG:32632", transform=transform, **kind, **layout) as dataset:
        dataset.write(np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2))
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


def _model(folder: Path) -> Path:
    """A tiny open_clip architecture, registered in this process, and a file of its weights."""
    import open_clip
    import torch

    (folder / "tiny-quick.json").write_text(json.dumps(TINY), encoding="utf-8")
    open_clip.add_model_config(folder / "tiny-quick.json")
    torch.manual_seed(7)
    torch.save(open_clip.create_model("tiny-quick").state_dict(), folder / "tiny.pt")
    return folder / "tiny.pt"


def _catalog(server: FileServer, collection: str, image: Path, box: Any, asset: str, **properties: Any) -> str:
    server.put(f"{collection}.tif", image)
    item = feature("one", box, {asset: server.url(f"{collection}.tif")}, **properties) | {"collection": collection}
    api = StacApi(server, [item])
    api.collection_ids, api.names_next, api.page = [collection], False, 100
    return api.url


@contextmanager
def rehearsed(folder: Path, extract: Path) -> Iterator[tuple[Path, list[Counting]]]:
    """The profile's folder, and the servers that stand for what it names."""
    names = ("plant", "regions", "sources", "models", "benchmarks")
    packaged = PACKAGED_PROFILES / "quickstart"
    files = {name: yaml.safe_load((packaged / f"{name}.yaml").read_text(encoding="utf-8")) for name in names}
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        computer, earth, others = servers = [stack.enter_context(running(Counting())) for _ in range(3)]
        naip_box = _noise(folder / "naip.tif", 4, 0.6, 3200, 1)
        url = _catalog(computer, "naip", folder / "naip.tif", naip_box, "image", datetime="2021-08-01T00:00:00Z")
        token = {"token": "sv=1&sig=signed", "msft:expiry": "2099-01-01T00:00:00Z"}
        computer.routes["sas/token/naip"] = lambda _: Reply(200, json.dumps(token).encode())
        image = computer.files["naip.tif"]
        computer.routes["naip.tif"] = lambda asked: (
            by_range(image, asked.headers.get("range")) if asked.query.get("sig") == "signed" else Reply(403)
        )
        signing = {"kind": "planetary-computer", "endpoint": computer.url("sas"), "hosts": ["127.0.0.1"]}
        files["sources"]["sources"]["US"].update(catalog=url, signing=signing)
        del files["sources"]["sources"]["US"]["extent"]
        visual_box = _noise(folder / "visual.tif", 3, 10.0, 512, 2)
        clear = {"datetime": "2024-07-01T10:00:00Z", "eo:cloud_cover": 1.5}
        url = _catalog(earth, "sentinel-2-l2a", folder / "visual.tif", visual_box, "visual", **clear)
        files["sources"]["sources"]["S2"].update(catalog=url)

        place = "north-america/us/district-of-columbia-latest.osm.pbf"
        others.put(place, extract)
        digest = hashlib.md5(others.files[place], usedforsecurity=False).hexdigest()
        others.put(f"{place}.md5", f"{digest}  {Path(place).name}\n".encode())
        files["regions"]["geofabrik_mirror"] = others.address
        files["regions"]["regions"]["washington"]["bbox"] = BBOX
        archive = others.put("eurosat.zip", _eurosat())
        files["benchmarks"]["benchmarks"]["eurosat"].update(archive=archive, root=str(folder / "sets"))
        base = {"kind": "open_clip", "name": "tiny-quick", "pretrained": str(_model(folder)), "activation": "gelu"}
        files["models"]["bases"]["vit-b-32"] = base
        yield write_profile(folder / "profile", files), servers
