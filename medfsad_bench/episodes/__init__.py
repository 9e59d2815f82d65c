"""Who is support and who is query: the episodes of a prepared set."""

from medfsad_bench.episodes.episodes import Episodes

__all__ = ["Episodes"]
