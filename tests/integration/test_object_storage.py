"""An object store as a process: writers on two hosts, faults on the way, kills at every request."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faulty_server import BUCKET, CREDENTIALS, Faults, before, object_store
from skyscript_assets.lib.errors import CorruptInputError, SkyScriptError, StorageError
from skyscript_assets.lib.pairs.reader import Pairs
from skyscript_assets.lib.storage import Heads, OutputKey, Store
from skyscript_assets.lib.storage.garbage import left_over, remove
from skyscript_assets.provenance import Outputs, State
from tests.partitions import write_partition
from tests.unit.lib.pairs.test_reader import fill
from tests.unit.test_provenance import STAGES, chips, everything, extract, settings

__all__ = ["settings", "write_partition"]
pytestmark = pytest.mark.integration
KEY = OutputKey("image_chips", ("helsinki", "SYN1"))
ROOT = f"s3://{BUCKET}/data"

WRITER = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from skyscript_assets.lib.storage import OutputKey, Store
    from skyscript_assets.lib.storage.remote import ObjectStore
    scratch, times, requests, name = sys.argv[1:]
    key, left, ask = OutputKey("image_chips", ("helsinki", "SYN1")), [int(requests)], ObjectStore._ask

    def asking(self, path, request):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return ask(self, path, request)

    ObjectStore._ask = asking
    store = Store("s3://plant/data", Path(scratch))
    for number in range(int(times)):
        with store.writing(key, f"{name}{number}") as out:
            for file in ("a", "b"):
                (out / file).write_text(f"{name}{number}")
            store.complete(key, fingerprint=f"{name}{number}", made_from={}, counts={})
        mine = [pointer for pointer, _ in store.pointers(str(key))[key] if f".{name}{number}." in pointer]
        assert mine, "lost"
    """
)


def writing(scratch: Path, times: int, name: str, requests: int = -1) -> "subprocess.Popen[bytes]":
    """A process that replaces the output so many times, and is killed before it asks once more than so often."""
    return subprocess.Popen([sys.executable, "-c", WRITER, str(scratch), str(times), str(requests), name])


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    pytest.importorskip("moto.server")
    with object_store() as port:
        yield port


@pytest.fixture
def port(server: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The server, with all that was in the bucket gone."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server}")
    remote = Store(ROOT, Path("/nowhere")).remote
    assert remote is not None
    if found := [item["path"] for item in remote.below("")]:
        remote.delete(found)
    return server


def test_two_hosts_replace_one_output_while_others_read_it(port: int, tmp_path: Path) -> None:
    assert writing(tmp_path / "first", 1, "first").wait() == 0
    writers = [writing(tmp_path / name, 8, name) for name in ("a", "b")]
    reader, last = Store(ROOT, tmp_path / "reader"), ""
    assert reader.remote is not None
    while any(writer.poll() is None for writer in writers):
        folder = reader.folder(KEY, verify=True)
        assert (folder / "a").read_text() == (folder / "b").read_text()
        about = json.loads(reader.remote.read(f"{KEY}/output.json"))
        place = about["folder"].removeprefix("../../../")
        assert reader.remote.read(f"{place}/a") == reader.remote.read(f"{place}/b")
        now = reader.pointers(str(KEY))[KEY][-1][0]
        assert now >= last
        last = now
    assert [writer.returncode for writer in writers] == [0, 0]
    head, stable = reader.head(KEY), json.loads(reader.remote.read(f"{KEY}/output.json"))
    assert head is not None
    assert head.fingerprint == stable["fingerprint"]
    assert len(reader.pointers()[KEY]) == 17


def test_a_writer_killed_before_any_request_leaves_the_earlier_output(port: int, tmp_path: Path) -> None:
    for requests in range(20):
        assert writing(tmp_path / f"before{requests}", 1, "before").wait() == 0
        code = writing(tmp_path / str(requests), 1, "new", requests).wait()
        folder = Store(ROOT, tmp_path / "reader").folder(KEY, verify=True)
        assert (folder / "a").read_text() == (folder / "b").read_text()
        assert (folder / "a").read_text() in ("before0", "new0")
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if (folder / "a").read_text() == "before0":
            assert Store(ROOT, tmp_path / str(requests)).finish(KEY, "new0") is not None, "it is not made again"
        assert (Store(ROOT, tmp_path / "reader").folder(KEY) / "a").read_text() == "new0"
    assert requests > 5
    for left in left_over(Store(ROOT, tmp_path / "reader"), older_than_s=-60):
        remove(Store(ROOT, tmp_path / "reader"), left)
    assert (Store(ROOT, tmp_path / "another").folder(KEY, verify=True) / "a").read_text() == "new0"


def test_refusals_and_cut_connections_are_survived(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults(port, latency_s=0.01, refused=0.1, dropped=0.15)
    with before(faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy}")
        store, reader = Store(ROOT, tmp_path / "one"), Store(ROOT, tmp_path / "two")
        for number in range(6):
            key, content = OutputKey("captions", (f"r{number}",)), os.urandom(300_000)
            with store.writing(key, "f") as out:
                (out / "a").write_bytes(content)
                record = store.complete(key, fingerprint="f", made_from={}, counts={})
            assert reader.record(key) == record
            assert (reader.folder(key, verify=True) / "a").read_bytes() == content
            assert len(store.pointers(str(key))[key]) == 1, "an answer that was lost is no second replacement"
    assert faults.seen["503"] > 2
    assert sum(count for kind, count in faults.seen.items() if kind.startswith("dropped")) > 2


def test_a_whole_profile_in_the_store(port: int, tmp_path: Path, settings, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(ROOT, tmp_path / "one")
    everything(settings, store)
    faults = Faults(port)
    with before(faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy}")
        outputs = Outputs(STAGES, settings, Store(ROOT, tmp_path / "two"))
        for stage, partition in ((extract, ("kotka",)), (chips, ("kotka", "SYN1")), (extract, ("helsinki",))):
            assert outputs.state(stage, partition) is State.CURRENT
        assert outputs.heads.names("snapshot") == [OutputKey("snapshot", ("snap-1",))]
        assert sum(count for kind, count in faults.seen.items() if kind != "good") == 1, "one listing for all"
        assert outputs.materialize(extract, ("kotka",)).reused
        assert outputs.heads == Heads(store)


def test_a_bucket_that_does_not_exist(port: int, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="s3://no-bucket/.* may not be used .*404"):
        Store("s3://no-bucket/data", tmp_path).head(KEY)


def test_pairs_are_read_by_ranges_in_the_order_of_a_folder(
    port: int, tmp_path: Path, write_partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    partitions = {("here", "S"): write_partition([{"gsd_m": 0.2 + number / 100} for number in range(30)])}
    fill(Store(tmp_path / "data"), partitions, tmp_path / "one")
    fill(Store(ROOT, tmp_path / "writer"), partitions, tmp_path / "two")
    faults = Faults(port, latency_s=0.01, refused=0.1, dropped=0.05)
    with before(faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy}")
        local, remote = Pairs(tmp_path / "data"), Pairs(ROOT, scratch=tmp_path / "reader")
        for _ in range(2):
            for one, other in zip(local, remote, strict=True):
                assert np.array_equal(one.image, other.image)
                assert one[1:] == other[1:]
        assert len(Pairs(ROOT, scratch=tmp_path / "reader", max_gsd_m=0.295)) == 10
    assert faults.seen["503"] > 2
    assert not list((tmp_path / "reader").rglob("part-*.tar")), "no shard is copied"


def test_a_shard_in_the_store_that_is_cut_or_another_one_is_told(port: int, tmp_path: Path, write_partition) -> None:
    fill(Store(ROOT, tmp_path / "writer"), {("here", "S"): write_partition([{}, {}, {}])}, tmp_path / "work")
    pairs = Pairs(ROOT, scratch=tmp_path / "reader")
    remote = Store(ROOT, tmp_path / "reader").remote
    assert remote is not None
    (place,) = (item["path"] for item in remote.below(".versions/image_chips") if item["path"].endswith(".tar"))
    data = remote.read(place)
    for size in (0, 400, len(data) // 2):
        remote.put(place, data[:size])
        with pytest.raises(SkyScriptError, match=r"here/S/part-00000\.tar.*the image of a\d.*image_chips"):
            list(pairs)
    remote.put(place, data[:2000] + bytes([data[2000] ^ 1]) + data[2001:])
    with pytest.raises(CorruptInputError, match=r"here/S/part-00000\.tar: the image of a0.* not the one"):
        list(pairs)
    remote.delete([place])
    with pytest.raises(StorageError, match=r"here/S/part-00000\.tar: the image of a\d.*does not exist"):
        list(pairs)
