"""Pairs of a data folder: every pass in another order, shared out, resumed, and never a wrong image."""

import copy
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from torch.utils.data import DataLoader

from skyscript_assets.lib.errors import (
    CorruptInputError,
    SettingsError,
    StorageError,
    TooLittleDataError,
    UpstreamMissingError,
)
from skyscript_assets.lib.pairs.manifest import write_manifest
from skyscript_assets.lib.pairs.reader import Pair, Pairs
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.storage import OutputKey, Store
from tests.partitions import jpeg

WritePartition = Callable[..., PartitionFolders]
Folders = dict[tuple[str, str], PartitionFolders]


def keep(store: Store, key: OutputKey, folder: Path, fingerprint: str = "made") -> None:
    with store.writing(key, fingerprint) as out:
        shutil.copytree(folder, out, dirs_exist_ok=True)
        store.complete(key, fingerprint=fingerprint, made_from={}, counts={})


def fill(store: Store, partitions: Folders, work: Path) -> None:
    """The outputs that a reader looks at."""
    work.mkdir()
    write_manifest(partitions, work)
    keep(store, OutputKey("training_manifest"), work)
    for pair, folders in partitions.items():
        stages = {"chip_plan": folders.plan, "image_chips": folders.chips, "captions": folders.captions}
        for asset, folder in stages.items():
            keep(store, OutputKey(asset, pair), folder)


@pytest.fixture
def partitions(write_partition: WritePartition) -> Folders:
    facts: list[dict[str, Any]] = [{} for _ in range(20)]
    facts[3] = {"gsd_m": 0.2, "center_tags": {"building": "house;yes", "roof": "flat"}}
    facts[4] = {"split": "test"}
    facts[5] = {"scored": False}
    names = [{"chip_id": f"t{n}", "object_id": f"w{n}", "image": 100 + n} for n in range(6)]
    other = [{**name, "split": "val" if n == 0 else "train"} for n, name in enumerate(names)]
    return {("here", "S"): write_partition(facts), ("here", "T"): write_partition(other, source="T")}


@pytest.fixture
def data(tmp_path: Path, partitions: Folders) -> Path:
    """A data folder: 18 + 5 pairs to train on, 1 of test, 1 of val, and 1 without score."""
    fill(Store(tmp_path / "data"), partitions, tmp_path / "work")
    return tmp_path / "data"


def name_of(pair: Pair) -> str:
    return pair.chip_id


def names(data: Path, *args: Any, **wanted: Any) -> list[str]:
    return list(Pairs(data, *args, transform=name_of, **wanted))


def shard_of(data: Path) -> Path:
    return data / "image_chips/here/S/part-00000.tar"


def test_pairs_are_images_with_what_is_said_of_them(data: Path) -> None:
    found = {pair.chip_id: pair for pair in Pairs(data, ("train", "val"), style="natural_long", prefix="a photo: ")}
    pair = found["a7_S_20200601_00000007"]
    assert np.array_equal(pair.image, simplejpeg.decode_jpeg(jpeg(7)))
    assert pair[1:] == ("a photo: Building number 7.", "a7_S_20200601_00000007", "train", [10, 20, 60, 70])
    assert found["t0"].split == "val"


def test_every_pass_has_an_order_of_its_own_and_equal_seeds_have_equal_ones(data: Path) -> None:
    pairs = Pairs(data, transform=name_of)
    passes = [list(pairs) for _ in range(3)]
    assert len(pairs) == len(passes[0]) == 23
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(passes[2])
    assert passes[0] != passes[1] != passes[2] != passes[0]
    # The order belongs to the seed, on any machine and for good: states of a year ago go on.
    assert [name.partition("_")[0] for name in passes[0][:6]] == ["a13", "a3", "t3", "a15", "a2", "t4"]
    again = Pairs(data, transform=name_of, threads=5)
    again.set_epoch(1)
    assert list(again) == passes[1]
    assert names(data, seed=1) != passes[0]


@pytest.mark.parametrize(("ranks", "workers"), [(3, 0), (1, 2), (2, 3)])
def test_ranks_and_workers_share_out_a_pass(data: Path, ranks: int, workers: int) -> None:
    whole = Pairs(data, transform=name_of)
    whole.set_epoch(4)
    order = list(whole)
    for rank in range(ranks):
        pairs = Pairs(data, rank=rank, ranks=ranks, transform=name_of, threads=1)
        pairs.set_epoch(4)
        given = list(DataLoader(pairs, batch_size=None, num_workers=workers))  # type: ignore[arg-type]
        assert given == order[rank::ranks]
        assert len(pairs) == len(given)


def test_workers_that_know_of_no_pass_are_refused(data: Path) -> None:
    with pytest.raises(SettingsError, match="call set_epoch"):
        list(DataLoader(Pairs(data), batch_size=None, num_workers=1))  # type: ignore[arg-type]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_pass_gives_exactly_the_rest(data: Path, ranks: int) -> None:
    def readers() -> list[Pairs]:
        return [Pairs(data, transform=name_of, threads=1, rank=rank, ranks=ranks) for rank in range(ranks)]

    for pairs, others in zip(readers(), readers(), strict=True):
        whole = list(pairs)
        for taken in range(len(whole) + 1):
            others.set_epoch(0)
            assert list(itertools.islice(others, taken)) == whole[:taken]
            state = json.loads(json.dumps(others.state_dict()))
            assert state["position"] == taken * ranks
            (later,) = (one for one in readers() if one._rank == others._rank)
            later.load_state_dict(state)
            assert list(later) == whole[taken:]
            assert list(later) == list(pairs), "then comes the next pass"
            pairs.set_epoch(1)


def test_ranks_may_be_others_after_a_state(data: Path) -> None:
    first = [Pairs(data, transform=name_of, rank=rank, ranks=2) for rank in range(2)]
    taken = [name for pairs in first for name in itertools.islice(pairs, 4)]
    rest = Pairs(data, transform=name_of)
    rest.load_state_dict(first[0].state_dict())
    assert sorted([*taken, *rest]) == sorted(names(data))
    rest.load_state_dict({**first[0].state_dict(), "position": 9})
    left = list(rest)
    later = [Pairs(data, transform=name_of, rank=rank, ranks=2) for rank in range(2)]
    for pairs in later:
        pairs.load_state_dict({**rest.state_dict(), "epoch": 0, "position": 9})
    assert [next(iter(pairs)) for pairs in later] == left[:2]
    assert {pairs.position for pairs in later} == {11}
    with pytest.raises(SettingsError, match="another manifest, selection or seed"):
        Pairs(data, "val").load_state_dict(first[0].state_dict())


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"share": 0.5}, 9 + 2),
        ({"sources": ("T",)}, 5),
        ({"regions": ("there", "here"), "sources": ("S",)}, 18),
        ({"max_gsd_m": 0.3}, 1),
        ({"tags": (("building", "house"),)}, 1),
        ({"tags": (("building", "yes"),), "sources": ("S",)}, 18),
        ({"splits": ("test", "val")}, 2),
    ],
)
def test_a_selection_is_that_of_the_export(data: Path, wanted: dict[str, Any], count: int) -> None:
    assert len(names(data, **wanted)) == count


def test_numbers_and_states_that_there_are_not_are_told(data: Path) -> None:
    with pytest.raises(SettingsError, match="seeds count from 0"):
        Pairs(data, seed=-1)
    with pytest.raises(SettingsError, match="passes count from 0"):
        Pairs(data).set_epoch(-1)
    for state in ({}, {"of": Pairs(data).state_dict()["of"]}):
        with pytest.raises(SettingsError, match="begin with set_epoch"):
            Pairs(data).load_state_dict(state)


def test_the_columns_are_mapped_once_and_shared(data: Path) -> None:
    first = Pairs(data, transform=name_of)
    (mapped,) = (data / ".cache/pairs").iterdir()
    made = mapped.stat().st_mtime_ns
    # A worker that is not forked gets such a copy, without what is open.
    copied = copy.deepcopy(first)
    assert "_opened" not in vars(copied)
    assert list(copied) == list(first)
    assert len(list(copy.deepcopy(Pairs(data)))) == 23
    assert mapped.stat().st_mtime_ns == made
    mapped.write_bytes(mapped.read_bytes()[:100])
    with pytest.raises(StorageError, match="remove it"):
        Pairs(data)
    assert len(Pairs(data, scratch=data.parent / "elsewhere")) == 23
    (data.parent / "file").touch()
    with pytest.raises(StorageError, match="name a folder by scratch="):
        Pairs(data, scratch=data.parent / "file")


def test_an_altered_byte_anywhere_in_an_image_is_told(data: Path, partitions: Folders) -> None:
    shard = shard_of(data)
    whole = shard.read_bytes()
    start = whole.index(jpeg(7))
    for at in (start, start + 2, start + 300, start + len(jpeg(7)) - 1):
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(
            CorruptInputError, match=r"here/S/part-00000\.tar: the image of a7_S.* materialize image_ch"
        ):
            list(Pairs(data))


def test_a_shard_cut_at_any_byte_is_told(data: Path) -> None:
    shard = shard_of(data)
    whole = shard.read_bytes()
    end = whole.index(jpeg(19)) + len(jpeg(19))
    for size in (0, 1, 600, end // 2, end - 1):
        shard.write_bytes(whole[:size])
        with pytest.raises(
            CorruptInputError, match=r"here/S/part-00000\.tar is truncated: .*the image of a\d+_S.* mater"
        ):
            list(Pairs(data))
    shard.write_bytes(whole[:end])
    assert len(list(Pairs(data))) == 23
    shard.unlink()
    with pytest.raises(UpstreamMissingError, match=r"part-00000\.tar does not exist, which holds the image of a\d+_S"):
        list(Pairs(data))


def test_chips_made_again_since_the_manifest_are_told(data: Path, write_partition: WritePartition) -> None:
    keep(Store(data), OutputKey("image_chips", ("here", "T")), write_partition([{}], region="x").chips, "again")
    with pytest.raises(CorruptInputError, match=r"here/T/part-00000\.tar.*image of t\d.*training_manifest again"):
        list(Pairs(data))


def test_what_is_not_there_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(UpstreamMissingError, match="skyscript run training_manifest"):
        Pairs(tmp_path / "empty")
    with pytest.raises(TooLittleDataError, match="no pair is wanted"):
        Pairs(data, sources=("Z",))
    Store(data).remove(OutputKey("image_chips", ("here", "T")))
    with pytest.raises(UpstreamMissingError, match="skyscript run image_chips/here/T"):
        list(Pairs(data))


def test_reading_imports_neither_dagster_nor_torch() -> None:
    code = "import sys, skyscript_assets.read; print({'dagster', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(("rank", "ranks"), [(2, 2), (-1, 2), (0, 0), (1, None), (None, 4)])
def test_a_rank_that_there_is_not_is_refused(data: Path, rank: int | None, ranks: int | None) -> None:
    with pytest.raises(SettingsError, match=f"rank {rank} of {ranks}"):
        Pairs(data, rank=rank, ranks=ranks)


@pytest.mark.parametrize(
    "wanted",
    [
        {"share": float("nan")},
        {"share": 30},
        {"style": "nobody"},
        {"regions": "here"},
        {"tags": ["building=yes"]},
        {"tags": ("building", "yes")},
    ],
)
def test_what_cannot_be_wanted_is_refused(data: Path, wanted: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="pairs are chosen by"):
        Pairs(data, **wanted)


def test_no_split_is_no_pair_and_scratch_may_be_a_text(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TooLittleDataError, match="no pair is wanted"):
        Pairs(data, (), scratch=str(tmp_path / "scratch"))
    assert list((tmp_path / "scratch").glob("*.arrow"))
