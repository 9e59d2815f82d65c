"""The prepared file: the data set read from it, its writer, contact sheets and exports."""

from medfsad_bench.store.dataset import Dataset, prepared_files
from medfsad_bench.store.integrity import verify_store

__all__ = ["Dataset", "prepared_files", "verify_store"]
