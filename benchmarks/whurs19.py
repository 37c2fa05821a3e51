"""The evaluator against published figures: WHU-RS19 zero-shot from the embeddings that RS-TransCLIP published.

Usage: python benchmarks/whurs19.py [--data ../shared/data/benchmarks]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from skyscript_assets.lib.benchmarks.published_features import evaluate_published_features
from skyscript_assets.lib.errors import SkyScriptError

FOLDER = "whurs19_published_features"
MODELS = ("CLIP_ViT-B-32", "SkyCLIP50_ViT-B-32")
PROMPTS = ("a_satellite_photo_of_a", "a_satellite_image_of_a")


def main() -> int:
    """Print the table; the exit status is 1 where a file is missing or broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "benchmarks"
    parser.add_argument("--data", type=Path, default=default, help=f"folder that holds {FOLDER}/")
    folder = parser.parse_args().data / FOLDER
    print("WHU-RS19 zero-shot top-1, %, from published half-precision embeddings (1,005 images, 19 classes)\n")
    print(f"{'model':<20}{'photo prompt':>14}{'image prompt':>14}{'mean of two':>14}{'mean prompt':>14}")
    try:
        for model in MODELS:
            figures = evaluate_published_features(folder / f"{model}.safetensors")
            shares = [*(figures.by_prompt[p] for p in PROMPTS), figures.mean_of_prompts, figures.mean_prompt]
            print(f"{model:<20}" + "".join(f"{100 * share:>14.2f}" for share in shares))
    except SkyScriptError as error:
        print(error, file=sys.stderr)
        return 1
    print("\nPublished (RS-TransCLIP, photo prompt): CLIP 76.72, SkyCLIP-50 89.95.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
