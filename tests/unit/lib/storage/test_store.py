import dataclasses
import errno
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from skyscript_assets.lib.errors import (
    DigestMismatchError,
    NoSpaceError,
    OutputBusyError,
    OutputSchemaError,
    StorageError,
    UpstreamMissingError,
)
from skyscript_assets.lib.files import digest, file_stamp
from skyscript_assets.lib.storage import Head, Heads, OutputKey, OutputRecord, Store
from skyscript_assets.lib.storage.store import _verified as verified_here

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
    assert Heads(store).names("image_chips") == [KEY]
    assert Heads(store)[KEY] == Head.of(record.version)
    assert record.size_bytes == 3
    assert store.size_bytes() > 3


def test_an_output_that_is_being_written_is_not_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, "one")
    with store.writing(KEY, "g"), pytest.raises(OutputBusyError, match="being written"):
        store.remove(KEY)
    assert store.record(KEY) is not None
    store.remove(KEY)
    store.remove(KEY)
    assert store.record(KEY) is None


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


STEPS = ("open", "os.mkdir", "os.rename", "os.symlink", "os.remove", "os.rmdir", "os.utime", "shutil.rmtree")
"""Events of Python's audit hooks that change files."""


def complete_until(store: Store, step: int) -> bool:
    """Replace the output in a child that is killed before so many changes of files; whether it was done before that."""
    child = os.fork()
    if child == 0:
        left = [step]

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in STEPS and (event != "open" or arguments[1] not in ("r", "rb", None)):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            with store.writing(KEY, "g") as out:
                (out / "a.txt").write_text("two")
                sys.addaudithook(hook)
                store.complete(KEY, fingerprint="g", made_from={}, counts={})
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_killed_at_any_step_loses_nothing(tmp_path: Path) -> None:
    for step in range(100):
        store = Store(tmp_path / str(step))
        make(store, "one")
        done = complete_until(store, step)
        head = store.head(KEY)
        assert head is not None
        assert (store.folder(KEY, verify=True) / "a.txt").read_text() == {"f": "one", "g": "two"}[head.fingerprint]
        if head.fingerprint == "f":
            again = store.finish(KEY, "g") or make(store, "two", "g")
            assert store.record(KEY) == again
        assert (store.folder(KEY) / "a.txt").read_text() == "two"
        assert [path for path in (store.local / ".staging").iterdir() if path.is_dir()] == []
        if done:
            break
    assert 8 < step < 50


def test_what_was_complete_and_not_yet_named_is_not_made_again(tmp_path: Path) -> None:
    finished = 0
    for step in range(50):
        store = Store(tmp_path / str(step))
        if complete_until(store, step):
            break
        if store.head(KEY) is None:
            assert store.finish(KEY, "another") is None
            finished += store.finish(KEY, "g") is not None
            assert store.finish(KEY, "g") is None
    assert finished >= 2


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
    monkeypatch.setattr("skyscript_assets.lib.storage.store.MIN_FREE_BYTES", 1 << 62)
    with pytest.raises(NoSpaceError, match="MB are needed"), Store(tmp_path).writing(KEY, "f"):
        pass


def test_other_errors_of_the_system_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Store(tmp_path).writing(KEY, "f") as out:
        (out / "nothing").read_text()


@pytest.mark.parametrize("text", ["{", "", '{"schema_version": 3}', None])
def test_a_broken_record_is_named_and_made_again(tmp_path: Path, text: str | None) -> None:
    store = Store(tmp_path)
    record = make(store, "one")
    broken = store.folder(KEY)
    (broken / "output.json").unlink() if text is None else (broken / "output.json").write_text(text)
    head = store.head(KEY)
    assert head is not None
    assert "image_chips/helsinki/SYN1/output.json is not the record that was written" in str(head.problem)
    with pytest.raises(OutputSchemaError, match="skyscript run image_chips/helsinki/SYN1"):
        store.record(KEY)
    with pytest.raises(OutputSchemaError, match="is not the record"):
        store.folder(KEY)
    assert make(store, "one") == record == store.record(KEY)
    assert store.folder(KEY) != broken
    assert (broken / "a.txt").exists(), "nothing is deleted"


def test_a_later_layout_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = dataclasses.replace(make(store, "one"), schema_version=99)
    later = store.folder(KEY).with_name(record.version)
    store.folder(KEY).rename(later)
    (later / "output.json").write_text(record.text)
    (tmp_path / str(KEY)).unlink()
    (tmp_path / str(KEY)).symlink_to(f"../../.versions/{KEY}/{record.version}")
    with pytest.raises(OutputSchemaError, match="layout 99"):
        store.record(KEY)


def test_a_link_that_leads_elsewhere_is_a_problem_of_that_output(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / KEY.path).parent.mkdir(parents=True)
    (tmp_path / KEY.path).symlink_to("/etc")
    head = store.head(KEY)
    assert head is not None
    assert head.problem == "'etc' is no name of a version that this release knows"
    make(store, "one")
    assert (store.folder(KEY) / "a.txt").read_text() == "one"


def test_a_folder_in_an_output_s_place_is_named_and_stays(tmp_path: Path) -> None:
    store, other = Store(tmp_path), tmp_path / str(KEY)
    other.mkdir(parents=True)
    (other / "mine.txt").write_text("kept")
    assert store.record(KEY) is None
    assert Heads(store).names("image_chips") == []
    with pytest.raises(StorageError, match=re.escape(f"{other} cannot be used (Is a directory)")):
        make(store, "one")
    assert (other / "mine.txt").read_text() == "kept"


def test_the_stable_path_is_a_relative_link_to_a_version(tmp_path: Path) -> None:
    store = Store(tmp_path / "here")
    make(store, "one")
    assert not (store.local / KEY.path).readlink().is_absolute()
    (tmp_path / "here").rename(tmp_path / "there")
    assert (tmp_path / "there" / KEY.path / "a.txt").read_text() == "one"
    assert Store(tmp_path / "there").record(KEY) is not None


def test_a_reader_keeps_its_version_while_the_output_is_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, "one")
    folder = store.folder(KEY)
    make(store, "two", "g")
    assert (folder / "a.txt").read_text() == "one"
    assert (store.folder(KEY) / "a.txt").read_text() == (tmp_path / KEY.path / "a.txt").read_text() == "two"


def test_no_name_of_a_version_is_used_twice(tmp_path: Path) -> None:
    store, names = Store(tmp_path), []
    for text, fingerprint in (("one", "f"), ("two", "g"), ("one", "f")):
        make(store, text, fingerprint)
        names.append(store.folder(KEY).name)
    assert len(set(names)) == len(list(store.versions(KEY).iterdir())) == 3
    assert names[2].startswith(names[0])


def damage(store: Store, text: str) -> Path:
    path = store.folder(KEY) / "a.txt"
    path.write_text(text)
    verified_here.clear()  # as in another process
    return path


@pytest.mark.parametrize(("text", "verify"), [("ONE", True), ("on", False), ("", False)])
def test_a_file_that_is_not_what_was_written_is_named_with_its_remedy(tmp_path: Path, text: str, verify: bool) -> None:
    store = Store(tmp_path)
    make(store, "one")
    damaged = damage(store, text)
    with pytest.raises(DigestMismatchError, match=f"^{damaged} is not .*: skyscript run --force {KEY}$"):
        store.folder(KEY, verify=verify)
    make(store, "one")
    assert (store.folder(KEY, verify=True) / "a.txt").read_text() == "one"


def test_bytes_are_read_only_where_that_is_asked_for_and_once_a_process(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, "one")
    store.folder(KEY, verify=True)
    path = damage(store, "ONE")
    assert store.folder(KEY) == path.parent
    path.write_text("one")
    store.folder(KEY, verify=True)
    path.write_text("ONE")
    store.folder(KEY, verify=True)


@pytest.mark.parametrize("part", ["..", ".", "", "a/b", "/etc", "a\\b", ".hidden", "a\0b"])
def test_a_name_that_would_lead_out_of_the_root_is_refused(tmp_path: Path, part: str) -> None:
    store = Store(tmp_path / "data")
    for key in (OutputKey("image_chips", (part, "S")), OutputKey(part)):
        with pytest.raises(StorageError, match="cannot be a folder's name"):
            make(store, "one", key=key)
        with pytest.raises(StorageError, match="cannot be a folder's name"):
            store.head(key)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_an_output_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    make(store, "one")
    for step in ("write_text", "os.replace", "Path.symlink_to"):
        with monkeypatch.context() as patch:

            def full(*_: object, **__: object) -> None:
                raise OSError(errno.ENOSPC, "no space")

            patch.setattr(f"skyscript_assets.lib.storage.store.{step}", full)
            with pytest.raises(NoSpaceError, match="finished parts are kept"):
                with store.writing(KEY, "g") as out:
                    (out / "a.txt").write_text("two")
                    store.complete(KEY, fingerprint="g", made_from={}, counts={})
        assert (store.folder(KEY) / "a.txt").read_text() == "one"
    assert store.finish(KEY, "g") is not None
    assert (store.folder(KEY) / "a.txt").read_text() == "two"


def test_a_data_folder_that_cannot_be_written_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = Store(tmp_path / "file" / "data")
    assert store.record(KEY) is None
    with pytest.raises(StorageError, match="cannot be written .* SKYSCRIPT_DATA"):
        make(store, "one")


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
