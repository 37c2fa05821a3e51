import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import simplejpeg

from skyscript_assets.lib.chips.cut import CHIP_SCHEMA
from skyscript_assets.lib.errors import TooLittleDataError, UpstreamMissingError
from skyscript_assets.lib.pairs.leaks import FINGERPRINT_SCHEMA, FINGERPRINTS_FILE, LEAK_SCHEMA, LEAKS_FILE
from skyscript_assets.lib.pairs.manifest import MANIFEST_SCHEMA, write_manifest
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.pairs.thumbnails import thumbnail
from skyscript_assets.lib.tables import read_table, rows_to_table, write_table
from skyscript_assets.lib.tar import TarShard, read_member

WritePartition = Callable[..., PartitionFolders]
Partitions = dict[tuple[str, str], PartitionFolders]


def manifest_of(partitions: Partitions, out: Path, **ranked: Any) -> tuple[dict[str, Any], list[dict]]:
    out.mkdir(exist_ok=True)
    summary = write_manifest(partitions, out, **ranked)
    return summary, read_table(out / "manifest.parquet", MANIFEST_SCHEMA).to_pylist()


def test_a_row_says_where_its_image_lies(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{}, {}])
    summary, rows = manifest_of({("here", "S"): folders}, tmp_path / "out")
    assert (summary["pairs"], summary["eligible"], summary["partitions"]) == (2, 2, 1)
    row = rows[1]
    assert row["image_shard"] == "here/S/part-00000.tar"
    data = read_member(folders.chips / "part-00000.tar", row["image_offset"], row["image_length"])
    assert data.startswith(b"\xff\xd8")
    assert row["focus_box"] == [10, 20, 60, 70]
    assert (row["cell"], row["split"], row["score"], row["scorer"]) == ("1/7", "train", 0.01, "a scorer")
    assert (row["eligible"], row["dropped_because"]) == (True, None)
    assert (row["title"], row["title_multi_objects"]) == ("building number 1", "building number 1, road")
    assert [(one["object_id"], one["clause"]) for one in row["statements"]] == [("a1", "building number 1")]


def test_partitions_come_by_name_and_pairs_as_planned(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = {
        ("there", "S"): write_partition([{"chip_id": "a9_S"}], region="there"),
        ("here", "T"): write_partition([{"chip_id": "a8_T", "image": 5}, {"chip_id": "a7_T"}], source="T"),
    }
    _, rows = manifest_of(folders, tmp_path / "out")
    assert [(row["region"], row["source"], row["chip_id"]) for row in rows] == [
        ("here", "T", "a8_T"),
        ("here", "T", "a7_T"),
        ("there", "S", "a9_S"),
    ]


def test_only_accepted_chips_with_captions_are_pairs(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{"status": "rejected"}, {"captioned": False}, {}])
    _, rows = manifest_of({("here", "S"): folders}, tmp_path / "out")
    assert [row["chip_id"] for row in rows] == ["a2_S_20200601_00000002"]


def test_what_may_not_be_used_says_why(tmp_path: Path, write_partition: WritePartition) -> None:
    chips = [
        {"image": 1},
        {"image": 1, "split": "test"},
        {"title": " ", "image": 1},
        {"scored": False},
        {"score": math.nan},
        {"split": "val"},
    ]
    folders = {
        ("here", "S"): write_partition(chips),
        ("there", "S"): write_partition(
            [{"image": 99}, {"chip_id": "z", "image": 98, "split": "test"}], region="there"
        ),
    }
    summary, rows = manifest_of(folders, tmp_path / "out")
    assert [row["dropped_because"] for row in rows] == [
        None,
        "duplicate image",
        "empty caption",
        "no score",
        "no score",
        None,
        "chip id in two partitions",
        None,
    ]
    assert [row["eligible"] for row in rows] == [row["dropped_because"] is None for row in rows]
    assert summary["dropped"] == {
        "chip id in two partitions": 1,
        "duplicate image": 1,
        "empty caption": 1,
        "no score": 2,
    }
    assert summary["splits"] == {"train": 1, "val": 1, "test": 1}
    assert (summary["pairs"], summary["eligible"]) == (8, 3)


def test_of_equal_images_the_smallest_chip_id_stays(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = {
        ("here", "S"): write_partition([{"chip_id": "b", "image": 1}]),
        ("there", "S"): write_partition([{"chip_id": "a", "image": 1}], region="there"),
    }
    _, rows = manifest_of(folders, tmp_path / "out")
    assert {row["chip_id"]: row["eligible"] for row in rows} == {"a": True, "b": False}


def test_an_equal_image_does_not_fall_to_one_that_is_dropped_itself(
    tmp_path: Path, write_partition: WritePartition
) -> None:
    folders = write_partition([{"image": 1, "title": ""}, {"image": 1}])
    _, rows = manifest_of({("here", "S"): folders}, tmp_path / "out")
    assert [row["dropped_because"] for row in rows] == ["empty caption", None]


def test_the_rank_share_keeps_the_best_share_of_each_source(tmp_path: Path, write_partition: WritePartition) -> None:
    ten = [{"score": score / 10} for score in (3, 1, 4, 10, 5, 9, 2, 6, 8, 7)]
    folders = {
        ("here", "S"): write_partition(ten[:5]),
        ("there", "S"): write_partition(
            [chip | {"chip_id": f"t{i}", "image": 20 + i} for i, chip in enumerate(ten[5:])], region="there"
        ),
        ("here", "T"): write_partition([{"score": -0.5, "chip_id": "only", "image": 50}], source="T"),
    }
    _, rows = manifest_of(folders, tmp_path / "out")
    shares = {row["score"]: row["rank_share"] for row in rows}
    assert shares == {score / 10: pytest.approx((11 - score) / 10) for score in range(1, 11)} | {-0.5: 1.0}
    assert sorted(row["score"] for row in rows if row["source"] == "S" and row["rank_share"] <= 0.3) == [0.8, 0.9, 1.0]


def test_equal_scores_are_ranked_by_chip_id(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{"score": 0.5}] * 4)
    _, rows = manifest_of({("here", "S"): folders}, tmp_path / "out")
    assert [row["rank_share"] for row in rows] == [0.25, 0.5, 0.75, 1.0]


def test_other_pairs_are_measured_against_the_eligible_training_pairs(
    tmp_path: Path, write_partition: WritePartition
) -> None:
    chips = [
        {"score": 0.9},
        {"score": 0.5},
        {"score": 0.7, "split": "test"},
        {"score": 0.95, "split": "val"},
        {"score": 0.1, "title": ""},
        {"scored": False},
    ]
    _, rows = manifest_of({("here", "S"): write_partition(chips)}, tmp_path / "out")
    assert [row["rank_share"] for row in rows] == [0.5, 1.0, 0.5, 0.0, 1.0, None]


def test_a_source_without_training_pairs_has_no_ranks(tmp_path: Path, write_partition: WritePartition) -> None:
    _, rows = manifest_of({("here", "S"): write_partition([{"split": "test"}])}, tmp_path / "out")
    assert [(row["rank_share"], row["eligible"]) for row in rows] == [(None, True)]


SCORERS = ("one@1", "two@2", "three@3")


@pytest.fixture
def mixed(write_partition: WritePartition) -> Partitions:
    """Two sources of 60 pairs with few distinct scores, some missing, of all splits, sizes and tags."""
    rng = np.random.default_rng(0)
    partitions = {}
    for source, gsd_m in (("S", 0.6), ("T", 0.6004), ("U", 1.0)):
        chips = []
        for number in rng.permutation(60):
            scores = {name: {"title": float(np.float32(rng.integers(0, 6) / 10))} for name in SCORERS}
            scores["two@2"]["title"] *= 100
            if number % 11 == 0:
                scores["three@3"]["title"] = math.nan
            if number % 13 == 0:
                del scores["two@2"]
            chips.append(
                {
                    "chip_id": f"{number}{source}",
                    "image": ord(source) * 100 + number // (1 + (number > 55)),
                    "gsd_m": gsd_m,
                    "stratum": ("building=yes", "natural=water")[number % 2],
                    "split": ("train", "train", "train", "val", "test")[rng.integers(5)],
                    "title": "" if number % 17 == 0 else "road",
                    "score": scores["one@1"]["title"],
                    "scorer": "one@1",
                    "scores": scores,
                }
            )
        partitions["here", source] = write_partition(chips, source=source)
    return partitions


def ranked_by_pandas(rows: list[dict], stratum: list[Any], scorers: tuple[str, ...]) -> list[float | None]:
    """The definition: eligible training pairs are counted one by one."""
    frame = pd.DataFrame(rows).assign(stratum=stratum)
    for name in scorers:
        frame[name] = [dict(row["scores"]).get(name, {}).get("title", np.nan) for row in rows]
    frame = frame[frame[list(scorers)].notna().all(axis=1)]
    shares: dict[int, float] = {}
    for _, group in frame.groupby("stratum"):
        group = group.sort_values("chip_id")
        for name in scorers:
            ordered = group.sort_values(name, ascending=False, kind="stable")
            counts = ordered["eligible"] & (ordered["split"] == "train")
            group[f"share {name}"] = counts.cumsum() / counts.sum()
        group["mean"] = group[[f"share {name}" for name in scorers]].mean(axis=1)
        ordered = group.sort_values(["mean", scorers[0]], ascending=[True, False], kind="stable")
        counts = ordered["eligible"] & (ordered["split"] == "train")
        shares |= (counts.cumsum() / counts.sum()).to_dict()
    return [shares.get(row) for row in range(len(rows))]


@pytest.mark.parametrize("scorers", [("one@1",), ("two@2",), ("one@1", "two@2"), SCORERS])
@pytest.mark.parametrize("within", ["source", "all", "gsd", "tag"])
def test_ranks_are_those_of_a_plain_count(
    mixed: Partitions, tmp_path: Path, within: str, scorers: tuple[str, ...]
) -> None:
    for folders in mixed.values():
        table = read_table(folders.scores / "scores.parquet")
        kept = [[(name, own) for name, own in row if name in scorers] for row in table["scores"].to_pylist()]
        place = table.schema.get_field_index("scores")
        write_table(
            folders.scores / "scores.parquet",
            table.set_column(place, "scores", pa.array(kept, table.schema.field(place).type)),
        )
    summary, rows = manifest_of(mixed, tmp_path / "out", rank_within=within)
    stratum = {
        "source": [row["source"] for row in rows],
        "all": [0] * len(rows),
        "gsd": [row["source"] == "U" for row in rows],
        "tag": [int(row["chip_id"][:-1]) % 2 for row in rows],
    }
    expected = ranked_by_pandas(rows, stratum[within], scorers)
    assert None in expected or scorers == ("one@1",)
    assert [row["rank_share"] for row in rows] == [pytest.approx(share) for share in expected]
    assert {row["dropped_because"] for row in rows} >= {None, "empty caption", "duplicate image"}
    assert ("no score" in summary["dropped"]) == (scorers != ("one@1",))


def test_a_partition_without_scores_of_one_of_the_scorers_is_not_eligible(
    tmp_path: Path, write_partition: WritePartition
) -> None:
    both = {"one@1": {"title": 0.5}, "two@1": {"title": 0.1}}
    folders = {
        ("here", "S"): write_partition([{"scores": both, "scorer": "one@1"}]),
        ("here", "T"): write_partition([{"scorer": "one@2", "chip_id": "t", "image": 9}], source="T"),
        ("here", "U"): write_partition([], source="U"),
    }
    _, rows = manifest_of(folders, tmp_path / "out")
    assert [row["dropped_because"] for row in rows] == [None, "no score"]


def test_images_whose_digests_begin_alike_are_not_equal(tmp_path: Path, write_partition: WritePartition) -> None:
    chips = [{"sha256": f"{'a' * 16}{word:016x}{'0' * 32}"} for word in (1, 2, 1)]
    _, rows = manifest_of({("here", "S"): write_partition(chips)}, tmp_path / "out")
    assert [row["dropped_because"] for row in rows] == [None, None, "duplicate image"]


@pytest.mark.parametrize("partitions", [0, 1])
def test_without_pairs_there_is_no_manifest(tmp_path: Path, write_partition: WritePartition, partitions: int) -> None:
    folders = {("here", "S"): write_partition([])} if partitions else {}
    with pytest.raises(TooLittleDataError, match=f"none of {partitions} partitions has a chip with a caption"):
        manifest_of(folders, tmp_path / "out")
    assert not (tmp_path / "out/manifest.parquet").exists()


def test_equal_inputs_give_equal_bytes(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = {("here", "S"): write_partition([{}, {"split": "test"}, {"scored": False}])}
    manifest_of(folders, tmp_path / "a")
    manifest_of(folders, tmp_path / "b")
    assert (tmp_path / "a/manifest.parquet").read_bytes() == (tmp_path / "b/manifest.parquet").read_bytes()


def test_a_missing_stage_is_named(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{}])
    (folders.chips / "chips.parquet").unlink()
    with pytest.raises(UpstreamMissingError, match=r"chips\.parquet"):
        manifest_of({("here", "S"): folders}, tmp_path / "out")


def test_ground_shared_by_splits_is_counted_across_sources(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = {
        ("here", "S"): write_partition([{"west": 0.0}, {"west": 0.2}, {"west": 5.0, "split": "val"}]),
        ("here", "T"): write_partition(
            [
                {"chip_id": "t0", "image": 20, "west": 0.4, "split": "test"},
                {"chip_id": "t1", "image": 21, "west": 5.1, "split": "test"},
                {"chip_id": "t2", "image": 22, "west": 5.2, "split": "test"},
            ],
            source="T",
        ),
    }
    summary, _ = manifest_of(folders, tmp_path / "out")
    assert summary["shared_ground"] == 4
    assert summary["shared_ground_examples"] == [
        "a0_S_20200601_00000000 (train), t0 (test)",
        "a1_S_20200601_00000001 (train), t0 (test)",
        "a2_S_20200601_00000002 (val), t1 (test)",
        "a2_S_20200601_00000002 (val), t2 (test)",
    ]


def test_chips_that_only_touch_share_no_ground(tmp_path: Path, write_partition: WritePartition) -> None:
    folders = write_partition([{"west": 0.0}, {"west": 0.5, "split": "test"}])
    assert manifest_of({("here", "S"): folders}, tmp_path / "out")[0]["shared_ground"] == 0


def test_leaks_are_dropped_and_named_in_a_table(tmp_path: Path, write_partition: WritePartition) -> None:
    blocks = np.random.default_rng(5).integers(0, 256, (10, 12, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    hashes = {name: {"phash": digits} for name, digits in (("a", "ab" * 8), ("b", "ab" * 7 + "aa"), ("c", "12" * 8))}
    partition = write_partition([{}, {}, {"object_id": "a0", "split": "test"}, {}, {"split": "val"}])
    rewrite(partition, 1, blocks, 90, hashes["a"])
    rewrite(partition, 3, blocks, 60, hashes["b"])
    other = np.random.default_rng(6).integers(0, 256, (10, 12, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    rewrite(partition, 4, other, 90, hashes["c"])
    benchmark = tmp_path / "photos"
    benchmark.mkdir()
    known = {"item_id": "x.png", "sha256": "0" * 64, "thumbnail": thumbnail(other)} | hashes["c"]
    write_table(benchmark / FINGERPRINTS_FILE, pa.Table.from_pylist([known], FINGERPRINT_SCHEMA))
    out = tmp_path / "out"
    out.mkdir()
    counts = write_manifest({("here", "S"): partition}, out, benchmarks={"photos": benchmark})
    rows = read_table(out / "manifest.parquet", MANIFEST_SCHEMA).to_pylist()
    assert [row["dropped_because"] for row in rows] == [
        "object of another split",
        None,
        None,
        "near-duplicate image",
        "image of benchmark photos",
    ]
    report = read_table(out / LEAKS_FILE, LEAK_SCHEMA).to_pylist()
    ids = [row["chip_id"] for row in rows]
    assert [(row["kind"], row["chip_id"], row["other"]) for row in report] == [
        ("object", ids[0], ids[2]),
        ("near-duplicate", ids[3], ids[1]),
        ("benchmark", ids[4], "photos: x.png"),
    ]
    assert counts["leaks"]["kinds"] == {"benchmark": 1, "near-duplicate": 1, "object": 1}
    assert counts["leaks"]["benchmarks"] == {"photos": 1}
    assert (counts["leaks_left"], counts["eligible"]) == (0, 2)
    assert [row["rank_share"] for row in rows if row["eligible"] and row["split"] == "train"] == [1.0]


def rewrite(folders: PartitionFolders, number: int, pixels: np.ndarray, quality: int, facts: dict[str, str]) -> None:
    """Give a chip another image, in a tar of its own."""
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=quality)
    with TarShard(folders.chips / f"other-{number}.tar") as shard:
        entry = shard.add("x.jpg", data)._asdict()
    rows = read_table(folders.chips / "chips.parquet").to_pylist()
    rows[number] |= entry | facts | {"shard": f"other-{number}.tar"} | {"sha256": hashlib.sha256(data).hexdigest()}
    write_table(folders.chips / "chips.parquet", rows_to_table(rows, CHIP_SCHEMA))


def test_a_benchmark_without_fingerprints_is_named(tmp_path: Path, write_partition: WritePartition) -> None:
    with pytest.raises(UpstreamMissingError, match=r"photos/fingerprints\.parquet"):
        write_manifest({("here", "S"): write_partition([{}])}, tmp_path, benchmarks={"photos": tmp_path / "photos"})
