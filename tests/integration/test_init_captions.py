"""From files to first captions as a newcomer types it: `init`, the profile's name in the environment, `run`."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from skyscript_assets.cli import main
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.tables import read_table
from tests.workshop import few_labels

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("demo_packages")]


def test_real_images_and_their_extract_become_captions(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = (shared_data / "pairs/kampala_oam").resolve()
    extract = str(folder / "kampala_buildings_derived.osm.pbf")
    begun = CliRunner().invoke(main, ["init", f"{folder}/oam_kampala_z19.tif", "--osm", extract, "kampala"])
    assert begun.exit_code == 0, begun.output
    few_labels(Path("kampala/labels.csv"))
    plant = Path("kampala/plant.yaml")
    plant.write_text(plant.read_text().replace("tags:\n", "tags:\n  labels: labels.csv\n"))
    (settings,) = [line.split("=")[1] for line in begun.output.splitlines() if "export SKYSCRIPT_SETTINGS=" in line]
    (command,) = [line.split()[1:] for line in begun.output.splitlines() if line.startswith("  skyscript run ")]
    environment = {"SKYSCRIPT_SETTINGS": settings, "SKYSCRIPT_DATA": "data", "DAGSTER_HOME": "home"}
    done = CliRunner().invoke(main, command, env=environment)
    assert done.exit_code == 0, done.output
    captions = read_table(Store("data").folder(OutputKey("captions", ("here", "OWN-0-3M"))) / "captions.parquet")
    titles = captions["title"].to_pylist()
    assert len(titles) >= 12
    assert all("building" in title for title in titles)
    again = CliRunner().invoke(main, command, env=environment)
    assert "none started" in " ".join(again.output.split())
