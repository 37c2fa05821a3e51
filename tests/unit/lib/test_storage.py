import json
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

from skyscript_assets.lib import storage
from skyscript_assets.lib.errors import (
    NoSpaceError,
    OutputBusyError,
    OutputSchemaError,
    StorageError,
    UpstreamMissingError,
)
from skyscript_assets.lib.files import digest, file_stamp
from skyscript_assets.lib.storage import OutputKey, OutputRecord, Store

KEY = OutputKey("image_chips", ("helsinki", "SYN1"))


def make(store: Store, text: str, fingerprint: str = "f", key: OutputKey = KEY) -> OutputRecord:
    with store.writing(key, fingerprint) as out:
        (out / "a.txt").write_text(text, encoding="utf-8")
        return store.complete(key, fingerprint=fingerprint, made_from={"inputs": {"x": "1"}}, counts={"n": 2})


def test_an_output_exists_once_it_is_complete(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.record(KEY) is None
    record = make(store, "one")
    assert store.record(KEY) == record
    assert (store.folder(KEY) / "a.txt").read_text() == "one"
    assert store.keys("image_chips") == [KEY]
    assert record.size_bytes == 3
    assert store.size_bytes() > 3


def test_the_data_version_is_that_of_the_content_alone(tmp_path: Path) -> None:
    first = make(Store(tmp_path / "a"), "one", fingerprint="f")
    second = make(Store(tmp_path / "b"), "one", fingerprint="g")
    third = make(Store(tmp_path / "c"), "two", fingerprint="f")
    assert first.data_version == second.data_version != third.data_version


def test_a_failed_attempt_leaves_the_earlier_output_untouched(tmp_path: Path) -> None:
    store = Store(tmp_path)
    before = make(store, "one")
    with pytest.raises(ValueError, match="broken"), store.writing(KEY, "g") as out:
        (out / "a.txt").write_text("half")
        raise ValueError("broken")
    assert store.record(KEY) == before
    assert (store.folder(KEY) / "a.txt").read_text() == "one"


def test_the_next_attempt_with_the_same_fingerprint_finds_the_finished_parts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="killed"), store.writing(KEY, "f") as out:
        (out / "part-0").write_text("done")
        raise ValueError("killed")
    with store.writing(KEY, "f") as out:
        assert (out / "part-0").read_text() == "done"
    with store.writing(KEY, "another") as out:
        assert list(out.iterdir()) == []


def test_hidden_files_are_no_part_of_an_output(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writing(KEY, "f") as out:
        (out / ".a.tmp").write_text("x")
        (out / "a").write_text("x")
        record = store.complete(KEY, fingerprint="f", made_from={}, counts={})
    assert list(record.files) == ["a"]


def test_two_processes_do_not_write_one_output(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.writing(KEY, "f"), pytest.raises(OutputBusyError, match="image_chips/helsinki/SYN1"):
        with Store(tmp_path).writing(KEY, "f"):
            pass


@pytest.mark.parametrize("kill_at", ["first", "second"])
def test_a_process_killed_while_it_swaps_loses_nothing(tmp_path: Path, kill_at: str) -> None:
    make(Store(tmp_path), "one")
    script = textwrap.dedent(
        f"""
        import os, signal
        from skyscript_assets.lib import storage
        store = storage.Store({str(tmp_path)!r})
        key = storage.OutputKey("image_chips", ("helsinki", "SYN1"))
        real, calls = os.replace, []
        def replace(source, target):
            if "output.json" not in str(target):
                calls.append(target)
                if {kill_at!r} == "second" and len(calls) == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(source, target)
                if {kill_at!r} == "first" and len(calls) == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
            else:
                real(source, target)
        os.replace = replace
        with store.writing(key, "g") as out:
            (out / "a.txt").write_text("two")
            store.complete(key, fingerprint="g", made_from={{}}, counts={{}})
        """
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    store = Store(tmp_path)
    record = store.record(KEY)
    assert record is not None
    assert record.fingerprint == "g"
    assert (store.folder(KEY) / "a.txt").read_text() == "two"


def test_a_missing_output_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UpstreamMissingError, match="skyscript run image_chips/helsinki/SYN1"):
        Store(tmp_path).folder(KEY)


def test_a_full_disk_is_one_clear_message(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(NoSpaceError, match="no space is left"), store.writing(KEY, "f"):
        with Path("/dev/full").open("w", buffering=1) as file:
            file.write("x\n")


def test_a_nearly_full_disk_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MIN_FREE_BYTES", 1 << 62)
    with pytest.raises(NoSpaceError, match="MB are needed"), Store(tmp_path).writing(KEY, "f"):
        pass


def test_other_errors_of_the_system_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Store(tmp_path).writing(KEY, "f") as out:
        (out / "nothing").read_text()


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 1}', '{"schema_version": "x"}'])
def test_a_broken_record_is_named(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    make(store, "one")
    (store.folder(KEY) / "output.json").write_text(text)
    with pytest.raises(OutputSchemaError, match="output.json is not a record"):
        store.record(KEY)


def test_a_later_layout_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, "one")
    path = store.folder(KEY) / "output.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    with pytest.raises(OutputSchemaError, match="layout 99"):
        store.record(KEY)


def test_a_data_folder_that_cannot_be_written_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = Store(tmp_path / "file" / "data")
    assert store.record(KEY) is None
    with pytest.raises(StorageError, match="cannot be written .* SKYSCRIPT_DATA"):
        make(store, "one")


def test_a_remote_root_needs_a_scratch_folder() -> None:
    with pytest.raises(StorageError, match="scratch"):
        Store("memory://bucket")


def test_a_remote_root_is_written_and_read_through_the_scratch_folder(tmp_path: Path) -> None:
    root = f"memory://{uuid.uuid4().hex}"
    record = make(Store(root, tmp_path / "one"), "remote")
    make(Store(root, tmp_path / "one"), "remote again", fingerprint="g")
    reader = Store(root, tmp_path / "two")
    assert reader.keys("image_chips") == [KEY]
    found = reader.record(KEY)
    assert found is not None
    assert found.data_version != record.data_version
    assert (reader.folder(KEY) / "a.txt").read_text() == "remote again"
    (reader.folder(KEY) / "a.txt").write_text("kept: the local copy is current")
    assert "kept" in (reader.folder(KEY) / "a.txt").read_text()


def test_keys_of_an_asset_that_was_never_made_are_none(tmp_path: Path) -> None:
    assert Store(tmp_path).keys("captions") == []


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_a_stamp_tells_that_a_file_changed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert file_stamp(path)["size"] is None
    path.write_text("x")
    before = file_stamp(path)
    os.utime(path, ns=(1, 1))
    assert file_stamp(path) != before


def test_caches_are_folders_of_the_store(tmp_path: Path) -> None:
    assert Store(tmp_path).cache("features").is_dir()
