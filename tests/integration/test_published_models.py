"""A published checkpoint on published sets, all fetched from a stand-in of their authors' bucket, with its faults."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skyscript_assets.lib import http
from skyscript_assets.lib.benchmarks.evaluate import evaluate
from skyscript_assets.lib.benchmarks.kind import benchmark_kind
from skyscript_assets.lib.progress import silent
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.settings.models import NoRecipe, OpenClipBase, TrainedModel
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.weights import weights_file
from skyscript_assets.lib.training.checkpoint import load_checkpoint, write_untrained
from tests.rehearsal import of_set, offer, packed, picture
from tests.web import FileServer, running

pytestmark = pytest.mark.integration

BUCKET = "https://opendatasharing.s3.us-west-2.amazonaws.com"
TINY = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server whose first answer to each file is cut in its middle."""
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.01)
    with running(FileServer()) as server:
        yield functools.partial(offer, server)


def test_every_set_of_the_profile_is_built_and_scored_by_a_published_checkpoint(bucket: Any, tmp_path: Path) -> None:
    import open_clip

    (tmp_path / "tiny-published.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-published.json")
    torch.manual_seed(1)
    network = open_clip.create_model("tiny-published")
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    buffer = io.BytesIO()
    torch.save({"epoch": 20, "state_dict": state, "optimizer": {"param_groups": [{"lr": np.float64(3e-9)}]}}, buffer)
    url = bucket("SkyScript/ckpt/Sky.zip", packed({"Sky/epoch_20.pt": buffer.getvalue()}))
    base = OpenClipBase(name="tiny-published", activation="quick_gelu", url=url)
    shared = Shared(folder=tmp_path, zoom=12, geofabrik_mirror="", boxes=())
    file = weights_file(base, shared, tmp_path / "weights")
    (tmp_path / "checkpoint").mkdir()
    model = TrainedModel(title="published", base="sky", recipe=NoRecipe())
    write_untrained(load_base(base, {}, 0, file), model, tmp_path / "checkpoint")
    encoder = load_checkpoint(tmp_path / "checkpoint", base, {}, file)
    for name, tensor in network.state_dict().items():
        assert torch.equal(encoder.network.state_dict()[name].cpu(), tensor), name

    benchmarks = load_settings(PACKAGED_PROFILES / "skyscript").benchmarks.benchmarks
    assert len(benchmarks) == 15
    for key, stated in benchmarks.items():
        assert stated.archive.startswith(f"{BUCKET}/SkyScript/")
        path = stated.archive.removeprefix(f"{BUCKET}/")
        if stated.archive.endswith(".csv"):
            (tmp_path / "sets" / "images2").mkdir(parents=True, exist_ok=True)
            for i in range(4):
                (tmp_path / "sets" / "images2" / f"{i}.jpg").write_bytes(picture(60 * i))
            lines = [f"images2/{i}.jpg,one {i},more {i}" for i in range(4)]
            data = "\n".join(["filepath,title,title_multi_objects", *lines]).encode()
        else:
            data = of_set(stated.kind, stated.csv, getattr(stated, "classnames", None) or "")
        benchmark = stated.model_copy(update={"archive": bucket(path, data), "root": "sets"})
        data_folder, out = tmp_path / key / "data", tmp_path / key / "scores"
        data_folder.mkdir(parents=True)
        out.mkdir()
        counts = benchmark_kind(benchmark.kind).build(benchmark, shared, {}, data_folder, silent)
        assert counts["found"]["paths start at"] == "the root", key
        assert counts["found"].get("labels", "indices") == "indices", key
        scores = evaluate(key, data_folder, encoder, "none", tmp_path / "cache", 100, out)
        assert scores.first.value is not None, key
        assert scores.items == (4 if key == "skyscript-30k" else 6), key
    assert sorted(path.name for path in (tmp_path / "sets").glob("*.zip")) == []
