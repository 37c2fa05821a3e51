"""Label files: the packaged one, and what is said about a wrong one."""

import re
from pathlib import Path

import pytest

from skyscript_assets.lib.errors import MissingInputError, SettingsError
from skyscript_assets.lib.settings.base import GSD_STEPS_M
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.tags.labels import Label, read_labels
from skyscript_assets.lib.tags.text import NEVER_SAID, attribute_reason, text_reason

JUDGED = re.compile(r"judged ([\d.]+): .+ \((\S+)\)")
HEADER = "key,value,visible,coarsest_gsd_m,reason\n"
PACKAGED = PACKAGED_PROFILES / "tag_labels.csv"


def write(path: Path, rows: str, header: str = HEADER) -> Path:
    path.write_text(header + rows, encoding="utf-8")
    return path


def test_a_label_file_is_read_in_its_order(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", 'natural,tree,yes,0.6,"a crown, round"\n\nlit,yes,no,,lamps\n')
    assert dict(read_labels(path)) == {
        ("natural", "tree"): Label(visible=True, coarsest_gsd_m=0.6, reason="a crown, round", line=2),
        ("lit", "yes"): Label(visible=False, coarsest_gsd_m=None, reason="lamps", line=4),
    }


def test_all_wrong_rows_are_reported_with_line_and_column(tmp_path: Path) -> None:
    path = write(
        tmp_path / "labels.csv",
        "natural,tree,yes,0.5,crown\n"
        "natural,wood,maybe,,canopy\n"
        "lit,yes,no,1,lamps\n"
        "lit,no,no,\n"
        "barrier,wall,yes,,line\n"
        "barrier,,yes,1,line\n"
        "area,yes,no,,\n"
        "area,no,no,,how it is drawn\n"
        "area,no,no,,how it is drawn\n",
    )
    with pytest.raises(SettingsError) as caught:
        read_labels(path)
    message = str(caught.value)
    assert str(path) in message
    assert "8 wrong rows" in message
    for part in (
        "line 2, column coarsest_gsd_m: must be one of 0.1, 0.2, 0.6, 1, 10, 30, found '0.5'",
        "line 3, column visible: must be yes or no, found 'maybe'",
        "line 4, column coarsest_gsd_m: must be empty",
        "line 5: 5 columns are needed, found 4",
        "line 6, column coarsest_gsd_m",
        "line 7, column value: is empty",
        "line 8, column reason: is empty",
        "line 10, column key: area=no is labelled in line 9 already",
    ):
        assert part in message


def test_a_wrong_header_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", "", header="tag,visible\n")
    with pytest.raises(SettingsError, match="line 1: the header must be key,value"):
        read_labels(path)
    with pytest.raises(SettingsError, match="header"):
        read_labels(write(tmp_path / "empty.csv", "", header=""))


def test_broken_quoting_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", 'natural,"tree"x,yes,0.6,crown\n')
    with pytest.raises(SettingsError, match="line 2: is not CSV"):
        read_labels(path)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"absent\.csv"):
        read_labels(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MissingInputError, match=r"binary\.csv"):
        read_labels(tmp_path / "binary.csv")


def test_the_packaged_labels_obey_policy_and_steps() -> None:
    labels = read_labels(PACKAGED)
    assert len(labels) >= 400
    assert {label.coarsest_gsd_m for label in labels.values() if label.visible} == set(GSD_STEPS_M)
    assert [tag for tag in labels if text_reason(*tag) is not None] == []
    assert [tag for tag, label in labels.items() if label.visible and attribute_reason(tag[0]) in NEVER_SAID] == []


def test_what_captions_must_never_say_is_labelled_invisible() -> None:
    labels = read_labels(PACKAGED)
    for tag in (("religion", "christian"), ("oneway", "yes"), ("lit", "yes"), ("access", "private")):
        assert not labels[tag].visible
        assert labels[tag].reason


def test_judged_labels_name_a_picture_and_their_step(shared_data: Path) -> None:
    pictures = {path.stem for path in shared_data.rglob("*") if path.suffix in (".tif", ".jpg")}
    labels = read_labels(PACKAGED)
    judged = {tag: found for tag, label in labels.items() if (found := JUDGED.fullmatch(label.reason))}
    assert len(judged) == 100
    assert {found[2] for found in judged.values()} <= pictures
    assert all(float(found[1]) == labels[tag].coarsest_gsd_m for tag, found in judged.items())


def test_labels_by_analogy_name_a_labelled_tag_and_are_no_coarser() -> None:
    labels = read_labels(PACKAGED)
    kin = {tag: label.reason.partition("; by analogy with ")[2] for tag, label in labels.items()}
    like = {tag: labels[tuple(name.split("=", 1))].coarsest_gsd_m for tag, name in kin.items() if name}
    assert len(like) > 50
    assert [tag for tag, step in like.items() if not labels[tag].coarsest_gsd_m <= step] == []
