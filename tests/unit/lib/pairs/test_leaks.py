import hashlib
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageEnhance

from skyscript_assets.lib.chips.quality import measure
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.pairs.leaks import (
    COMMON,
    FINGERPRINT_SCHEMA,
    LEAK_SCHEMA,
    MAX_EXAMPLES,
    Leaks,
    find_leaks,
    shared_ground,
)
from skyscript_assets.lib.pairs.thumbnails import likeness, textures, thumbnail
from skyscript_assets.lib.tables import BBOX_TYPE

SCHEMA = pa.schema([(name, pa.string()) for name in ("chip_id", "split", "sha256", "phash", "object_id")])


def picture(seed: int, side: int = 160) -> Image.Image:
    """Blocks of colour over a coarse ramp: something with a texture that outlives JPEG."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 160, (20, 20, 3)).astype(np.uint8).repeat(side // 20, 0).repeat(side // 20, 1)
    return Image.fromarray(blocks + np.linspace(0, 80, side).astype(np.uint8)[:, np.newaxis, np.newaxis])


def saved(image: Image.Image, quality: int) -> bytes:
    data = BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()


def facts(data: bytes) -> dict[str, Any]:
    rgb = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    phash = measure(rgb, None, (0, 0, 0, 0)).phash
    return {"sha256": hashlib.sha256(data).hexdigest(), "phash": phash, "thumbnail": thumbnail(rgb)}


def chip(chip_id: str, data: bytes, split: str = "train", object_id: str | None = None) -> dict[str, Any]:
    return {"chip_id": chip_id, "split": split, "object_id": object_id} | facts(data)


def search(chips: list[dict[str, Any]], *, thumbnails: bool = True, **more: Any) -> Leaks:
    table = pa.Table.from_pylist([{name: one[name] for name in SCHEMA.names} for one in chips], SCHEMA)
    seen = np.array([one.get("thumbnail", np.zeros(768, np.uint8)) for one in chips]).reshape(-1, 768)
    return find_leaks(table, thumbnails=(lambda rows: seen[rows]) if thumbnails else None, **more)


def reasons(chips: list[dict[str, Any]], **more: Any) -> dict[str, str]:
    found = search(chips, **more).reasons.to_pylist()
    return {one["chip_id"]: reason for one, reason in zip(chips, found, strict=True) if reason}


CHANGED = {
    "recompressed": lambda image: saved(image, 50),
    "half the size": lambda image: saved(image.resize((80, 80)), 90),
    "brighter": lambda image: saved(ImageEnhance.Brightness(image).enhance(1.2), 90),
}


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("thumbnails", [True, False])
def test_a_near_duplicate_is_found_by_name(change: str, thumbnails: bool) -> None:
    image = picture(1)
    chips = [
        chip("b", CHANGED[change](image), "test"),
        chip("a", saved(image, 90)),
        *(chip(f"c{i}", saved(picture(i), 90)) for i in range(2, 8)),
    ]
    found = search(chips, thumbnails=thumbnails)
    (row,) = found.report.to_pylist()
    assert (row["kind"], row["chip_id"], row["split"], row["other"], row["other_split"]) == (
        *("near-duplicate", "b", "test", "a", "train"),
    )
    assert row["distance"] <= 6
    assert (row["likeness"] is None) is not thumbnails
    assert found.report.schema == LEAK_SCHEMA
    assert found.reasons.to_pylist() == ["near-duplicate image", *[None] * 7]
    assert found.counts["kinds"] == {"near-duplicate": 1}
    assert found.counts["across_splits"] == 1
    assert found.counts["examples"] == {"near-duplicate": ["b (test), a (train)"]}


def test_waters_of_one_hash_and_other_waves_are_no_duplicates() -> None:
    chips = [chip(f"w{i}", saved(picture(i), 90)) | {"phash": "00000000ffffffff"} for i in range(6)]
    assert reasons(chips) == {}


def test_one_photograph_in_other_colours_is_no_duplicate() -> None:
    image = picture(1)
    red, green, blue = image.split()
    chips = [chip("a", saved(image, 95)), chip("b", saved(Image.merge("RGB", (blue, red, green)), 95))]
    assert reasons([chips[0], chips[1] | {"phash": chips[0]["phash"]}]) == {}


def test_without_thumbnails_a_hash_that_many_have_tells_nothing() -> None:
    many = [chip(f"w{i:02d}", bytes(saved(picture(i), 90))) | {"phash": "00000000ffffffff"} for i in range(COMMON + 1)]
    assert reasons(many, thumbnails=False) == {}
    assert len(reasons(many[:3], thumbnails=False)) == 2


def test_of_equal_images_the_smallest_id_stays_and_is_named() -> None:
    data = saved(picture(1), 90)
    chips = [chip("c", data, "val"), chip("a", data, "test"), chip("b", data)]
    found = search(chips)
    assert [(row["kind"], row["chip_id"], row["other"], row["distance"]) for row in found.report.to_pylist()] == [
        ("duplicate", "b", "a", 0),
        ("duplicate", "c", "a", 0),
    ]
    assert set(found.reasons.to_pylist()) == {"duplicate image", None}


def test_digests_that_begin_alike_are_not_equal() -> None:
    chips = [chip("a", saved(picture(1), 90)), chip("b", saved(picture(2), 90))]
    begin = chips[0]["sha256"][:20]
    assert reasons([chips[0], chips[1] | {"sha256": begin + "0" * 44}]) == {}


def test_what_cannot_be_used_takes_nobody_along() -> None:
    data = saved(picture(1), 90)
    chips = [chip("a", data), chip("b", data), chip("c", saved(picture(1), 50))]
    assert reasons(chips, usable=np.array([False, True, True])) == {"c": "near-duplicate image"}


def test_an_object_stays_in_the_split_that_is_most_held_out() -> None:
    splits = {"a": "train", "b": "test", "c": "val", "d": "test", "e": "val", "f": "train", "g": "train"}
    objects = {"a": "n1", "b": "n1", "c": "n1", "d": "n2", "e": "w3", "f": "w3", "g": None}
    chips = [chip(name, saved(picture(ord(name)), 90), splits[name], objects[name]) for name in splits]
    found = search(chips)
    assert dict.fromkeys("acf", "object of another split") == reasons(chips)
    assert [(row["kind"], row["chip_id"], row["other"], row["other_split"]) for row in found.report.to_pylist()] == [
        ("object", "a", "b", "test"),
        ("object", "c", "b", "test"),
        ("object", "f", "e", "val"),
    ]


def test_one_object_at_two_dates_is_wanted_data() -> None:
    chips = [
        chip("a1_2019", saved(picture(1), 90), "train", "a1"),
        chip("a1_2021", saved(picture(2), 90), "train", "a1"),
    ]
    assert reasons(chips) == {}


def fingerprints(*images: bytes) -> pa.Table:
    rows = [{"item_id": f"forest/{i}.jpg"} | facts(data) for i, data in enumerate(images)]
    return pa.Table.from_pylist(rows, FINGERPRINT_SCHEMA)


def test_images_of_benchmarks_are_found_outside_the_test_split() -> None:
    equal, near, other = (saved(picture(i), 95) for i in (1, 2, 3))
    again = saved(picture(2).resize((100, 100)), 70)
    chips = [
        chip("a", equal),
        chip("b", again, "val"),
        chip("c", saved(picture(3), 60), "test"),
        chip("d", saved(picture(4), 90)),
    ]
    benchmarks = {"eurosat": fingerprints(other, equal), "empty": fingerprints(), "ucmerced": fingerprints(near)}
    found = search(chips, benchmarks=benchmarks)
    assert found.reasons.to_pylist() == ["image of benchmark eurosat", "image of benchmark ucmerced", None, None]
    told = [(row["kind"], row["chip_id"], row["other"], row["other_split"]) for row in found.report.to_pylist()]
    assert told == [
        ("benchmark", "a", "eurosat: forest/1.jpg", "test"),
        ("benchmark", "b", "ucmerced: forest/0.jpg", "test"),
    ]
    assert found.counts["across_splits"] == 0
    assert reasons(chips, benchmarks=benchmarks, thumbnails=False)["a"] == "image of benchmark eurosat"


def test_a_plain_table_without_objects_digests_and_hashes_is_enough() -> None:
    rows = [{"chip_id": name, "split": "train", "sha256": None, "phash": "No hash"} for name in "ab"]
    found = find_leaks(pa.Table.from_pylist(rows, pa.schema(list(SCHEMA)[:4])))
    assert (found.reasons.null_count, found.report.num_rows) == (2, 0)


def test_hexadecimal_digits_may_be_large() -> None:
    rows = [
        {"chip_id": name, "split": "train", "sha256": None, "phash": digits}
        for name, digits in (("a", "ABCDEF0123456789"), ("b", "abcdef0123456789"))
    ]
    assert find_leaks(pa.Table.from_pylist(rows, pa.schema(list(SCHEMA)[:4]))).reasons.to_pylist()[1] is not None


def test_no_chips_have_no_leaks() -> None:
    assert search([]).counts == {"kinds": {}, "across_splits": 0, "crowded": 0, "examples": {}}


def test_a_split_that_there_is_not_is_named() -> None:
    with pytest.raises(CorruptInputError, match="validation: splits are train, val, test"):
        search([chip("a", saved(picture(1), 90), "validation")])


def test_flat_images_are_like_nothing() -> None:
    flat = np.stack([thumbnail(np.full((50, 40, 3), value, np.uint8)) for value in (90, 91)])
    assert likeness(textures(flat), np.array([[0, 1], [0, 0]])).tolist() == [0.0, 0.0]


def ground(west: dict[str, tuple[float, float]], splits: tuple[str, ...]) -> pa.Table:
    rows = [
        {"chip_id": name, "split": split, "bbox": {"xmin": low, "ymin": 0.0, "xmax": high, "ymax": 0.1}}
        for (name, (low, high)), split in zip(west.items(), splits, strict=True)
    ]
    return pa.Table.from_pylist(
        rows, pa.schema([("chip_id", pa.string()), ("split", pa.string()), ("bbox", BBOX_TYPE)])
    )


def test_examples_of_shared_ground_are_bounded() -> None:
    west = {f"c{i}": (0.0, 0.1) for i in range(16)}
    shared, examples = shared_ground(ground(west, ("test", "train") * 8))
    assert shared == 64
    assert len(examples) == MAX_EXAMPLES


def test_chips_across_the_antimeridian_share_ground_with_both_sides() -> None:
    west = {"a": (179.999, 180.001), "b": (-179.9995, -179.998), "c": (179.9985, 179.9995), "d": (179.9, 179.95)}
    chips = ground(west, ("train", "test", "val", "test"))
    assert shared_ground(chips) == (2, ["a (train), b (test)", "a (train), c (val)"])
