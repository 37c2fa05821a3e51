"""The ledger and `skyscript retry`, through Dagster: a torn image is mended, and only what had failed is read again."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from skyscript_assets import backfill
from skyscript_assets.cli import main
from skyscript_assets.lib.errors import SkyScriptError
from skyscript_assets.lib.imagery.scenes import write_scenes
from skyscript_assets.lib.storage import OutputKey
from tests.workshop import Workshop, ortho_files, write_profile

pytestmark = pytest.mark.integration
PARTITION = ("kotka", "ORTHO")
NAME = "image_chips/kotka/ORTHO"


class Bench(Workshop):
    """A profile with one source of one file, whose scene table and plan are put into the store as they are."""

    def chips(self) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / "chips.parquet").to_pylist()

    def failures(self) -> list[dict[str, Any]]:
        return pq.read_table(self.folder / "failures.parquet").to_pylist()

    @property
    def folder(self) -> Path:
        return self.store.folder(OutputKey("image_chips", PARTITION))

    def run(self, *, retry: bool = False) -> backfill.StepResult:
        step = backfill.step_named(NAME, self.settings)
        (result,) = backfill.run_all(self.defs, self.settings, self.store, self.instance, steps=[step], retry=retry)
        return result


@pytest.fixture
def bench(
    tmp_path: Path,
    demo_packages: None,
    write_raster: Callable,
    scene_of: Callable,
    textured: Callable,
    write_chip_plan: Callable,
) -> Iterator[Bench]:
    path = write_raster(tmp_path / "ortho.tif", textured(800, 800), compress="deflate")
    write_profile(tmp_path / "profile", ortho_files(path))
    scene = scene_of(path, region="kotka", source="ORTHO")
    windows = [(scene, 60 * (number % 12), 60 * (number // 12), 64, 64) for number in range(144)]
    with dg.DagsterInstance.ephemeral() as instance:
        bench = Bench(tmp_path / "profile", tmp_path / "data", instance)
        bench.put("scene_index", PARTITION, lambda out: write_scenes(out, [scene]))
        bench.put("chip_plan", PARTITION, lambda out: write_chip_plan(out, windows))
        yield bench


def tear(bench: Bench) -> bytes:
    """Zero some blocks in the middle of the image, so that both ends stay; returns what it was."""
    path = bench.profile.parent / "ortho.tif"
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(30_000) + whole[middle + 30_000 :])
    return whole


def test_only_what_failed_is_cut_again_and_the_rest_keeps_its_bytes(bench: Bench) -> None:
    whole = tear(bench)
    assert bench.run().error is None
    before = {path.name: path.read_bytes() for path in bench.folder.glob("part-*.tar")}
    failed = bench.failures()
    first = bench.store.record(OutputKey("image_chips", PARTITION))
    assert first is not None
    assert 0 < len(failed) == first.counts["failed"] < 36
    assert {row["reason"] for row in failed} == {"unreadable"}
    assert (bench.folder / "rejected.jpg").stat().st_size > 0
    # Nothing is mended: the same fail again, and nothing downstream becomes stale by it.
    assert bench.run(retry=True).error is None
    again = bench.store.record(OutputKey("image_chips", PARTITION))
    assert again is not None
    assert again.data_version == first.data_version
    assert {row["attempts"] for row in bench.failures()} == {2}
    (bench.profile.parent / "ortho.tif").write_bytes(whole)
    (step,) = backfill.retry_steps([], bench.settings, bench.store)
    assert (step.only, step.partition) == ("image_chips", PARTITION)
    result = bench.run(retry=True)
    assert (result.ran, result.error) == (True, None)
    assert bench.failures() == []
    record = bench.store.record(OutputKey("image_chips", PARTITION))
    assert record is not None
    assert record.counts["recovered"] == len(failed)
    assert {path.name: path.read_bytes() for path in bench.folder.glob("part-*.tar") if path.name in before} == before
    ids = {row["chip_id"] for row in failed}
    shards = {row["shard"] for row in bench.chips() if row["chip_id"] in ids}
    assert shards == {f"part-{len(before):05d}.tar"}
    assert [row["chip_id"] for row in bench.chips()] == [
        row["chip_id"]
        for row in pq.read_table(bench.store.folder(OutputKey("chip_plan", PARTITION)) / "plan.parquet").to_pylist()
    ]
    # A current output of which nothing failed is left alone.
    stamp = (bench.folder / "chips.parquet").stat().st_mtime_ns
    assert bench.run(retry=True).error is None
    assert (bench.folder / "chips.parquet").stat().st_mtime_ns == stamp
    assert backfill.retry_steps([NAME], bench.settings, bench.store) == []


def test_both_sheets_and_the_ledger_are_in_the_preview(bench: Bench) -> None:
    tear(bench)
    bench.run()
    records = bench.instance.fetch_materializations(dg.AssetKey("image_chips"), limit=1).records
    metadata = records[0].asset_materialization.metadata  # type: ignore[union-attr]
    assert {"contact sheet", "rejected chips", "failures", "failed", "copied"} <= set(metadata)
    assert "unreadable" in str(metadata["failures"])


def test_the_command_requests_a_run_and_says_when_there_is_nothing_to_do(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYSCRIPT_SETTINGS", str(bench.profile))
    monkeypatch.setenv("SKYSCRIPT_DATA", str(bench.data))
    monkeypatch.setenv("DAGSTER_HOME", str(bench.profile.parent / ".dagster"))
    early = CliRunner().invoke(main, ["retry", NAME])
    assert early.exit_code == 1
    whole = tear(bench)
    bench.run()
    count = len(bench.failures())
    (bench.profile.parent / "ortho.tif").write_bytes(whole)
    done = CliRunner().invoke(main, ["retry", NAME])
    assert done.exit_code == 0, done.output
    assert bench.failures() == []
    with dg.DagsterInstance.from_config(str(bench.profile.parent / ".dagster")) as instance:
        (record,) = instance.get_runs()
        assert record.run_config["ops"]["image_chips"]["config"] == {"force": False, "retry": True}
        found = instance.fetch_materializations(dg.AssetKey("image_chips"), limit=1).records
        assert json.loads(str(found[0].asset_materialization.metadata["recovered"].value)) == count  # type: ignore[union-attr]
    nothing = CliRunner().invoke(main, ["retry"])
    assert "nothing to try again" in nothing.output


def test_names_that_are_no_output_are_refused(bench: Bench) -> None:
    for name, said in (("no_asset", "no asset"), (NAME, "has not been materialized")):
        with pytest.raises(SkyScriptError, match=said):
            backfill.retry_steps([name], bench.settings, bench.store)
