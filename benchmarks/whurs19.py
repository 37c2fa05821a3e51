"""Our metrics against published figures: WHU-RS19 zero-shot from the embeddings that RS-TransCLIP published.

    python benchmarks/whurs19.py

Published (RS-TransCLIP, photo prompt): CLIP 76.72, SkyCLIP-50 89.95.
"""

from pathlib import Path

from measuring import SHARED_DATA, options_of, parser_of, print_head, print_row
from published_features import evaluate_published_features

FOLDER = "whurs19_published_features"
MODELS = {"CLIP ViT-B-32": "CLIP_ViT-B-32", "SkyCLIP-50 ViT-B-32": "SkyCLIP50_ViT-B-32"}
PROMPTS = ("a_satellite_photo_of_a", "a_satellite_image_of_a")


def main() -> None:
    """Print the table: top-1, %, of 1,005 images and 19 classes by half-precision embeddings."""
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, default=SHARED_DATA / "benchmarks", help=f"folder that holds {FOLDER}/")
    options = options_of(parser)
    print_head("model", "photo prompt", "image prompt", "mean of both figures", "mean of both prompts")
    for title, model in MODELS.items():
        figures = evaluate_published_features(options.data / FOLDER / f"{model}.safetensors")
        shares = [*(figures.by_prompt[prompt] for prompt in PROMPTS), figures.mean_of_prompts, figures.mean_prompt]
        print_row(title, *(f"{100 * share:.2f}" for share in shares))


if __name__ == "__main__":
    main()
