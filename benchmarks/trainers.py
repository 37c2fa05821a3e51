"""What feeds a trainer: batches of the recipe `clip` beside open_clip's CSV and WebDataset loaders, by processor time.

    python benchmarks/trainers.py
    python benchmarks/trainers.py --pairs 2000 --side 300 --runs 5

Made-up JPEGs, each contender a process of its own on one core, `--runs` times in turn. All give shuffled batches of 64
at 224 pixels with token ids: ours as `lib.training.loader` makes them (augmentation, digests held against the images),
open_clip's by its own transforms for training (crop 0.67-1.0, ratio 0.5-2.0, colour jitter 0.4), CSV from files,
WebDataset from tars, no workers. What is counted is pairs a second of the processor, which other work on the machine
hardly changes. Then the steps of ours are timed apart.

`--whole` trains instead: `train_clip` beside `open_clip_train.main` of the same model (`--model`), pairs and batch, in
float32 on all cores, with two workers; both write weights and optimiser after each epoch. What one epoch takes is the
difference of the runs of one and of three, so that starting and loading do not count. `--gpu` measures, on whatever
device there is, which share of the rate on one batch that lies on the device the same step has when it is fed; on a
GPU in bfloat16.
"""

import csv
import hashlib
import io
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg

BATCH, MODEL, EPOCHS = 64, "ViT-B-32", (1, 3)


def made(work: Path, pairs: int, side: int) -> None:
    """Write the pairs as each contender reads them."""
    from skyscript_assets.lib.tables import write_table
    from skyscript_assets.lib.tar import TarShard

    rng, rows = np.random.default_rng(0), []
    (work / "files").mkdir()
    coarse = rng.integers(0, 256, (pairs, side // 8, side // 8, 3), dtype=np.uint8)
    with TarShard(work / "000000.tar") as shard, (work / "pairs.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("filepath", "title"))
        for number in range(pairs):
            image = np.ascontiguousarray(coarse[number].repeat(8, 0).repeat(8, 1))
            data, text = (
                simplejpeg.encode_jpeg(image, quality=90),
                f"a satellite image of building, levels of {number % 50}, surrounded by road",
            )
            entry = shard.add(f"w{number:08d}.jpg", data)
            shard.add(f"w{number:08d}.txt", text.encode())
            path = work / "files" / f"{number}.jpg"
            path.write_bytes(data)
            lines.writerow((path, text))
            rows.append((f"w{number:08d}", "here/S/000000.tar", *entry, hashlib.sha256(data).hexdigest(), text))
    names = ("chip_id", "image_shard", "image_offset", "image_length", "image_sha256", "title")
    table = pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)))
    boxes = pa.array([[8, 8, side // 2, side // 2]] * pairs, pa.list_(pa.int32(), 4))
    table = table.append_column("focus_box", boxes)
    same = {"region": "here", "source": "S", "split": "train", "rank_share": 0.0, "eligible": True}
    for name, value in same.items():
        table = table.append_column(name, pa.array([value] * pairs))
    cells = pa.array([f"{number % 9}/0" for number in range(pairs)])
    write_table(work / "pairs.parquet", table.append_column("cell", cells))


def ours(work: Path, model: str = MODEL) -> Any:
    """Batches of the recipe."""
    from skyscript_assets.lib.settings.models import ClipRecipe, OpenClipBase
    from skyscript_assets.lib.tables import read_table
    from skyscript_assets.lib.towers.bases import load_base
    from skyscript_assets.lib.training.loader import Split
    from skyscript_assets.lib.training.ranks import Ranks

    base = load_base(OpenClipBase(name=model), {}, 0)
    pairs = read_table(work / "pairs.parquet")
    recipe = ClipRecipe(lr=1e-9, batch_size=BATCH)
    split = Split(pairs, recipe, {("here", "S"): work}, base, 0, 1, Ranks())
    order = np.random.default_rng(0).permutation(len(pairs))
    dealt = (order[at : at + BATCH] for at in range(0, len(order) - BATCH + 1, BATCH))
    return base, split, [(1, batch, split.said.first(batch)) for batch in dealt]


def peers(work: Path, kind: str) -> Any:
    """Batches of open_clip's loaders, with its own transforms."""
    import open_clip
    from open_clip_train.data import get_csv_dataset, get_wds_dataset

    augmentation = {"use_timm": True, "scale": (0.67, 1.0), "ratio": (0.5, 2.0), "color_jitter": (0.4, 0.4, 0.4, 0.0)}
    transform = open_clip.image_transform(224, is_train=True, aug_cfg=augmentation)
    rows = len((work / "pairs.csv").read_text().splitlines()) - 1
    data = str(work / ("pairs.csv" if kind == "csv" else "000000.tar"))
    options = SimpleNamespace(
        train_data=data, val_data=None, csv_img_key="filepath", csv_caption_key="title", csv_separator=",",
        distributed=False, batch_size=BATCH, workers=0, dataset_resampled=False, train_num_samples=rows, seed=0,
        world_size=1, train_data_upsampling_factors=None,
    )  # fmt: skip
    make = get_csv_dataset if kind == "csv" else get_wds_dataset
    return make(options, transform, is_train=True, tokenizer=open_clip.get_tokenizer(MODEL)).dataloader


def one_pass(name: str, work: Path) -> None:
    """Make all batches once; prints pairs and seconds of the processor."""
    import torch

    from skyscript_assets.lib.threads import limit_libraries

    limit_libraries()
    torch.set_num_threads(1)
    of_all: Any
    of_one: Any
    if name == "ours":
        _, split, order = ours(work)
        of_all, of_one = partial(split.batches, order), partial(split.batches, order[:1])
    else:
        of_all = of_one = partial(iter, peers(work, name))
    next(of_one())  # loads and compiles what is loaded and compiled once
    cpu = time.process_time()
    seen = sum(len(batch[-1]) for batch in of_all())
    print("pairs", seen, "cpu_s", time.process_time() - cpu)


def whole(name: str, work: Path, model: str, epochs: int) -> None:
    """Train for some epochs."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "ours":
            from skyscript_assets.lib.settings.models import ClipRecipe, OpenClipBase, TrainedModel
            from skyscript_assets.lib.towers.bases import load_base
            from skyscript_assets.lib.training.pretrain import train_clip

            recipe = ClipRecipe(lr=1e-6, batch_size=BATCH, epochs=epochs, warmup_steps=2)
            settings = TrainedModel(title="Whole", base="b", recipe=recipe, seed=0)
            base = load_base(OpenClipBase(name=model), {}, 0)
            train_clip(work / "pairs.parquet", {("here", "S"): work}, base, settings, Path(folder))
        else:
            from open_clip_train.main import main as train

            augmentation = ["use_timm=True", "scale=(0.67, 1.0)", "ratio=(0.5, 2.0)", "color_jitter=(0.4, 0.4, 0.4, 0)"]
            options = {
                "train-data": work / "pairs.csv", "csv-img-key": "filepath", "csv-caption-key": "title",
                "csv-separator": ",", "dataset-type": "csv", "batch-size": BATCH, "epochs": epochs, "workers": 2,
                "model": model, "lr": 1e-6, "wd": 1.0, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6, "warmup": 2,
                "precision": "fp32", "device": "cpu", "logs": folder,
            }  # fmt: skip
            given = [part for key, value in options.items() for part in (f"--{key}", str(value))]
            train([*given, "--aug-cfg", *augmentation])


def profile(work: Path) -> None:
    """Print microseconds of the processor that each step of ours takes a pair."""
    from measuring import print_head, print_row
    from PIL import Image

    from skyscript_assets.lib.towers.resample import jittered, resized, turned
    from skyscript_assets.lib.towers.views import augmented_view, decode_image, view_rng

    files = [path.read_bytes() for path in sorted((work / "files").iterdir())[:200]]
    images = [decode_image(data, "made up") for data in files]
    box = (8, 8, 290, 280)
    planes = [resized(image, box, 224) for image in images]
    steps = {
        "digest": lambda i: hashlib.sha256(files[i]).hexdigest(),
        "decoding, libjpeg-turbo": lambda i: decode_image(files[i], "made up"),
        "decoding, Pillow (open_clip)": lambda i: Image.open(io.BytesIO(files[i])).convert("RGB"),
        "bicubic to 224": lambda i: resized(images[i], box, 224),
        "bicubic to 224, Pillow (open_clip)": lambda i: Image.fromarray(images[i]).resize((224, 224), 3, box=box),
        "colour jitter": lambda i: jittered(planes[i], 1.1, 0.9, 1.2),
        "rotation, three bytes a pixel": lambda i: turned(planes[i], i % 4),
        "the whole view": lambda i: augmented_view(images[i], (8, 8, 100, 100), 224, view_rng(0, "a", i)),
    }
    print("\nprocessor time of a pair\n")
    print_head("step", "µs")
    for name, step in steps.items():
        cpu = time.process_time()
        for number in range(len(files)):
            step(number)
        print_row(name, f"{(time.process_time() - cpu) / len(files) * 1e6:.0f}")


def share_of_device(work: Path, model: str) -> None:
    """Print what share of the rate on a batch that lies on the device the fed step has, and memory."""
    import torch

    from skyscript_assets.lib.training.losses import loss_of
    from skyscript_assets.lib.training.optimisation import adamw

    base, split, order = ours(work, model)
    network, device = base.network.train(), base.device
    optimiser = adamw(dict(network.named_parameters()), 1e-9, 1.0, fused=device.type == "cuda")
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def rate(batches: Any) -> float:
        started, seen = 0.0, 0
        for number, (_, ids, pixels) in enumerate(batches):
            if number == 1:
                wait()
                started = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu"):
                images, texts = network.encode_image(base.pixels(pixels)), network.encode_text(ids)
            loss_of("softmax")(images.float(), texts.float(), network.logit_scale, None).backward()
            optimiser.step()
            optimiser.zero_grad()
            seen += len(ids) if number else 0
        wait()
        return seen / (time.perf_counter() - started)

    one = next(iter(split.batches(order[:1])))
    resting, fed = rate([one] * len(order)), rate(split.batches(order))
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    print(f"{model}, {device}: {resting:.1f} pairs/s at rest, {fed:.1f} fed ({fed / resting:.1%}); {memory:.1f} GB")


def main() -> None:
    """Run the command."""
    from measuring import in_turn, options_of, parser_of, print_rates, run_apart

    parser = parser_of(__doc__)
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--side", type=int, default=304, help="of the images, pixels")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="whole trainers")
    parser.add_argument("--model", default="ViT-S-32-alt", help="of whole trainers, and of --gpu")
    parser.add_argument("--gpu", action="store_true", help="share of a step's rate with the loader")
    options = options_of(parser)
    core = sorted(os.sched_getaffinity(0))[-1:]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path[1:]])
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder), options.pairs, options.side)
        if options.gpu:
            share_of_device(Path(folder), options.model)
            return

        def taken(name: str, epochs: int) -> np.ndarray[Any, Any]:
            command = [sys.executable, __file__, "--train", name, folder, options.model, str(epochs)]
            before = sum(getrusage(RUSAGE_CHILDREN)[:2])
            seconds = run_apart(command, (), {"PYTHONPATH": path}).process_s
            return np.array([seconds, sum(getrusage(RUSAGE_CHILDREN)[:2]) - before])

        def pairs_a_minute(name: str) -> list[float]:
            few, many = (taken(name, epochs) for epochs in EPOCHS)
            return list(60 * options.pairs * (EPOCHS[1] - EPOCHS[0]) / (many - few))

        if options.whole:
            found = in_turn({name: partial(pairs_a_minute, name) for name in ("ours", "open_clip")}, options.runs)
            print(f"{options.model}, batches of {BATCH}, medians of {options.runs}\n")
            for number, unit in enumerate(("pairs a minute", "pairs a minute of the processor")):
                print_rates(unit, {name: [run[number] for run in runs] for name, runs in found.items()}, "ours")
                print()
            return

        def apart(name: str) -> float:
            run = run_apart([sys.executable, __file__, "--only", name, folder], core, {"PYTHONPATH": path})
            told = dict(zip(*[iter(run.printed.split())] * 2, strict=True))
            return float(told["pairs"]) / float(told["cpu_s"])

        names = ("ours", "csv", "webdataset")
        rates = in_turn({name: partial(apart, name) for name in names}, options.runs)
        print(f"{options.pairs:,} pairs of {options.side} px, seconds of the processor, medians of {options.runs}\n")
        print_rates("pairs/s", rates, "ours")
        profile(Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only"]:
        one_pass(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--train"]:
        whole(sys.argv[2], Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
    else:
        main()
