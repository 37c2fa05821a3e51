"""`skyscript evaluate` and `skyscript classify`."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image

from skyscript_assets.cli import main
from skyscript_assets.lib.benchmarks.image_folder import ImageFolderBenchmark, build_image_folder
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.storage import OutputKey, Store


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        (tmp_path / "images" / name).mkdir(parents=True)
        for n in range(3):
            Image.new("RGB", (40, 40), colour).save(tmp_path / "images" / name / f"{n}.png")
    return tmp_path / "images"


@pytest.fixture
def run(tmp_path: Path, images: Path, tiny_base):
    """Runs a command over a profile with the benchmark `mine`, whose data is there, and `yours`, whose is not."""
    benchmarks = {name: {"kind": "image-folder", "title": name, "root": str(images)} for name in ("mine", "yours")}
    profile = tmp_path / "profile"
    profile.mkdir()
    for path in (PACKAGED_PROFILES / "demo").glob("*.yaml"):
        (profile / path.name).write_bytes(path.read_bytes())
    told = yaml.safe_load((profile / "benchmarks.yaml").read_text())
    told = {"benchmarks": told["benchmarks"] | benchmarks, "bootstrap": 100}
    (profile / "benchmarks.yaml").write_text(yaml.safe_dump(told))
    store = Store(tmp_path / "data")
    key = OutputKey("benchmark_data", ("mine",))
    with store.writing(key, "f") as out:
        shared = Shared(folder=profile, zoom=16, geofabrik_mirror="", boxes=())
        build_image_folder(ImageFolderBenchmark.model_validate(benchmarks["mine"]), shared, out)
        store.complete(key, fingerprint="f", made_from={}, counts={})

    def command(*arguments: str) -> Result:
        environment = {"SKYSCRIPT_DATA": str(tmp_path / "data"), "SKYSCRIPT_SETTINGS": str(profile), "COLUMNS": "100"}
        return CliRunner().invoke(main, arguments, env=environment)

    return command


def test_a_model_of_open_clip_is_scored_as_the_scoreboard_does(run, tiny_base) -> None:
    done = run("evaluate", "--model", tiny_base.name, "--benchmark", "mine", "--json")
    assert done.exit_code == 0, done.output
    scores = json.loads(done.output)["mine"]
    assert (scores["items"], scores["primary"]) == (6, "top1")
    shown = run("evaluate", "--model", tiny_base.name, "--benchmark", "mine").output
    assert f"{scores['figures']['top1']['value']:.3f}" in shown


@pytest.mark.parametrize(
    ("model", "benchmark", "told"),
    [
        ("tiny-vit", "yours", "skyscript run benchmark_data/yours"),
        ("tiny-vit", "nobody", "benchmarks.yaml has no nobody"),
        ("aligned-0", "mine", "skyscript run trained_checkpoint/aligned-0"),
        ("linear-probe", "mine", "is the control linear-probe"),
        ("no-such", "mine", "no architecture that open_clip knows"),
        ("ViT-B-32:/x/y.pt", "mine", "weights from a file need `activation`"),
    ],
)
def test_what_cannot_be_scored_says_why(run, tiny_base, model: str, benchmark: str, told: str) -> None:
    done = run("evaluate", "--model", model, "--benchmark", benchmark)
    assert done.exit_code == 1
    assert told in done.output


def test_a_folder_is_classified(run, tiny_base, images: Path, tmp_path: Path) -> None:
    arguments = ("classify", str(images), "--model", tiny_base.name, "--out", str(tmp_path / "out.csv"))
    done = run(*arguments, "--class", "red", "--class", "blue")
    assert done.exit_code == 0, done.output
    assert "6 images in" in done.output
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 7
    assert run(*arguments, "--class", "red").exit_code == 2
    assert run(*arguments, "--class", "red", "--class", "blue", "--prompt", "a photo").exit_code == 2


def test_a_track_is_named_and_captioned_as_such(run, tiny_base) -> None:
    done = run("evaluate", "--model", tiny_base.name, "--benchmark", "mine", "--track", "transductive")
    assert done.exit_code == 0, done.output
    assert "track transductive" in done.output
    assert run("evaluate", "--model", tiny_base.name, "--benchmark", "mine", "--track", "best").exit_code == 2
