"""Whatever is wrong with what the plant is given ends with one clear message, and earlier outputs stay as they were."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import osmium
import pytest
import yaml
from affine import Affine
from osmium.osm.mutable import Node

from skyscript_assets import asset, backfill
from skyscript_assets.assets import LEVELS, STAGES
from skyscript_assets.lib.errors import SkyScriptError, StorageError
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.storage import store as storage
from skyscript_assets.provenance import Outputs
from tests.workshop import Workshop, demo_files, write_profile

pytestmark = pytest.mark.integration

HERE = {"west": 9.0, "south": 47.4, "east": 9.002, "north": 47.402}
ELSEWHERE = {"west": 10.0, "south": 48.4, "east": 10.002, "north": 48.402}
NOBODY = 65534


class Site:
    """An extract, an image and a profile that names them; every change of the profile makes a new one."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, write_raster: Callable, textured: Callable) -> None:
        self.folder, self.instance = folder, instance
        self.extract, self.image, self.data = folder / "here.osm.pbf", folder / "image.tif", folder / "data"
        write_extract(self.extract, HERE)
        # The fixture's upper left corner is at 9 degrees east and 47.403 north, its pixels are half a metre wide.
        self.raster = {"path": self.image, "values": textured(700, 700)}
        self.write_raster = write_raster
        write_raster(**self.raster)
        self.profiles = 0

    def workshop(
        self, region: dict[str, Any] | None = None, source: dict[str, Any] | None = None, **plant: Any
    ) -> Workshop:
        files = demo_files()
        files["plant"].update(plant)
        files["regions"] = {"regions": {"here": {"title": "Here", "path": str(self.extract)} | (region or {})}}
        own = {"kind": "files", "title": "Own", "licence": "CC0-1.0", "attribution": "A surveyor", "gsd_m": 0.5}
        own |= {"paths": [str(self.image)], "datetime": "2020-06-01"}
        files["sources"]["sources"]["OWN"] = own | (source or {})
        self.profiles += 1
        profile = write_profile(self.folder / f"profile-{self.profiles}", files)
        return Workshop(profile, self.data, self.instance)

    def run(self, workshop: Workshop, *outputs: str) -> list[backfill.StepResult]:
        steps = [backfill.step_named(name, workshop.settings) for name in outputs]
        return list(backfill.run_all(workshop.defs, workshop.settings, workshop.store, self.instance, steps=steps))

    def make(self, workshop: Workshop, *outputs: str) -> None:
        assert [r.error for r in self.run(workshop, *outputs)] == [None] * len(outputs)

    def message(self, workshop: Workshop, output: str) -> str:
        """Run an output that must fail: its one message, once it is seen that nothing else has changed."""
        before = contents(self.data)
        (result,) = self.run(workshop, output)
        return self.only_message(result, output, before)

    def only_message(self, result: backfill.StepResult, output: str, before: dict[str, str]) -> str:
        asset = output.split("/")[0]
        (record,) = self.instance.get_run_records(limit=1)
        assert record.dagster_run.status is dg.DagsterRunStatus.FAILURE
        events = [entry.dagster_event for entry in self.instance.all_logs(record.dagster_run.run_id)]
        failures = [e for e in events if e is not None and e.is_step_failure]
        assert [failure.step_key for failure in failures] == [asset]
        assert not [e for e in events if e is not None and e.is_step_up_for_retry], "what is wrong stays wrong"
        reason = failures[0].step_failure_data.user_failure_data
        assert reason is not None, result.error
        assert result.error == f"{asset}: {reason.description}"
        assert "Traceback" not in reason.description
        assert contents(self.data) == before
        return str(reason.description)


@pytest.fixture
def site(tmp_path: Path, instance: dg.DagsterInstance, write_raster: Callable, textured: Callable) -> Site:
    return Site(tmp_path, instance, write_raster, textured)


def write_extract(path: Path, box: dict[str, float] | None, *, trees: int = 50) -> None:
    """Some trees in a row, in the ground `HERE`, and a header that names a box or none."""
    header = osmium.io.Header()
    if box is not None:
        header.add_box(osmium.osm.Box(box["west"], box["south"], box["east"], box["north"]))
    path.unlink(missing_ok=True)
    with osmium.SimpleWriter(str(path), header=header) as writer:
        for number in range(1, 51):
            place = (HERE["west"] + number * 3e-5, HERE["south"] + number * 3e-5)
            tags = {"natural": "tree"} if number <= trees else {}
            writer.add_node(Node(id=number, location=place, tags=tags, version=1))


def contents(data: Path) -> dict[str, str]:
    """SHA-256 of every file of every output; what is being made and caches are none."""
    files = [Path(folder, name) for folder, _, names in os.walk(data, followlinks=True) for name in names]
    named = {path.relative_to(data).as_posix(): path for path in sorted(files)}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in named.items() if not name.startswith(".")
    }


# ------------------------------------------------------------------------------------------------------------- extracts


@pytest.fixture
def extracted(site: Site) -> Site:
    """The extract and its objects have been made, and the scenes of the image."""
    site.make(site.workshop(), "osm_extract/here", "osm_objects/here", "scene_index/here/OWN")
    assert len(contents(site.data)) == 8
    return site


def test_a_missing_extract(extracted: Site) -> None:
    extracted.extract.rename(extracted.folder / "away")
    message = extracted.message(extracted.workshop(), "osm_extract/here")
    assert message == (
        f"region here: {extracted.extract} does not exist or is not a file; correct regions.here.path in regions.yaml"
    )


def test_an_extract_that_is_there_again_needs_no_run(extracted: Site) -> None:
    extracted.extract.rename(extracted.folder / "away")
    extracted.message(extracted.workshop(), "osm_extract/here")
    (extracted.folder / "away").rename(extracted.extract)
    (result,) = extracted.run(extracted.workshop(), "osm_extract/here")
    assert not result.ran


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_extract(extracted: Site, share: float) -> None:
    whole = extracted.extract.read_bytes()
    extracted.extract.write_bytes(whole[: int(share * len(whole))])
    message = extracted.message(extracted.workshop(), "osm_extract/here")
    assert re.fullmatch(
        rf"region here: {extracted.extract} "
        r"(is empty|is not (a )?whole( PBF)? \(.+\)|is no OSM extract \(.+\)|holds no object); get the extract again",
        message,
    )


def test_an_extract_of_another_place(extracted: Site) -> None:
    message = extracted.message(extracted.workshop({"bbox": ELSEWHERE}), "osm_extract/here")
    assert message == (
        "region here: the box (10.0, 48.4, 10.002, 48.402) of regions.yaml shares no ground with "
        f"{extracted.extract}, which covers (9.0, 47.4, 9.002, 47.402)"
    )


def test_an_extract_that_states_no_box_and_a_region_without_one(extracted: Site) -> None:
    write_extract(extracted.extract, None)
    message = extracted.message(extracted.workshop(), "osm_extract/here")
    assert message == (
        f"region here: the header of {extracted.extract} states no box; "
        "give regions.here.bbox (west, south, east, north) in regions.yaml"
    )


def test_a_region_whose_box_holds_no_object(extracted: Site) -> None:
    write_extract(extracted.extract, None)
    workshop = extracted.workshop({"bbox": ELSEWHERE})
    extracted.make(workshop, "osm_extract/here")
    message = extracted.message(workshop, "osm_objects/here")
    assert message == (
        "region here: none of the extract's 50 tagged objects lies in its ground (10.0, 48.4, 10.002, 48.402); "
        "correct bbox or polygon of regions.here in regions.yaml"
    )


def test_an_extract_without_tagged_objects(extracted: Site) -> None:
    write_extract(extracted.extract, HERE, trees=0)
    workshop = extracted.workshop()
    extracted.make(workshop, "osm_extract/here")
    message = extracted.message(workshop, "osm_objects/here")
    assert message == (
        "region here: its extract holds no tagged object; give another extract, or take the region out of regions.yaml"
    )


# --------------------------------------------------------------------------------------------------------------- images


def test_an_image_without_a_crs(extracted: Site) -> None:
    extracted.write_raster(**extracted.raster, crs=None)
    message = extracted.message(extracted.workshop(), "scene_index/here/OWN")
    assert message == (
        f"{extracted.image} has no CRS: state it with `gdal_edit.py -a_srs EPSG:<code> {extracted.image}`"
    )


def test_an_image_that_is_not_there(extracted: Site) -> None:
    extracted.image.unlink()
    message = extracted.message(extracted.workshop(), "scene_index/here/OWN")
    assert message == f"sources.yaml: OWN.paths: {extracted.image} does not exist"


def test_a_truncated_image(extracted: Site) -> None:
    extracted.image.write_bytes(extracted.image.read_bytes()[:100_000])
    message = extracted.message(extracted.workshop(), "scene_index/here/OWN")
    assert message.startswith(f"{extracted.image} cannot be ")
    assert "\n" not in message


def test_a_source_that_says_that_it_does_not_cover_the_region(extracted: Site) -> None:
    workshop = extracted.workshop({"bbox": HERE}, {"extent": ELSEWHERE})
    reason = "region here (9.0, 47.4, 9.002, 47.402) lies outside the extent of source OWN (10.0, 48.4, 10.002, 48.402)"
    before = contents(extracted.data)
    with pytest.raises(SkyScriptError, match=f"^{re.escape(f'scene_index/here/OWN: {reason}')}$"):
        extracted.run(workshop, "scene_index/here/OWN")
    # In the UI the partition can be asked for.
    level = next(level for level in LEVELS if level.name == "pairs")
    step = backfill.Step(level, ("here", "OWN"), only="scene_index")
    (result,) = backfill.run_all(workshop.defs, workshop.settings, workshop.store, extracted.instance, steps=[step])
    message = extracted.only_message(result, "scene_index/here/OWN", before)
    assert message == f"nothing to make for here|OWN: {reason}"


def test_a_source_whose_files_lie_elsewhere_is_explicitly_empty(extracted: Site) -> None:
    transform = Affine(0.5, 0, 600_000, 0, -0.5, 5_250_000)
    extracted.write_raster(**extracted.raster, transform=transform)
    workshop = extracted.workshop()
    extracted.make(workshop, "scene_index/here/OWN")
    record = workshop.store.record(OutputKey("scene_index", ("here", "OWN")))
    assert record is not None
    assert (record.counts["scenes"], record.counts["outside"]) == (0, 1)


# ----------------------------------------------------------------------- settings, disk, order of the runs


def skyscript(site: Site, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {
        "SKYSCRIPT_SETTINGS": str(profile),
        "SKYSCRIPT_DATA": str(site.data),
        "DAGSTER_HOME": str(site.folder / ".dagster"),
        "COLUMNS": "200",
    }
    return subprocess.run(
        [sys.executable, "-m", "skyscript_assets.cli", *arguments],
        env=os.environ | variables,
        cwd=site.folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_typo_in_the_settings(extracted: Site) -> None:
    workshop = extracted.workshop()
    plant = yaml.safe_load((workshop.profile / "plant.yaml").read_text("utf-8"))
    plant["plan"]["min_objekt_px"] = 12
    plant["split"]["zoom"] = "sixteen"
    (workshop.profile / "plant.yaml").write_text(yaml.safe_dump(plant), "utf-8")
    before = contents(extracted.data)
    done = skyscript(extracted, workshop.profile, "run", "osm_extract/here")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: the settings in {workshop.profile} have 2 problems:",
        (
            "  - plant.yaml: split.zoom: Input should be a valid integer, unable to parse string as an integer "
            "(found 'sixteen')"
        ),
        "  - plant.yaml: plan.min_objekt_px: unknown key (found 12); did you mean 'min_object_px'?",
    ]
    assert contents(extracted.data) == before


def test_a_failure_in_the_terminal(extracted: Site) -> None:
    extracted.extract.write_bytes(extracted.extract.read_bytes()[:100])
    profile = extracted.workshop().profile
    before = contents(extracted.data)
    done = skyscript(extracted, profile, "run", "osm_extract/here")
    assert done.returncode == 1
    assert done.stdout.startswith("✗ regions")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: regions here: osm_extract: region here: {extracted.extract} is ")
    assert contents(extracted.data) == before


def test_brackets_of_a_message_reach_the_terminal(site: Site) -> None:
    region = {"path": None, "package": {"package": "no_such_package", "file": "a.osm.pbf"}}
    done = skyscript(site, site.workshop(region, title="[/]").profile, "run", "osm_extract/here")
    assert (done.returncode, "profile [/] in" in done.stdout) == (1, True)
    assert done.stderr == (
        "error: regions here: osm_extract: region here: the Python package no_such_package is not installed; "
        "the packages of the demo come with: pip install 'skyscript-assets[demo]'\n"
    )


def test_run_records_that_cannot_be_written(extracted: Site) -> None:
    home = extracted.folder / ".dagster"
    home.write_text("not a folder", "utf-8")
    done = skyscript(extracted, extracted.workshop().profile, "run", "--force", "osm_extract/here")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: the folder of run records {home} cannot be used (")
    assert line.endswith("); set DAGSTER_HOME")


def test_no_space_on_the_disk(extracted: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    write_extract(extracted.extract, HERE, trees=40)
    monkeypatch.setattr(storage, "MIN_FREE_BYTES", 1 << 60)
    monkeypatch.setattr(asset, "RETRIES", dg.RetryPolicy(max_retries=0))  # it would be tried again for minutes
    message = extracted.message(extracted.workshop(), "osm_extract/here")
    assert re.fullmatch(
        rf"{extracted.data} has \d+ MB free, 1152921504607 MB are needed to begin osm_extract/here", message
    )


def test_a_partition_asked_for_before_its_upstream(extracted: Site) -> None:
    message = extracted.message(extracted.workshop(), "captions/here/OWN")
    assert message == (
        "captions/here/OWN is made from caption_rules, sampling_snapshot/demo-1, chip_plan/here/OWN, "
        "image_chips/here/OWN, not materialized yet. Materialize first: skyscript run caption_rules && "
        "skyscript run sampling_snapshot/demo-1 && skyscript run chip_plan/here/OWN (all in order: skyscript run)"
    )


def test_a_file_where_the_data_folder_should_be(site: Site) -> None:
    site.data.write_text("not a folder", "utf-8")
    store = site.workshop().store
    with pytest.raises(StorageError, match=rf"^the data folder {site.data} cannot be written \(.*\); set SKYSCRIPT_DA"):
        with store.writing(OutputKey("osm_extract", ("here",)), "f"):
            pass


def test_a_data_folder_that_is_no_address(tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=r"^nowhere://a is no address of an object store \(.*\); give one .*SKYSCRIPT_DATA\)$"
    ):
        Store("nowhere://a", tmp_path)


def test_a_file_where_an_output_should_be(site: Site) -> None:
    site.make(site.workshop(), "osm_extract/here")
    (site.data / "osm_objects").write_text("not a folder", "utf-8")
    message = site.message(site.workshop(), "osm_objects/here")
    assert message == (
        f"{site.data / 'osm_objects'} cannot be used (File exists) while making osm_objects/here; "
        "let this user read and write it, or set SKYSCRIPT_DATA"
    )


def test_a_record_that_is_none(extracted: Site) -> None:
    record = extracted.data / "osm_extract/here/output.json"
    record.write_text(record.read_text("utf-8")[:50], "utf-8")
    before = contents(extracted.data)
    workshop = extracted.workshop()
    outputs = Outputs(STAGES, workshop.settings, workshop.store)
    assert str(outputs.problem(OutputKey("osm_extract", ("here",)))).startswith(f"{record} is not ")
    assert extracted.message(workshop, "osm_objects/here").startswith("osm_objects/here is made from osm_extract/here,")
    assert contents(extracted.data) == before


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Give up the rights of root, whom no permission stops."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that anybody may enter, unlike `tmp_path`, with one output in it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    with as_somebody_else():
        store, key = Store(folder / "data"), OutputKey("osm_extract", ("here",))
        with store.writing(key, "f") as out:
            (out / "extract.json").write_text("{}", "utf-8")
            store.complete(key, fingerprint="f", made_from={}, counts={})
    yield folder / "data"
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o777)
    shutil.rmtree(folder)


def test_a_data_folder_that_may_not_be_written(open_folder: Path) -> None:
    before = contents(open_folder)
    (open_folder / ".staging").chmod(0o555)
    open_folder.chmod(0o555)
    with as_somebody_else():
        store, key = Store(open_folder), OutputKey("osm_extract", ("there",))
        assert store.record(OutputKey("osm_extract", ("here",))) is not None
        refused = rf"^the data folder {open_folder} cannot be written \(.*Permission denied"
        with pytest.raises(StorageError, match=refused):
            with store.writing(key, "f"):
                pass
    assert contents(open_folder) == before


def test_an_output_s_folder_that_may_not_be_read(open_folder: Path) -> None:
    before = contents(open_folder)
    (open_folder / "osm_extract").chmod(0o000)
    with as_somebody_else():
        with pytest.raises(StorageError, match=rf"^{open_folder}/osm_extract.* cannot be read \(.*Permission denied"):
            Store(open_folder).record(OutputKey("osm_extract", ("here",)))
    (open_folder / "osm_extract").chmod(0o755)
    assert contents(open_folder) == before


def test_an_asset_s_folder_that_may_not_be_written(open_folder: Path) -> None:
    before = contents(open_folder)
    (open_folder / "osm_extract").chmod(0o555)
    with as_somebody_else():
        store, key = Store(open_folder), OutputKey("osm_extract", ("here",))
        with pytest.raises(
            StorageError,
            match=rf"^{open_folder}/osm_extract.* cannot be used \(Permission denied\) while making osm_extract/here",
        ):
            with store.writing(key, "g") as out:
                (out / "extract.json").write_text("{1}", "utf-8")
                store.complete(key, fingerprint="g", made_from={}, counts={})
    assert contents(open_folder) == before
