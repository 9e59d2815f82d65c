"""The prepared file: the data set read from it, its writer, contact sheets and exports."""

from medfsad_bench.store.dataset import Dataset, verify_store

__all__ = ["Dataset", "verify_store"]
