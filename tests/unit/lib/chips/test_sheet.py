import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skyscript_assets.lib.chips import sheet as sheet_module
from skyscript_assets.lib.chips.cut import CutInputs, cut_chips
from skyscript_assets.lib.chips.sheet import SHEETS, sheet_preview, write_sheets
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.scenes import write_scenes
from skyscript_assets.lib.settings.plant import ChipSettings

LIMIT = 150_000


@pytest.fixture
def folders(
    tmp_path: Path, write_raster: Callable, scene_of: Callable, textured: Callable, write_chip_plan: Callable
) -> tuple[Path, Path]:
    values = textured()
    values[:, :, 250:] = 90
    scene = scene_of(write_raster(tmp_path / "a.tif", values))
    for name in ("plan", "scenes", "chips"):
        (tmp_path / name).mkdir()
    write_scenes(tmp_path / "scenes", [scene])
    windows = [(scene, 10 * n, 5 * n, 60 + 8 * n, 100) for n in range(9)] + [(scene, 255, 20, 40, 60)]
    write_chip_plan(tmp_path / "plan", windows)
    cut_chips(CutInputs(tmp_path / "plan", tmp_path / "scenes"), ChipSettings(), tmp_path / "chips")
    return tmp_path / "chips", tmp_path / "plan"


def drawn_text(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects every line of text that is measured for the sheet."""
    seen: list[str] = []
    wrap = sheet_module._wrap

    def spy(text: str, *rest: Any) -> list[str]:
        seen.append(text)
        return wrap(text, *rest)

    monkeypatch.setattr(sheet_module, "_wrap", spy)
    return seen


def test_a_sheet_shows_chips_in_columns_and_as_many_rows_as_it_needs(folders: tuple[Path, Path]) -> None:
    write_sheets(*folders)
    with Image.open(folders[0] / "accepted.jpg") as image:
        assert image.format == "JPEG"
        assert image.width == 14 + 5 * (240 + 14)
        assert 2 * 240 < image.height < 3 * 240 + 200, "nine chips are two rows"
    with Image.open(folders[0] / "rejected.jpg") as image:
        assert image.width == 14 + 6 * (160 + 14)
        assert 160 < image.height < 2 * 160 + 200
    assert not list(folders[0].glob(".*.tmp"))


def test_equal_inputs_make_equal_sheets(folders: tuple[Path, Path]) -> None:
    written = []
    for _ in range(2):
        write_sheets(*folders)
        written.append([(folders[0] / name).read_bytes() for name in SHEETS])
    assert written[0] == written[1]


def test_all_strata_are_shown_before_one_is_shown_twice(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet_module, "MAX_ACCEPTED", 3)
    seen = drawn_text(monkeypatch)
    write_sheets(*folders)
    assert sorted(text for text in seen if "=" in text) == ["building=yes", "highway=residential", "natural=tree"]


def test_captions_choose_the_chips_and_stand_below_them(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = drawn_text(monkeypatch)
    said = {"n1_S_20200601_00000001": "a house", "n4_S_20200601_00000004": "a tree", "n9_S_20200601_00000009": "no"}
    captions = {chip_id: (text, [(5, 5, 20, 15)]) for chip_id, text in said.items()}
    without = {chip_id: (text, []) for chip_id, text in said.items()}
    assert sheet_preview(*folders, LIMIT, captions) != sheet_preview(*folders, LIMIT, without), "boxes are drawn"
    assert {"a house", "a tree", "here · S"} <= set(seen)
    assert not [text for text in seen if "=" in text or text == "no"], "n9 was rejected, all others have no caption"
    assert "Imagery: A surveyor (CC0-1.0) · Tags: © OpenStreetMap contributors (ODbL-1.0)" in seen


def test_synthetic_imagery_is_called_so(
    folders: tuple[Path, Path], tmp_path: Path, scene_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = replace(scene_of(tmp_path / "a.tif"), synthetic=True)
    write_scenes(tmp_path / "scenes", [scene])
    cut_chips(CutInputs(tmp_path / "plan", tmp_path / "scenes"), ChipSettings(), tmp_path / "chips")
    seen = drawn_text(monkeypatch)
    write_sheets(*folders)
    assert "here · S · synthetic imagery" in seen


def test_a_preview_stays_below_its_limit(folders: tuple[Path, Path]) -> None:
    large, small = sheet_preview(*folders, LIMIT), sheet_preview(*folders, 20_000)
    assert 20_000 < len(large) <= LIMIT
    assert 0 < len(small) <= 20_000
    with Image.open(io.BytesIO(large)) as image:
        assert image.format == "JPEG"
    assert sheet_preview(*folders, 10) == b""


def test_no_chips_make_no_preview_and_a_sheet_that_says_so(
    folders: tuple[Path, Path], write_chip_plan: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sheet_preview(*folders, LIMIT, captions={}) == b""
    write_chip_plan(folders[1], [])
    cut_chips(CutInputs(folders[1], folders[1].parent / "scenes"), ChipSettings(), folders[0])
    seen = drawn_text(monkeypatch)
    write_sheets(*folders)
    assert seen == ["No chips", "No chip was rejected"]
    assert all((folders[0] / name).stat().st_size > 0 for name in SHEETS)


def test_a_long_caption_is_wrapped_and_ends_in_an_ellipsis() -> None:
    font = sheet_module._font(12)
    lines = sheet_module._wrap("surrounded by " * 30, font, 150, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert all(font.getlength(line) <= 150 for line in lines)
    assert sheet_module._wrap("", font, 150, 3) == []
    (word,) = sheet_module._wrap("x" * 200, font, 150, 3)
    assert word.endswith("…")


def test_a_stored_chip_that_is_no_jpeg_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    tar = folders[0] / "part-00000.tar"
    tar.write_bytes(bytes(tar.stat().st_size))
    with pytest.raises(CorruptInputError, match=r"part-00000\.tar: chip n.* is no JPEG"):
        sheet_preview(*folders, LIMIT)


@pytest.fixture
def many_rejects(
    tmp_path: Path, write_raster: Callable, scene_of: Callable, textured: Callable, write_chip_plan: Callable
) -> tuple[Path, Path]:
    values = textured(600, 200)
    values[:, :, 250:400] = 90
    values[:, :, 400:] = 0
    scene = scene_of(write_raster(tmp_path / "a.tif", values, nodata=0))
    gone = replace(scene, scene_id="gone", hrefs=(str(tmp_path / "gone.tif"),))
    for name in ("plan", "scenes", "chips"):
        (tmp_path / name).mkdir()
    write_scenes(tmp_path / "scenes", [scene, gone])
    windows = [(scene, column, n, 64, 64) for n in range(20) for column in (0, 260 + n, 420 + n)]
    write_chip_plan(tmp_path / "plan", [*windows, (gone, 0, 0, 64, 64)])
    cut_chips(CutInputs(tmp_path / "plan", tmp_path / "scenes"), ChipSettings(), tmp_path / "chips")
    return tmp_path / "chips", tmp_path / "plan"


def test_rejected_chips_are_shown_reason_by_reason_with_their_numbers(
    many_rejects: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = drawn_text(monkeypatch)
    write_sheets(*many_rejects)
    assert "Rejected: 20 no-data, 20 blank, 1 unreadable" in seen
    assert [text for text in seen if text in ("blank", "no-data")] == ["no-data"] * 20 + ["blank"] * 20
    for name in sheet_module.SHEETS:
        assert 0 < (many_rejects[0] / name).stat().st_size < 1_000_000
    assert not list(many_rejects[0].glob(".*.tmp"))


def test_of_many_rejected_chips_some_of_each_reason_are_shown(
    many_rejects: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet_module, "MAX_REJECTED", 10)
    seen = drawn_text(monkeypatch)
    write_sheets(*many_rejects)
    assert [text for text in seen if text in ("blank", "no-data")] == ["no-data"] * 5 + ["blank"] * 5


def test_a_preview_of_rejected_chips_stays_below_its_limit(many_rejects: tuple[Path, Path]) -> None:
    large, small = (sheet_preview(*many_rejects, limit, rejected=True) for limit in (LIMIT, 15_000))
    assert 0 < len(small) <= 15_000 < len(large) <= LIMIT
    assert sheet_preview(*many_rejects, 10, rejected=True) == b""


def test_where_nothing_was_rejected_the_sheet_says_so(
    folders: tuple[Path, Path], tmp_path: Path, write_chip_plan: Callable, scene_of: Callable, monkeypatch: Any
) -> None:
    write_chip_plan(tmp_path / "plan", [(scene_of(tmp_path / "a.tif"), 0, 0, 64, 64)])
    cut_chips(CutInputs(tmp_path / "plan", tmp_path / "scenes"), ChipSettings(), tmp_path / "chips")
    seen = drawn_text(monkeypatch)
    write_sheets(*folders)
    assert "No chip was rejected" in seen
    assert sheet_preview(*folders, LIMIT, rejected=True) == b""
