import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from skyscript_assets.demo.ground_cover import GroundCoverBenchmark, build_ground_cover
from skyscript_assets.lib.benchmarks.evaluate import RecipeKind, evaluate
from skyscript_assets.lib.benchmarks.features import benchmark_features
from skyscript_assets.lib.benchmarks.image_folder import (
    CaptionRetrievalBenchmark,
    ImageFolderBenchmark,
    build_caption_retrieval,
    build_image_folder,
)
from skyscript_assets.lib.benchmarks.items import (
    BENCHMARK_FILE,
    ITEMS_FILE,
    SCORES_FILE,
    BenchmarkSpec,
    Scores,
    read_items,
    read_model,
    read_scored,
    without_images,
    write_model,
)
from skyscript_assets.lib.errors import (
    CorruptInputError,
    OutputSchemaError,
    SettingsError,
    TooLittleDataError,
    UpstreamMissingError,
)
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.towers.images import decode

Model = Any


def run(data: Path, model: Model, recipe: RecipeKind, tmp_path: Path) -> tuple[Scores, Path]:
    out = tmp_path / f"{recipe}-{getattr(model, 'skill', '')}"
    out.mkdir(exist_ok=True)
    return evaluate("cover", data, model, recipe, tmp_path / "cache", 100, out), out


@pytest.fixture
def photo_data(tmp_path: Path) -> Path:
    """Twelve images of a single colour each, four of each of three classes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    colours = {"road": (120, 120, 120), "water": (30, 60, 160), "grass": (60, 160, 50)}
    lines = ["filepath,label"]
    for i, (name, colour) in enumerate(list(colours.items()) * 4):
        Image.new("RGB", (16 + i, 16), colour).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{name}")
    (folder / "test.csv").write_text("\n".join(lines))
    (folder / "classnames.txt").write_text("\n".join(colours))
    out = tmp_path / "photo_data"
    out.mkdir()
    benchmark = ImageFolderBenchmark(title="Photos", csv="photos/test.csv", classnames="photos/classnames.txt")
    build_image_folder(benchmark, Shared(folder=tmp_path, zoom=12, geofabrik_mirror="", boxes=()), out)
    return out


def test_a_model_that_sees_scores_high_and_one_that_guesses_near_chance(
    cover_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    good, _ = run(cover_data, colour_model(1.0), "align", tmp_path)
    blind, _ = run(cover_data, colour_model(0.0), "none", tmp_path)
    assert good.first.value > 0.85
    assert abs(blind.first.value - 0.5) < 0.1
    assert good.first.low is not None
    assert good.first.low < good.first.value
    assert good.synthetic
    assert good.clusters > 3
    told = {name: figure.value for name, figure in good.figures.items()}
    assert (good.counts["value"], good.counts["figures"]) == (good.first.value, told)
    for name in ("i2t_mean_recall", "t2i_mean_recall", "mean_ap"):
        assert (good.figures[name].value or 0) > (blind.figures[name].value or 0)


def test_figures_agree_with_scikit_learn_on_the_stored_scores(
    cover_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    summary, out = run(cover_data, colour_model(0.5), "align", tmp_path)
    scores = read_model(out / SCORES_FILE, Scores)
    names = [cls.name for cls in scores.classes]
    rows = pq.read_table(out / ITEMS_FILE).to_pylist()
    truth = np.array([[name in row["truth"] for name in names] for row in rows])
    values = np.array([row["scores"] for row in rows])
    aucs = [roc_auc_score(truth[:, c], values[:, c]) for c in range(len(names))]
    aps = [average_precision_score(truth[:, c], values[:, c]) for c in range(len(names))]
    assert summary.first.value == pytest.approx(np.mean(aucs), abs=1e-6)
    assert summary.figures["mean_ap"].value == pytest.approx(np.mean(aps), abs=1e-6)
    assert [cls.figures["auc"].value for cls in scores.classes] == pytest.approx(aucs, abs=1e-6)
    assert [cls.positives for cls in scores.classes] == truth.sum(0).tolist()
    assert set(scores.by_source) == {"fine", "coarse"}
    assert scores.clustered_by == "cell"


def test_only_test_windows_are_scored_in_the_order_of_the_items(
    cover_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    _, out = run(cover_data, colour_model(), "align", tmp_path)
    items = read_items(cover_data).to_pylist()
    scored = read_scored(out, [cls.name for cls in read_model(out / SCORES_FILE, Scores).classes])
    assert list(scored.item_ids) == [item["item_id"] for item in items if item["split"] == "test"]
    assert set(scored.clusters) == {item["cell"] for item in items if item["split"] == "test"}


def test_models_that_share_a_tower_compute_its_features_once(
    cover_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    first, second = colour_model(1.0), colour_model(0.2)
    run(cover_data, first, "align", tmp_path)
    run(cover_data, second, "align", tmp_path)
    assert first.decoded == read_model(cover_data / BENCHMARK_FILE, BenchmarkSpec).items["test"]
    assert second.decoded == 0


def test_broken_or_short_kept_features_are_computed_again(
    cover_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    expected, _ = run(cover_data, colour_model(), "align", tmp_path)
    (kept,) = (tmp_path / "cache").iterdir()
    for broken in (b"", kept.read_bytes()[:100], b"\x80\x04]."):
        kept.write_bytes(broken)
        model = colour_model()
        assert run(cover_data, model, "align", tmp_path)[0] == expected
        assert model.decoded > 0
    np.save(kept, np.ones((3, 4), dtype=np.float32))
    assert run(cover_data, colour_model(), "align", tmp_path)[0] == expected


def test_the_same_model_writes_the_same_bytes(cover_data: Path, colour_model: type[Model], tmp_path: Path) -> None:
    _, out = run(cover_data, colour_model(), "linear-probe", tmp_path)
    first = [(out / name).read_bytes() for name in (SCORES_FILE, ITEMS_FILE)]
    run(cover_data, colour_model(), "linear-probe", tmp_path)
    assert [(out / name).read_bytes() for name in (SCORES_FILE, ITEMS_FILE)] == first


def test_the_metadata_control_sees_no_pixel_and_is_at_chance_within_a_source(cover_data: Path, tmp_path: Path) -> None:
    summary, out = run(cover_data, None, "metadata-only", tmp_path)
    assert summary.figures["mean_auc"].value is not None
    assert {source: figure.value for source, figure in read_model(out / SCORES_FILE, Scores).by_source.items()} == {
        "coarse": 0.5,
        "fine": 0.5,
    }
    assert "i2t_r1" not in summary.figures


def test_the_linear_probe_learns_from_train_windows(
    cover_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    model = colour_model(0.0)
    summary, out = run(cover_data, model, "linear-probe", tmp_path)
    assert summary.first.value > 0.9
    assert model.decoded == sum(read_model(cover_data / BENCHMARK_FILE, BenchmarkSpec).items.values())
    assert set(read_model(out / SCORES_FILE, Scores).notes) == {"inverse_penalty"}


def test_single_label_benchmarks_follow_the_protocol_of_the_paper(
    photo_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    summary, out = run(photo_data, colour_model(), "none", tmp_path)
    assert summary.primary == "top1"
    assert summary.first.value == 1.0
    assert summary.clusters == 12
    scores = read_model(out / SCORES_FILE, Scores)
    assert scores.clustered_by == "item"
    assert scores.figures["mean_per_class_recall"].value == 1.0
    assert scores.figures["top1_mean_of_prompts"].value == pytest.approx(
        np.mean([scores.figures[f"top1_prompt_{i}"].value or 0.0 for i in (1, 2)])
    )
    assert scores.classification_protocol == "zero-shot, 2 prompts, normalised mean of their embeddings"
    assert [cls.figures["recall"].value for cls in scores.classes] == [1.0, 1.0, 1.0]
    assert all(row["credit"] == 1.0 for row in pq.read_table(out / ITEMS_FILE).to_pylist())


def test_classes_that_no_test_image_shows_are_named(photo_data: Path) -> None:
    assert without_images(photo_data) == []
    spec = read_model(photo_data / BENCHMARK_FILE, BenchmarkSpec)
    pitch = spec.classes[0].model_copy(update={"name": "pitch"})
    write_model(photo_data / BENCHMARK_FILE, spec.model_copy(update={"classes": (*spec.classes, pitch)}))
    assert without_images(photo_data) == ["pitch"]


def test_controls_need_train_items(photo_data: Path, colour_model: type[Model], tmp_path: Path) -> None:
    for recipe in ("metadata-only", "linear-probe"):
        with pytest.raises(TooLittleDataError, match="has no train items"):
            run(photo_data, colour_model(), recipe, tmp_path)


def test_a_benchmark_where_nothing_can_be_told_apart_is_refused(
    scenes: dict[tuple[str, str], Path],
    ground_cover: Callable[..., GroundCoverBenchmark],
    colour_model: type[Model],
    tmp_path: Path,
) -> None:
    everything = {"text": "ground", "surfaces": ["roof", "road", "water", "grass"]}
    build_ground_cover(ground_cover(classes={"a": everything, "b": everything}), scenes, 16, tmp_path)
    with pytest.raises(TooLittleDataError, match="nothing can be told apart"):
        run(tmp_path, colour_model(), "none", tmp_path)


def test_a_model_that_diverged_is_reported(cover_data: Path, colour_model: type[Model], tmp_path: Path) -> None:
    class Diverged(colour_model):  # type: ignore[misc, valid-type]
        def project_image(self, features: np.ndarray) -> np.ndarray:
            return features * np.float32(np.nan)

    class Broken(colour_model):  # type: ignore[misc, valid-type]
        tower_digest = "broken"

        def image_features(self, images: object) -> np.ndarray:
            return super().image_features(images) * np.float32(np.inf)

    with pytest.raises(CorruptInputError, match="training diverged"):
        run(cover_data, Diverged(), "align", tmp_path)
    with pytest.raises(CorruptInputError, match="weights are broken"):
        run(cover_data, Broken(), "align", tmp_path)


def test_a_model_is_needed_to_score_zero_shot(cover_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs an encoder"):
        run(cover_data, None, "align", tmp_path)


def test_a_benchmark_that_was_not_built_or_is_broken_is_named(
    cover_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    with pytest.raises(UpstreamMissingError, match=r"benchmark\.json does not exist"):
        run(tmp_path, colour_model(), "none", tmp_path)
    text = (cover_data / "benchmark.json").read_text()
    (tmp_path / "benchmark.json").write_text(text[:50])
    with pytest.raises(CorruptInputError, match=r"benchmark\.json"):
        read_model(tmp_path / BENCHMARK_FILE, BenchmarkSpec)
    (tmp_path / "benchmark.json").write_text(json.dumps({**json.loads(text), "kind": None}))
    with pytest.raises(CorruptInputError, match="kind"):
        read_model(tmp_path / BENCHMARK_FILE, BenchmarkSpec)


def test_a_benchmark_whose_kind_is_not_installed_any_more_is_named(
    cover_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    text = (cover_data / "benchmark.json").read_text()
    (tmp_path / "benchmark.json").write_text(json.dumps({**json.loads(text), "kind": "other"}))
    (tmp_path / ITEMS_FILE).write_bytes((cover_data / ITEMS_FILE).read_bytes())
    with pytest.raises(SettingsError, match="no installed package registers 'other'; known are caption-ret"):
        run(tmp_path, colour_model(), "none", tmp_path)


def test_truth_outside_the_classes_is_refused(cover_data: Path, colour_model: type[Model], tmp_path: Path) -> None:
    spec = json.loads((cover_data / "benchmark.json").read_text())
    spec["classes"] = spec["classes"][:2]
    (tmp_path / "benchmark.json").write_text(json.dumps(spec))
    (tmp_path / ITEMS_FILE).write_bytes((cover_data / ITEMS_FILE).read_bytes())
    with pytest.raises(CorruptInputError, match="unknown class"):
        run(tmp_path, colour_model(), "none", tmp_path)


def test_scores_that_do_not_fit_their_classes_are_refused(
    cover_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    _, out = run(cover_data, colour_model(), "align", tmp_path)
    with pytest.raises(CorruptInputError, match="do not fit the classes"):
        read_scored(out, ["road"])
    with pytest.raises(OutputSchemaError):
        read_scored(cover_data, ["road"])


def test_bytes_that_are_no_image_are_refused() -> None:
    for data in (b"\xff\xd8\xff\xe0 cut off", b"text"):
        with pytest.raises(CorruptInputError, match=r"a\.jpg: cannot be decoded"):
            decode(data, "a.jpg")


def test_a_split_without_items_has_no_features(photo_data: Path, colour_model: type[Model], tmp_path: Path) -> None:
    features = benchmark_features(
        photo_data, read_model(photo_data / BENCHMARK_FILE, BenchmarkSpec), "val", colour_model(), tmp_path / "cache"
    )
    assert len(features) == 0


def test_the_primary_figure_scores_the_normalised_mean_of_the_prompts_once(photo_data: Path, tmp_path: Path) -> None:
    class TwoPrompts:
        """One prompt is wrong and short, the other right and long: their accuracies average to a half."""

        tower_digest = "two-prompts"
        logit_scale = 1.0

        def image_features(self, images: list[np.ndarray]) -> np.ndarray:
            return np.array([np.eye(3)[int(np.argmax(image[0, 0])) if np.ptp(image[0, 0]) else 0] for image in images])

        def project_image(self, features: np.ndarray) -> np.ndarray:
            return features.astype(np.float32)

        def encode_texts(self, texts: list[str]) -> np.ndarray:
            right = np.eye(3, dtype=np.float32)[[0, 2, 1]]  # road, water, grass
            return 100 * np.roll(right, 1, axis=0) + 40 * right if "photo" in texts[0] else right

    summary, _ = run(photo_data, TwoPrompts(), "none", tmp_path)
    told = {name: figure.value for name, figure in summary.figures.items()}
    assert (told["top1_prompt_1"], told["top1_prompt_2"], told["top1_mean_of_prompts"]) == (0.0, 1.0, 0.5)
    assert told["top1"] == 1.0


@pytest.fixture
def caption_data(tmp_path: Path) -> Path:
    """Six images of three colours; two captions each, one of which they share with the other of their colour."""
    folder = tmp_path / "captions"
    folder.mkdir()
    lines = ["filepath,title"]
    for i, word in enumerate(["road", "water", "grass"] * 2):
        colour = {"road": (120, 120, 120), "water": (30, 60, 160), "grass": (60, 160, 50)}[word]
        Image.new("RGB", (16 + i, 16), colour).save(folder / f"{i}.png")
        lines += [f"{i}.png,{word}", f"{i}.png,{word} number {i}"]
    (folder / "list.csv").write_text("\n".join(lines))
    benchmark = CaptionRetrievalBenchmark(title="Captions", csv="list.csv")
    build_caption_retrieval(benchmark, Shared(folder=folder, zoom=12, geofabrik_mirror="", boxes=()), folder)
    return folder


def test_captions_are_retrieved_both_ways_by_any_match(
    caption_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    class Words(colour_model):  # type: ignore[misc, valid-type]
        """Ranks the nine captions and six images by fixed embeddings, with a mistake for image 0."""

        def project_image(self, features: np.ndarray) -> np.ndarray:
            rows = super().project_image(features)
            rows[0] = rows[1]  # the first road is taken for water
            return rows

    summary, out = run(caption_data, Words(), "none", tmp_path)
    told = {name: figure.value for name, figure in summary.figures.items()}
    assert (summary.primary, summary.retrieval_images, summary.retrieval_texts) == ("mean_recall", 6, 9)
    # A caption of the other image of the colour scores the same, and counts as before; the mistaken image has seven.
    assert (told["i2t_r1"], told["i2t_r10"]) == (0.0, 1.0)
    assert told["i2t_r5"] == pytest.approx(5 / 6, abs=1e-6)
    six = [told[f"{way}_r{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10)]
    assert told["mean_recall"] == pytest.approx(np.mean(six), abs=2e-6)
    assert told["i2t_mean_recall"] == pytest.approx(np.mean(six[:3]), abs=1e-6)
    assert summary.first.low <= summary.first.value <= summary.first.high
    assert "unique images and captions" in summary.classification_protocol
    scored = read_scored(out, [])
    assert scored.primary()[0] == pytest.approx(summary.first.value, abs=1e-6)


def test_captions_are_scored_as_by_the_authors_own_loops(
    caption_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    class Random(colour_model):  # type: ignore[misc, valid-type]
        def project_image(self, features: np.ndarray) -> np.ndarray:
            return np.random.default_rng(1).normal(size=(len(features), 5)).astype(np.float32)

        def encode_texts(self, texts: list[str]) -> np.ndarray:
            return np.random.default_rng(2).normal(size=(len(texts), 5)).astype(np.float32)

    summary, _ = run(caption_data, Random(), "none", tmp_path)
    pairs = pq.read_table(caption_data / "captions.parquet").to_pylist()
    texts = sorted({pair["caption"] for pair in pairs})
    images = [f"{i}.png" for i in range(6)]
    left, right = Random().project_image(np.zeros((6, 1))), Random().encode_texts(texts)
    left, right = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (left, right))
    true = {(pair["item_id"], pair["caption"]) for pair in pairs}
    for way, scores, is_true in (
        ("i2t", left @ right.T, lambda q, k: (images[q], texts[k]) in true),
        ("t2i", right @ left.T, lambda q, k: (images[k], texts[q]) in true),
    ):
        for k in (1, 5, 10):
            hits = [any(is_true(q, item) for item in np.argsort(-row)[:k]) for q, row in enumerate(scores)]
            assert summary.figures[f"{way}_r{k}"].value == pytest.approx(np.mean(hits), abs=1e-6)


def test_controls_that_are_taught_have_no_place_among_captions(
    caption_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    for recipe in ("metadata-only", "linear-probe"):
        with pytest.raises(TooLittleDataError, match="has no train items to teach"):
            run(caption_data, colour_model(), recipe, tmp_path)


def test_captions_of_an_infinite_model_are_refused(
    caption_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    class Diverged(colour_model):  # type: ignore[misc, valid-type]
        def project_image(self, features: np.ndarray) -> np.ndarray:
            return features * np.float32(np.nan)

    with pytest.raises(CorruptInputError, match="training diverged"):
        run(caption_data, Diverged(), "none", tmp_path)


def test_captions_have_figures_of_a_captioner_that_retrieves(
    caption_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    figures = run(caption_data, colour_model(), "none", tmp_path)[0].figures
    assert 0 < figures["cider_d"].value <= 10
    assert 0 < figures["clip_score"].value <= 2.5


def test_tracks_are_told_apart_and_plain_is_as_without_them(
    photo_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    plain, _ = run(photo_data, colour_model(0.3), "none", tmp_path)
    found = {}
    for track in ("plain", "prompt-ensemble", "transductive"):
        (tmp_path / track).mkdir()
        how = (tmp_path / "cache", 100, tmp_path / track)
        found[track] = evaluate(
            "cover", photo_data, colour_model(0.3), "none", *how, track=track, ensemble=("{c}", "a {c}", "the {c}")
        )
    assert found["plain"] == plain
    assert "3 prompts" in found["prompt-ensemble"].classification_protocol
    assert found["transductive"].classification_protocol.endswith("transductive, centred on the test set")
    scores = np.array(pq.read_table(tmp_path / "transductive" / ITEMS_FILE)["scores"].to_pylist())
    assert (
        np.abs(scores.mean(axis=0)).max()
        < np.abs(np.array(pq.read_table(tmp_path / "plain" / ITEMS_FILE)["scores"].to_pylist()).mean(axis=0)).max()
    )


def test_what_has_no_prompts_has_no_place_on_other_tracks(
    cover_data: Path, caption_data: Path, colour_model: type[Model], tmp_path: Path
) -> None:
    for data, recipe, track in (
        (cover_data, "linear-probe", "transductive"),
        (caption_data, "none", "prompt-ensemble"),
    ):
        with pytest.raises(SettingsError, match=f"has no prompts for track {track}"):
            evaluate("x", data, colour_model(), recipe, tmp_path / "cache", 100, tmp_path, track=track)


def test_classes_without_images_are_told(photo_data: Path, colour_model: type[Model], tmp_path: Path) -> None:
    spec = json.loads((photo_data / BENCHMARK_FILE).read_text())
    spec["classes"].append({"name": "absent", "text": "building"})
    (photo_data / BENCHMARK_FILE).write_text(json.dumps(spec))
    scores, _ = run(photo_data, colour_model(), "none", tmp_path)
    assert scores.without_images == ("absent",)
    assert scores.counts["classes_without_images"] == ("absent",)
