"""The kinds of a user's package, as docs/guide.md has them: the text of the guide is installed and run."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from skyscript_assets.assets.model import OwnScorer
from skyscript_assets.lib.benchmarks.evaluate import evaluate
from skyscript_assets.lib.benchmarks.kind import benchmark_kind
from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.imagery.scenes import read_scenes
from skyscript_assets.lib.imagery.sources.kind import Search, check_source, open_scene, source_kind
from skyscript_assets.lib.progress import silent
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.lib.towers.model import normalised
from skyscript_assets.lib.towers.scorers import scorer_kind

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide.md"


@pytest.fixture
def blocks() -> dict[str, list[str]]:
    """The code blocks of the guide that name a file in their first line, by that name."""
    found: dict[str, list[str]] = {}
    for name, text in re.findall(r"```\w+\n# (\S+)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL):
        found.setdefault(name, []).append(text)
    return found


@pytest.fixture
def settings(tmp_path: Path, blocks: dict[str, list[str]], install_package: Callable[..., None]) -> Settings:
    """A profile with a source, a benchmark and a scorer of the guide's kinds, and their pictures."""
    described = tomllib.loads("\n".join(blocks["pyproject.toml"]))["project"]
    modules = {name.removesuffix(".py"): texts[0] for name, texts in blocks.items() if name.endswith(".py")}
    install_package(described["name"], described["entry-points"], modules)
    folder = tmp_path / "profile"
    folder.mkdir()
    for path in (PACKAGED_PROFILES / "demo").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    sources = yaml.safe_load((folder / "sources.yaml").read_text(encoding="utf-8"))
    stated = {"title": "Mine", "gsd_m": 1.0, "licence": "CC0-1.0", "attribution": "me"}
    sources["sources"]["MINE"] = stated | {"kind": "photos", "table": "photos.csv"}
    (folder / "sources.yaml").write_text(yaml.safe_dump(sources), encoding="utf-8")
    benchmarks = yaml.safe_load((folder / "benchmarks.yaml").read_text(encoding="utf-8"))
    stated = {"title": "My folders", "licence": "CC0-1.0", "folder": "classes"}
    benchmarks["benchmarks"]["mine"] = stated | {"kind": "class-folders"}
    (folder / "benchmarks.yaml").write_text(yaml.safe_dump(benchmarks), encoding="utf-8")
    models = yaml.safe_load((folder / "models.yaml").read_text(encoding="utf-8"))
    models |= yaml.safe_load(blocks["models.yaml"][0])
    (folder / "models.yaml").write_text(yaml.safe_dump(models), encoding="utf-8")
    plant = yaml.safe_load((folder / "plant.yaml").read_text(encoding="utf-8"))
    plant["scores"]["further_scorers"] = ["mine"]
    (folder / "plant.yaml").write_text(yaml.safe_dump(plant), encoding="utf-8")
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "here.png")
    Image.fromarray(picture).save(folder / "far.png")
    rows = ["here.png,2021-06-01,24.94,60.17,24.942,60.171", "far.png,2021-06-01,2.0,48.0,2.1,48.1"]
    (folder / "photos.csv").write_text("\n".join(["file,day,west,south,east,north", *rows]), encoding="utf-8")
    for number, (name, colour) in enumerate([("water", (30, 60, 160)), ("grass", (60, 160, 50))] * 2):
        (folder / "classes" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), colour).save(folder / "classes" / name / f"{number}.jpg")
    return load_settings(folder)


def test_a_source_of_an_own_kind_is_indexed_read_and_checked(settings: Settings, tmp_path: Path) -> None:
    source = settings.sources["MINE"]
    search = Search("helsinki", "MINE", source, settings.shared, (24.9, 60.1, 25.0, 60.2), tmp_path)
    assert source_kind(source.kind).index(search) == {"scenes": 1}
    (scene,) = read_scenes(tmp_path)
    assert (scene.scene_id, scene.kind, scene.source, scene.attribution) == ("here", "photos", "MINE", "me")
    with open_scene(scene, source) as reader:
        pixels = reader.read(scene.crs, scene.transform, 120, 90)
    np.testing.assert_array_equal(pixels.rgb, np.asarray(Image.open(settings.shared.resolve("here.png"))))
    assert check_source("MINE", source, settings.shared) == {"gsd_m": 1.0, "extent": None}
    assert source_kind(source.kind).requirements(source, settings.shared) == []


def test_a_source_of_an_own_kind_is_stale_when_what_it_reads_changes(settings: Settings) -> None:
    source = settings.sources["MINE"]
    before = source_kind(source.kind).depends_on(source, settings.shared)
    assert before["settings"]["table"] == "photos.csv"
    with settings.shared.resolve("photos.csv").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert source_kind(source.kind).depends_on(source, settings.shared) != before


def test_a_benchmark_of_an_own_kind_is_built_and_scored(
    settings: Settings, tmp_path: Path, colour_model: Callable[..., Any]
) -> None:
    data, scores = tmp_path / "data", tmp_path / "scores"
    data.mkdir()
    scores.mkdir()
    benchmark = settings.benchmarks.benchmarks["mine"]
    summary = benchmark_kind(benchmark.kind).build(benchmark, settings.shared, {}, data, silent)
    assert (summary["items"], summary["positives"]) == ({"test": 4}, {"grass": 2, "water": 2})
    assert pq.read_table(data / "items.parquet")["label"].to_pylist() == ["grass", "grass", "water", "water"]
    scored = evaluate("mine", data, colour_model(), "none", tmp_path / "cache", 100, scores)
    assert (scored.counts["primary"], scored.counts["value"]) == ("top1", 1.0)


def test_a_scorer_of_an_own_kind_knows_green_from_grey(settings: Settings) -> None:
    described = settings.scorers["mine"]
    scorer = scorer_kind(described.kind).load(described, settings.shared)
    pictures = [np.full((8, 8, 3), colour, np.uint8) for colour in ((40, 160, 40), (120, 90, 120))]
    images, texts = normalised(scorer.encode_images(pictures)), scorer.encode_texts(["grass", "road"])
    assert (images @ texts.T).argmax(axis=1).tolist() == [0, 1]


def test_a_scorer_that_cannot_be_made_is_told_with_its_package(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(own: object, shared: object) -> None:
        raise OSError("no weights")

    monkeypatch.setattr("skyscript_assets.assets.model.scorer_kind", lambda _: SimpleNamespace(load=load))
    scorer = OwnScorer(own=settings.scorers["mine"], shared=settings.shared, depends_on={})
    with pytest.raises(SettingsError, match=r"scorer mine of the package tests failed in .*load \(OSError: no weights"):
        scorer.named("mine", None)  # type: ignore[arg-type]


def test_a_scorer_of_an_own_kind_has_other_scores_with_other_settings(settings: Settings) -> None:
    before = OwnScorer.of(settings, "mine").depends_on
    changed = settings.scorers["mine"].model_copy(update={"words": ("meadow",)})
    assert OwnScorer.of(settings.model_copy(update={"scorers": {"mine": changed}}), "mine").depends_on != before


def test_settings_of_an_own_kind_are_validated_by_its_model(settings: Settings) -> None:
    path = settings.folder / "sources.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("table:", "tables:"), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"sources.MINE.tables: unknown key .*did you mean 'table'"):
        load_settings(settings.folder)
