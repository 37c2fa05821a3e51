import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.files import inside, is_name, picture_file


@pytest.mark.parametrize(
    "name", ["helsinki", "S2", "aligned-0", "part-00001.tar", "a_b.c-d", "w1_S2_20200601_ab12.jpg"]
)
def test_names_of_files_and_folders_pass(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", ".a", "-a", "_a", "a.", "a..b", "a b", "a\n", "a|b", "a:b"]
)
def test_what_leads_elsewhere_or_is_another_name_elsewhere_is_no_name(name: str) -> None:
    assert not is_name(name)


def test_a_path_of_a_table_stays_in_its_folder(tmp_path: Path) -> None:
    assert inside(tmp_path, "kotka/SYN1/part-00001.tar") == tmp_path / "kotka/SYN1/part-00001.tar"
    for name in ("../x", "a/../../x", "/etc/passwd", ".."):
        with pytest.raises(CorruptInputError, match="leads out of it"):
            inside(tmp_path, name)


def test_a_picture_on_a_full_disk_is_an_error_and_no_half_a_picture(small_disk: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8))
    path = small_disk / "a.jpg"
    (small_disk / "filler").write_bytes(bytes(os.statvfs(small_disk).f_bavail * 4096 - 20_000))
    with pytest.raises(OSError, match="No space left"), picture_file(path) as buffer:
        noise.save(buffer, format="JPEG", quality=95)
    assert [each.name for each in small_disk.iterdir()] == ["filler"]
