"""MedFSAD: few-shot anomaly detection in medical images, measured so that anyone can recompute the number."""

from importlib.metadata import version

__version__ = version("medfsad")
