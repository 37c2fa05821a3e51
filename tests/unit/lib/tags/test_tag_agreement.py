"""Cohen's kappa and the list of disagreements."""

import numpy as np
import pytest

from skyscript_assets.lib.settings.base import GSD_STEPS_M
from skyscript_assets.lib.tags.agreement import GRADES, grade, label_agreement
from skyscript_assets.lib.tags.labels import Label, Tag


def labels(*gsds: float | None) -> dict[Tag, Label]:
    return {("key", f"v{i}"): Label(gsd is not None, gsd, "said so", i + 2) for i, gsd in enumerate(gsds)}


def test_kappas_are_those_of_cohens_formula() -> None:
    rng = np.random.default_rng(1)
    first = rng.integers(0, 7, 200)
    second = np.clip(first + rng.integers(-1, 2, 200), 0, 6)
    steps = np.array([None, *GSD_STEPS_M], object)
    found = label_agreement(labels(*steps[first]), labels(*steps[second]))
    seen = (first > 0).mean() * (second > 0).mean() + (first == 0).mean() * (second == 0).mean()
    agree = ((first > 0) == (second > 0)).mean()
    assert found["visibility"]["kappa"] == pytest.approx((agree - seen) / (1 - seen), abs=1e-4)
    by_chance = ((first[:, None] - second[None, :]) ** 2).mean()
    expected = 1 - ((first - second) ** 2).mean() / by_chance
    assert found["steps"]["quadratic_kappa"] == pytest.approx(expected, abs=1e-4)


def test_kappa_of_one_class_alone_is_undefined() -> None:
    for same in (labels(None, None), {}):
        found = label_agreement(same, same)
        assert found["visibility"]["kappa"] is found["steps"]["quadratic_kappa"] is None


def test_the_scale_goes_from_not_visible_over_fine_to_coarse() -> None:
    grades = [grade(label) for label in labels(None, *GSD_STEPS_M).values()]
    assert grades == list(range(len(GRADES)))


def test_two_equal_passes_agree_fully() -> None:
    both = labels(None, 0.1, 1.0, 30.0)
    found = label_agreement(both, both)
    assert found["visibility"] == {"agree": 1.0, "kappa": 1.0}
    assert found["steps"] == {"exact": 1.0, "within_one_step": 1.0, "quadratic_kappa": 1.0}
    assert found["disagreements"] == []


def test_disagreements_are_listed_the_widest_first() -> None:
    found = label_agreement(labels(None, 0.1, 1.0, 10.0), labels(30.0, 0.2, 1.0, None))
    assert found["tags"] == 4
    assert [row["tag"] for row in found["disagreements"]] == ["key=v0", "key=v3", "key=v1"]
    assert found["disagreements"][0] == {"tag": "key=v0", "first": "not visible", "second": "30"}
    assert found["visibility"]["agree"] == 0.5
    assert found["steps"]["exact"] == 0.25
    assert found["steps"]["within_one_step"] == 0.5
    assert found["steps_where_both_see"] == {"tags": 2, "exact": 0.5, "within_one_step": 1.0}


def test_tags_that_one_pass_lacks_are_counted_and_left_out() -> None:
    found = label_agreement(labels(None, 0.1, 1.0), labels(None))
    assert (found["tags"], found["only_first"], found["only_second"]) == (1, 2, 0)
    assert found["steps_where_both_see"]["exact"] is None
