"""The prepared file: the data set read from it, its writer, contact sheets and exports."""

from medfsad_bench.store.dataset import Dataset
from medfsad_bench.store.integrity import verify_store
from medfsad_bench.store.prepared import prepared_files

__all__ = ["Dataset", "prepared_files", "verify_store"]
