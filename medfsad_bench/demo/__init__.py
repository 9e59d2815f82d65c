"""Generated raw downloads: anatomy-like phantoms in the true layouts of six public sets, to try everything offline."""

from medfsad_bench.demo.downloads import write_demo_downloads

__all__ = ["write_demo_downloads"]
