"""A tiny model and jobs for the processes that train it, as tests and measurements start them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
from safetensors.torch import save_file

from tests.unit.lib.conftest import Town

ROOT = Path(__file__).resolve().parents[1]
NETWORK = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PIXELS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
RECIPE = {"kind": "clip", "lr": 2e-3, "epochs": 13, "batch_size": 8, "warmup_steps": 3, "weight_decay": 0.1}


def make_base(folder: Path) -> dict[str, Any]:
    """A base that another process finds too: a folder as open_clip writes it."""
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": NETWORK, "preprocess_cfg": PIXELS}))
    save_file(open_clip.create_model(f"local-dir:{folder}").state_dict(), folder / "open_clip_model.safetensors")
    return {"kind": "open_clip", "name": f"local-dir:{folder}"}


def make_job(
    town: Town, base: dict[str, Any], out: Path, machine: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    """The job of a run in a folder, as plain values and as its file; `fields` replace some of the recipe's."""
    out.mkdir(parents=True)
    job = {
        "manifest": str(town.manifest),
        "chips": {"/".join(key): str(folder) for key, folder in town.folders.items()},
        "out": str(out),
        "model": {"title": "Tiny", "base": "tiny", "seed": 3, "recipe": RECIPE | fields},
        "base": base,
        "machine": machine or {},
    }
    (out / "job.json").write_text(json.dumps(job))
    return job


def start(out: Path, ranks: int = 1, *options: str, **streams: Any) -> subprocess.Popen[str]:
    """The worker as its documentation says, by itself or under torchrun, in a session of its own."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)) if ranks > 1 else ()
    return subprocess.Popen(
        [sys.executable, *torchrun, "-m", "skyscript_assets.training.worker", str(out / "job.json"), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **streams,
    )


def rank_of(pid: int) -> str | None:
    """The rank that torchrun gave a process, None where it has none or is gone."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return next((v[5:].decode() for v in variables if v.startswith(b"RANK=")), None)


def ranks_of(process: subprocess.Popen[str]) -> dict[str, int]:
    """Processes of the ranks below torchrun, by rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return {rank: int(pid) for pid in children if (rank := rank_of(int(pid))) is not None}
