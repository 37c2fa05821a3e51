"""`skyscript export-model`."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from skyscript_assets.assets import STAGES
from skyscript_assets.cli import main
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.provenance import Outputs


@pytest.fixture
def profile(tmp_path: Path, tiny_base) -> Path:
    """The demo's profile with a model `plain` that is the tiny base as it is."""
    folder = tmp_path / "profile"
    folder.mkdir()
    for path in (PACKAGED_PROFILES / "demo").glob("*.yaml"):
        (folder / path.name).write_bytes(path.read_bytes())
    told = yaml.safe_load((folder / "models.yaml").read_text())
    told["bases"]["tiny"] = {"kind": "open_clip", "name": tiny_base.name}
    told["models"]["plain"] = {"title": "Plain", "base": "tiny", "recipe": {"kind": "none"}}
    (folder / "models.yaml").write_text(yaml.safe_dump(told))
    return folder


@pytest.fixture
def run(tmp_path: Path, profile: Path) -> Callable[..., Result]:
    def command(*arguments: str) -> Result:
        environment = {"SKYSCRIPT_DATA": str(tmp_path / "data"), "SKYSCRIPT_SETTINGS": str(profile), "COLUMNS": "200"}
        return CliRunner().invoke(main, ["export-model", *arguments], env=environment)

    return command


def make(profile: Path, data: Path) -> None:
    outputs = Outputs(STAGES, load_settings(profile), Store(data))
    outputs.materialize(STAGES["pretrained_weights"], ())
    outputs.materialize(STAGES["trained_checkpoint"], ("plain",))


def test_a_model_becomes_a_folder(run, profile: Path, tmp_path: Path) -> None:
    make(profile, tmp_path / "data")
    done = run("plain", str(tmp_path / "out"), "--hub", "me/plain")
    assert done.exit_code == 0, done.output
    assert done.output == f"Plain in {tmp_path / 'out'}, with scores on no benchmark yet\n"
    assert "hf-hub:me/plain" in (tmp_path / "out" / "README.md").read_text()
    again = run("plain", str(tmp_path / "out"))
    assert again.exit_code == 1
    assert "exists: name a folder that does not" in again.output


def test_a_model_of_other_settings_is_not_given_away(run, profile: Path, tmp_path: Path) -> None:
    make(profile, tmp_path / "data")
    told = yaml.safe_load((profile / "models.yaml").read_text())
    told["models"]["plain"]["share"] = 0.5
    (profile / "models.yaml").write_text(yaml.safe_dump(told))
    done = run("plain", str(tmp_path / "out"))
    assert done.exit_code == 1
    assert "skyscript run trained_checkpoint/plain" in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["no-such"], 1, "models.yaml has no model no-such: it has aligned-0"),
        (["tiny"], 1, "models.yaml has no model tiny"),
        (["aligned-0"], 1, "skyscript run trained_checkpoint/aligned-0"),
        (["linear-probe"], 1, "is the control linear-probe"),
        (["plain", "--hub", "plain"], 2, "'plain' is no ORG/NAME"),
        (["plain", "--hub", "../a/b"], 2, "is no ORG/NAME"),
    ],
)
def test_what_cannot_be_given_away_says_why(run, tmp_path: Path, arguments: list[str], code: int, told: str) -> None:
    done = run(arguments[0], str(tmp_path / "out"), *arguments[1:])
    assert done.exit_code == code
    assert told in done.output
