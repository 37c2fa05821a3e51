from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.sources.access import depends_on, index_scenes, needs_objects, open_scene
from skyscript_assets.lib.imagery.sources.stac.credentials import signer_of
from skyscript_assets.lib.imagery.sources.stac.reader import RemoteReader
from skyscript_assets.lib.settings.sources import FilesSource, StacSource, SyntheticSource

FACTS: dict[str, Any] = {"title": "t", "gsd_m": 0.5, "licence": "l", "attribution": "a"}
FILES = FilesSource.model_validate(FACTS | {"paths": ["*.tif"]})
STAC = StacSource.model_validate(FACTS | {"catalog": "catalog.json", "assets": ["image"]})
SYNTHETIC = SyntheticSource.model_validate(FACTS | {"datetime": "2023-06-01"})


def profile(folder: Path, **sources: Any) -> Any:
    return SimpleNamespace(folder=folder, sources=sources, resolve=lambda name: folder / name)


def test_the_kind_of_a_source_decides_which_reader_opens_its_scenes(
    tmp_path: Path, write_raster: Any, scene_of: Any, textured: Any
) -> None:
    scene = scene_of(write_raster(tmp_path / "a.tif", textured()))
    assert type(open_scene(scene, FILES)) is RasterReader
    assert type(open_scene(scene, SYNTHETIC)) is RasterReader
    assert type(open_scene(scene, STAC)) is RemoteReader


def test_a_source_is_indexed_by_its_kind(tmp_path: Path, write_raster: Any, textured: Any) -> None:
    write_raster(tmp_path / "a.tif", textured(), tags={"TIFFTAG_DATETIME": "2019:07:02 10:30:00"})
    world = (-180.0, -90.0, 180.0, 90.0)
    assert index_scenes("here", "F", profile(tmp_path, F=FILES), world, tmp_path)["scenes"] == 1
    (tmp_path / "catalog.json").write_text('{"type": "FeatureCollection", "features": []}', encoding="utf-8")
    assert index_scenes("here", "S", profile(tmp_path, S=STAC), world, tmp_path)["scenes"] == 0


def test_only_a_painting_is_made_from_objects() -> None:
    assert needs_objects(SYNTHETIC)
    assert not needs_objects(FILES)
    assert not needs_objects(STAC)


def test_an_index_is_stale_when_a_file_that_it_read_changes(tmp_path: Path) -> None:
    before = depends_on(STAC, profile(tmp_path))
    (tmp_path / "catalog.json").write_text("{}", encoding="utf-8")
    assert depends_on(STAC, profile(tmp_path)) != before
    remote = STAC.model_copy(update={"catalog": "https://example.org/stac"})
    assert "files" not in depends_on(remote, profile(tmp_path))


def test_a_secret_goes_to_its_hosts_alone_and_never_from_https_to_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURVEY_TOKEN", "secret")
    facts = {"catalog": "https://example.org/stac", "token": {"env": "SURVEY_TOKEN", "header": "X-Key", "prefix": ""}}
    signer = signer_of(StacSource.model_validate(FACTS | {"assets": ["image"]} | facts))
    assert signer is not None
    assert signer.sign("https://example.org/a.tif")[1] == {"X-Key": "secret"}
    for url in ("http://example.org/a.tif", "https://example.org.evil.net/a.tif", "https://a.example.org/a.tif"):
        assert signer.sign(url) == (url, {})


def test_signing_wants_a_collection() -> None:
    source = StacSource.model_validate(
        FACTS | {"catalog": "https://example.org", "assets": ["image"], "signing": {"kind": "planetary-computer"}}
    )
    with pytest.raises(SettingsError, match="signing needs a collection"):
        signer_of(source)
