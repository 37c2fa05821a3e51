import datetime as dt
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from skyscript_assets.lib.errors import CorruptInputError, OutputSchemaError, UpstreamMissingError
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.pairs.shards import SAMPLE_SCHEMA, write_caption_shards
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.settings.base import SENTENCES
from skyscript_assets.lib.settings.plant import ShardSettings
from skyscript_assets.lib.tables import read_table, rows_to_table, write_table
from skyscript_assets.lib.tar import read_member

WritePartition = Callable[..., PartitionFolders]


def shards_of(folders: PartitionFolders, out: Path, settings: ShardSettings | None = None) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    return write_caption_shards(folders, settings or ShardSettings(), out)


def counts(pairs: int, splits: dict[str, int], shards: int) -> dict[str, Any]:
    return {"pairs": pairs, "splits": splits, "shards": shards, "without_caption": 0}


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive.getmembers()}


def test_a_pair_becomes_image_text_and_facts(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{}])
    out = tmp_path / "out"
    assert shards_of(folders, out) == counts(1, {"train": 1, "val": 0, "test": 0}, 1)
    found = members(out / "train/000000.tar")
    key = "a0_S_20200601_00000000"
    assert list(found) == [f"{key}.jpg", f"{key}.txt", f"{key}.json"]
    assert found[f"{key}.txt"].decode() == "a satellite image of building number 0"
    chip = read_table(folders.chips / "chips.parquet").to_pylist()[0]
    assert found[f"{key}.jpg"] == read_member(folders.chips / chip["shard"], chip["offset"], chip["length"])
    assert json.loads(found[f"{key}.json"]) == {
        "chip_id": key,
        "region": "here",
        "source": "S",
        "split": "train",
        "cell": "0/7",
        "stratum": "building=yes",
        "gsd_m": 0.5,
        "width": 120,
        "height": 100,
        "focus_box": [10, 20, 60, 70],
        "title": "building number 0",
        "title_multi_objects": "building number 0, road",
        **dict.fromkeys(SENTENCES, "Building number 0."),
        "center_tags": {"building": "yes", "name": "Ä"},
        "bbox": [0.0, 50.0, 0.5, 50.5],
        "osm": {
            "object_id": "a0",
            "type": "way",
            "id": 0,
            "version": None,
            "timestamp": None,
            "licence": "ODbL-1.0",
            "attribution": "© OpenStreetMap contributors",
        },
        "image": {
            "scene_id": "S-20200601",
            "datetime": "2020-06-01T00:00:00+00:00",
            "synthetic": False,
            "sha256": chip["sha256"],
            "licence": "CC0-1.0",
            "attribution": "A surveyor",
        },
        "score": {"value": 0.0, "column": "title", "scorer": "a scorer"},
    }


def test_objects_give_version_and_time(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{}, {}])
    known = dict.fromkeys(OBJECT_SCHEMA.names) | {"object_id": "a1", "version": 7}
    known["timestamp"] = dt.datetime(2019, 8, 7, tzinfo=dt.UTC)
    write_table(tmp_path / "objects.parquet", rows_to_table([known], OBJECT_SCHEMA))
    shards_of(replace(folders, objects=tmp_path), tmp_path / "out")
    found = members(tmp_path / "out/train/000000.tar")
    facts = {name: json.loads(data)["osm"] for name, data in found.items() if name.endswith(".json")}
    assert facts["a1_S_20200601_00000001.json"]["version"] == 7
    assert facts["a1_S_20200601_00000001.json"]["timestamp"] == "2019-08-07T00:00:00+00:00"
    assert facts["a0_S_20200601_00000000.json"]["version"] is None


def test_the_multi_object_caption_and_another_prefix_can_be_chosen(
    tmp_path: Path, write_partition: WritePartition
) -> None:
    shards_of(write_partition([{}]), tmp_path / "out", ShardSettings(column="title_multi_objects", prefix=""))
    texts = [data for name, data in members(tmp_path / "out/train/000000.tar").items() if name.endswith(".txt")]
    assert texts == [b"building number 0, road"]


def test_splits_have_folders_and_shards_of_about_equal_size(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{"split": "train"}] * 7 + [{"split": "test"}] * 2)
    out = tmp_path / "out"
    summary = shards_of(folders, out, ShardSettings(samples_per_shard=3))
    assert summary == counts(9, {"train": 7, "val": 0, "test": 2}, 4)
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "samples.parquet",
        "test/000000.tar",
        "test/sizes.json",
        "train/000000.tar",
        "train/000001.tar",
        "train/000002.tar",
        "train/sizes.json",
    ]
    assert json.loads((out / "train/sizes.json").read_text()) == {"000000.tar": 2, "000001.tar": 2, "000002.tar": 3}


def test_samples_say_where_each_image_lies(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{"split": split} for split in ("train", "val", "test", "train")])
    out = tmp_path / "out"
    shards_of(folders, out)
    digests = {row["chip_id"]: row for row in read_table(folders.chips / "chips.parquet").to_pylist()}
    samples = read_table(out / "samples.parquet", SAMPLE_SCHEMA).to_pylist()
    assert len(samples) == 4
    for sample in samples:
        assert sample["shard"].startswith(sample["split"])
        chip = digests[sample["chip_id"]]
        original = read_member(folders.chips / chip["shard"], chip["offset"], chip["length"])
        assert read_member(out / sample["shard"], sample["offset"], sample["length"]) == original


def test_rejected_uncaptioned_and_empty_ones_are_left_out(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{}, {"status": "rejected"}, {"captioned": False}, {"title": " "}])
    summary = shards_of(folders, tmp_path / "out")
    assert (summary["pairs"], summary["without_caption"]) == (1, 1)


def test_a_partition_without_pairs_gives_an_empty_table_and_no_shard(
    tmp_path: Path, write_partition: WritePartition
) -> None:
    out = tmp_path / "out"
    assert shards_of(write_partition([]), out) == counts(0, {"train": 0, "val": 0, "test": 0}, 0)
    assert [p.name for p in out.iterdir()] == ["samples.parquet"]
    assert read_table(out / "samples.parquet", SAMPLE_SCHEMA).num_rows == 0


def test_neighbours_of_the_plan_are_mixed(tmp_path: Path, write_partition: WritePartition) -> None:
    shards_of(write_partition([{}] * 20), tmp_path / "out")
    order = [row["chip_id"] for row in read_table(tmp_path / "out/samples.parquet").to_pylist()]
    assert order != sorted(order)


def test_equal_inputs_give_equal_bytes(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{"split": split} for split in ("train", "val", "test", "train")])
    for name in ("a", "b"):
        shards_of(folders, tmp_path / name)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert len(files) == 7
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_progress_counts_the_pairs(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{}, {"split": "val"}])
    told: list[tuple[int, int, str]] = []
    write_caption_shards(folders, ShardSettings(), tmp_path, lambda *args: told.append(args))
    assert told == [(1, 2, "pairs"), (2, 2, "pairs")]


def test_a_chip_id_that_is_no_webdataset_key_is_refused(tmp_path: Path, write_partition: WritePartition) -> None:
    with pytest.raises(CorruptInputError, match="holds a dot"):
        shards_of(write_partition([{"chip_id": "a1.5_S"}]), tmp_path / "out")


def test_a_damaged_image_is_found(tmp_path: Path, write_partition: WritePartition) -> None:
    with pytest.raises(
        CorruptInputError, match=r"part-00000\.tar: the image of a0_.* is not the one that was listed: damaged"
    ):
        shards_of(write_partition([{"sha256": "0" * 64}]), tmp_path / "out")


def test_a_missing_input_is_named(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{}])
    (folders.scores / "scores.parquet").unlink()
    with pytest.raises(UpstreamMissingError, match=r"scores\.parquet"):
        shards_of(folders, tmp_path / "out")


def test_an_input_of_another_version_is_named(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{}])
    write_table(folders.captions / "captions.parquet", read_table(folders.captions / "captions.parquet").drop("title"))
    with pytest.raises(OutputSchemaError, match=r"captions\.parquet: column title"):
        shards_of(folders, tmp_path / "out")


@pytest.mark.parametrize("is_train", [True, False])
def test_open_clips_own_reader_loads_the_shards(
    tmp_path: Path, write_partition: WritePartition, is_train: bool
) -> None:
    from open_clip_train.data import get_wds_dataset

    torch.set_num_threads(2)
    out = tmp_path / "out"
    folders = write_partition([{"split": "train" if i < 8 else "val"} for i in range(12)])
    shards_of(folders, out, ShardSettings(samples_per_shard=4))
    args = SimpleNamespace(
        train_data=str(out / "train/{000000..000001}.tar"),
        val_data=str(out / "val/000000.tar"),
        train_num_samples=None,
        val_num_samples=4,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        batch_size=4,
        workers=0,
        world_size=1,
        seed=0,
    )
    texts: list[str] = []

    def tokenizer(text: str) -> list[torch.Tensor]:
        texts.append(text)
        return [torch.tensor([len(texts) - 1])]

    def preprocess(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image))

    info = get_wds_dataset(args, preprocess, is_train=is_train, tokenizer=tokenizer)
    batches = list(info.dataloader)
    assert info.dataloader.num_samples == (8 if is_train else 4)
    assert [tuple(images.shape) for images, _ in batches] == [(4, 100, 120, 3)] * (2 if is_train else 1)
    numbers = range(8) if is_train else range(8, 12)
    assert sorted(texts) == sorted(f"a satellite image of building number {i}" for i in numbers)
