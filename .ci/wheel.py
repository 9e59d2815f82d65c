"""What a wheel takes of leaderboard/: pages and rows, but not the scores that rows were recomputed from.

A board without scores tells methods apart by their intervals; the scores are in the repository and the source package.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LeaderboardWithoutScores(BuildHookInterface[Any]):
    """Adds the files by name, since hatchling's `force-include` of a folder leaves nothing out."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the files of a wheel are collected; an editable one reads the folder of the checkout."""
        root = Path(self.root)
        for path in sorted((root / "leaderboard").rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and version != "editable" and not name.startswith("leaderboard/results/runs/"):
                build_data["force_include"][str(path)] = f"medfsad_bench/_data/{name}"
