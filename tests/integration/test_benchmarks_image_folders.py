"""Published image folders are packed as they are."""

from pathlib import Path

import pytest

from skyscript_assets.lib.benchmarks.image_folder import ImageFolderBenchmark, build_image_folder
from skyscript_assets.lib.benchmarks.items import BENCHMARK_FILE, BenchmarkSpec, iter_images, read_items, read_model
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.towers.images import decode


@pytest.mark.integration
@pytest.mark.parametrize(("name", "images", "classes"), [("eurosat", 2700, 10), ("ucmerced", 1050, 21)])
def test_a_published_folder_is_packed_whole(
    shared_data: Path, tmp_path: Path, name: str, images: int, classes: int
) -> None:
    folder = shared_data / "benchmarks" / name
    if not folder.is_dir():
        pytest.skip(f"the published set is absent: {folder} does not exist")
    benchmark = ImageFolderBenchmark(title=name, csv=f"{name}_test.csv", classnames="classnames.txt")
    shared = Shared(folder=folder, zoom=12, geofabrik_mirror="", boxes=())
    summary = build_image_folder(benchmark, shared, tmp_path)
    assert summary["found"]["labels"] == "words"
    assert summary["items"] == {"test": images}
    assert len(summary["positives"]) == classes == len(read_model(tmp_path / BENCHMARK_FILE, BenchmarkSpec).classes)
    assert not summary["synthetic"]
    items = read_items(tmp_path)
    first = decode(next(iter_images(tmp_path, ["test"]))[0], name)
    assert first.shape == (items["height"][0].as_py(), items["width"][0].as_py(), 3)
    assert sum(len(batch) for batch in iter_images(tmp_path, ["test"])) == images
