"""`skyscript release` and `skyscript rebuild`."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from skyscript_assets.cli import main
from skyscript_assets.lib.files import write_json
from skyscript_assets.lib.imagery.scenes import write_scenes
from skyscript_assets.lib.release import push as push_module
from skyscript_assets.lib.release.origins import RECIPE_FILE, WINDOW_SCHEMA, WINDOWS_FILE
from skyscript_assets.lib.release.write import write_sums
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.tables import write_table

KEY = OutputKey("dataset_release", ())


def run(data: Path, *arguments: str) -> Result:
    environment = {"SKYSCRIPT_DATA": str(data), "SKYSCRIPT_SETTINGS": "demo", "COLUMNS": "80"}
    return CliRunner().invoke(main, arguments, env=environment)


def write(data: Path, pairs: int) -> None:
    with Store(data).writing(KEY, "f") as out:
        (out / "README.md").write_text("roofs")
        write_sums(out)
        Store(data).complete(KEY, fingerprint="f", made_from={}, counts={"pairs": pairs})


@pytest.mark.parametrize("pairs", [None, 0])
def test_without_a_release_it_says_how_to_make_one(tmp_path: Path, pairs: int | None) -> None:
    if pairs is not None:
        write(tmp_path, pairs)
    done = run(tmp_path, "release")
    assert done.exit_code == 1
    assert "skyscript run dataset_release" in done.output


def test_a_release_is_sent_to_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Objects(dict[str, bytes]):
        """An object store in memory; integration tests ask a real one."""

        def below(self, _: str) -> list[dict[str, object]]:
            return [{"path": path, "size": len(content)} for path, content in self.items()]

        def read(self, path: str) -> bytes:
            return self[path]

        def put(self, path: str, content: bytes | Path) -> None:
            self[path] = content if isinstance(content, bytes) else content.read_bytes()

        def delete(self, paths: list[str]) -> None:
            for path in paths:
                del self[path]

    objects = Objects()
    monkeypatch.setattr(push_module, "ObjectStore", lambda _: objects)
    write(tmp_path, 7)
    done = run(tmp_path, "release", "--push", "s3://bucket/roofs")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("7 pairs in ")
    assert "1 files sent to s3://bucket/roofs" in done.output
    assert objects["README.md"] == b"roofs"
    assert "0 files sent" in run(tmp_path, "release", "--push", "s3://bucket/roofs").output


def test_a_folder_that_is_no_release_is_not_rebuilt(tmp_path: Path) -> None:
    done = run(tmp_path, "rebuild", str(tmp_path), str(tmp_path / "out"))
    assert done.exit_code == 1
    assert "rebuild.json cannot be read" in done.output


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    recipe = {"code": "1", "chips": {}, "plan": {"snapshot": "first", "quota": 1}, "zoom": 16, "leaks": {}}
    write_json(tmp_path / RECIPE_FILE, recipe)
    write_table(tmp_path / WINDOWS_FILE, WINDOW_SCHEMA.empty_table())
    write_scenes(tmp_path, [])
    (tmp_path / "out").write_text("a file")
    done = run(tmp_path, "rebuild", str(tmp_path), str(tmp_path / "out/again"))
    assert done.exit_code == 1
    assert "out/again cannot be written" in "".join(done.output.split("\n"))


def test_captions_are_written_again_for_somebody_and_of_a_release(tmp_path: Path) -> None:
    done = run(tmp_path, "recaption", str(tmp_path), str(tmp_path / "out"))
    assert done.exit_code == 1
    assert "rebuild.json cannot be read" in done.output
    shutil.copytree(PACKAGED_PROFILES / "demo", tmp_path / "profile")
    plant = tmp_path / "profile/plant.yaml"
    plant.write_text(plant.read_text(encoding="utf-8").partition("release:")[0], encoding="utf-8")
    environment = {"SKYSCRIPT_DATA": str(tmp_path), "SKYSCRIPT_SETTINGS": str(tmp_path / "profile")}
    done = CliRunner().invoke(main, ["recaption", str(tmp_path), str(tmp_path / "out")], env=environment)
    assert "plant.yaml has no section `release`" in done.output
