"""Files of a folder that no image, mask or table stands for: named, never passed over."""

from collections.abc import Iterable
from pathlib import Path

from medfsad_bench.layouts.finding import Finding, first_of, within
from medfsad_bench.layouts.headers import kind_of
from medfsad_bench.layouts.table_file import TABLE_SUFFIXES


def unused_files(files: Iterable[Path], root: Path) -> list[Finding]:
    """One finding for images that aren't used, one for tables, one for whatever else lies there.

    Args:
        files: All that have neither a use nor a finding of their own.
        root: Of the download, for messages.
    """
    kinds: dict[str, list[str]] = {"unused-images": [], "unused-table": [], "unused-files": []}
    for path in sorted(set(files)):
        is_table = path.suffix.lower() in TABLE_SUFFIXES - {".txt"}
        fault = "unused-table" if is_table else "unused-images" if kind_of(path) else "unused-files"
        kinds[fault].append(within(path, root))
    advice = {
        "unused-images": "image(s) in no folder of a class and in no row of a table: not used. Move or list them",
        "unused-table": "table(s) not used: expected a column of paths (path, file, image) that names files of this "
        "folder, and one of patients, labels or masks",
        "unused-files": "file(s) that are no images: not used",
    }
    return [
        Finding(fault, first_of(names), f"{len(names)} {advice[fault]}", stops=False)
        for fault, names in kinds.items()
        if names
    ]
