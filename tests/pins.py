"""Data versions of the tiny profile, pinned: `python -m tests.pins` runs it and writes them to `pins.json`.

Numerical libraries choose instructions by the machine, and their last bits differ by that. The profile is therefore run
with the instructions that every x86-64 processor has. On how many threads it runs makes no difference.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from numpy._core import _multiarray_umath as umath

from skyscript_assets.assets import STAGES
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.partitions import partitions_of
from tests.workshop import tiny_files, write_profile

PINS = Path(__file__).with_suffix(".json")


def environment(home: Path) -> dict[str, str]:
    """Variables for a process that runs the profile in `home`, wherever the machine may be."""
    features = [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__.get(name)]
    without = "AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-FMA4,-AVX512F"
    return {
        **os.environ,
        "OPENBLAS_CORETYPE": "NEHALEM",
        "MKL_CBWR": "COMPATIBLE",
        "ATEN_CPU_CAPABILITY": "default",
        "DNNL_MAX_CPU_ISA": "SSE41",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NPY_DISABLE_CPU_FEATURES": " ".join(features),
        "GLIBC_TUNABLES": f"glibc.cpu.hwcaps=-{without}",
        "ARROW_USER_SIMD_LEVEL": "NONE",
        "SKYSCRIPT_SETTINGS": str(home / "profile"),
        "SKYSCRIPT_DATA": str(home / "data"),
        "DAGSTER_HOME": str(home / ".dagster"),
        "COLUMNS": "200",
    }


def versions(home: Path) -> dict[str, dict[str, str]]:
    """Code version and data version of every output in `home`, by name."""
    settings, store = load_settings(home / "profile"), Store(home / "data")
    found = {}
    for stage in STAGES.values():
        for partition in partitions_of(stage.scheme, settings):
            key = stage.key(settings, partition)
            record = store.record(key)
            assert record is not None, f"{key} was not made"
            found[str(key)] = {"code": str(record.made_from["code"]), "data": record.data_version}
    return found


def changed(home: Path) -> list[str]:
    """Outputs whose bytes are others under the pinned code version, and what to do; new and raised ones pass."""
    pinned = json.loads(PINS.read_text(encoding="utf-8"))
    return [
        f"{name}: other bytes under code version {now['code']}. Where the change is meant, raise the asset's "
        "code_version in skyscript_assets/assets (or the version of the source's kind), then: python -m tests.pins"
        for name, now in versions(home).items()
        if name in pinned and now["code"] == pinned[name]["code"] and now["data"] != pinned[name]["data"]
    ]


def main() -> None:
    """Run the profile in an empty folder and pin what it made."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_profile(home / "profile", tiny_files())
        command = [sys.executable, "-m", "skyscript_assets.cli", "demo"]
        subprocess.run(command, env=environment(home), cwd=Path(__file__).parents[1], check=True)
        PINS.write_text(json.dumps(versions(home), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
