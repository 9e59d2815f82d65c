"""What a user is told when something is wrong: one paragraph, exit code 2, no traceback.

A message says what was found, where, what was expected and what to do, in this order, with the value quoted.
"""

import difflib
from collections.abc import Iterable


class MedfsadError(Exception):
    """A mistake that the user can mend. The command line prints it as one paragraph and exits with 2."""


class DownloadError(MedfsadError):
    """A raw file or folder can't be read as what it should be."""


class ManifestError(MedfsadError):
    """A manifest is malformed, unknown or contradicts the data it describes."""


class CurationError(MedfsadError):
    """A set as a whole is not what its manifest promises: counts off, a group on both sides of the split."""


class StoreError(MedfsadError):
    """A prepared file is missing, damaged or of a schema that this version can't read."""


class MethodError(MedfsadError):
    """A method is unknown, wrongly configured, or broke the contract of the interface."""


class UnfitMethodError(MethodError):
    """A method can't do what a command asks of it, on whatever target."""


class WeightsError(MedfsadError):
    """Pretrained weights or a checkpoint can't be had or don't fit."""


class MetricError(MedfsadError):
    """A metric is undefined for this input (a class is missing, a score is not finite)."""


class ResultsError(MedfsadError):
    """A run, a row or a file of results is damaged, unfinished or contradicts another."""


class DiskError(ResultsError):
    """A folder of results takes no files, so nothing else can be kept there either."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """What to add to a message about an unknown name: the choice that is spelt most alike, if any is.

    >>> nearest("patchcoer", ["patchcore", "padim"])
    " Did you mean 'patchcore'?"
    >>> nearest("kidney", ["lgg", "rsna"])
    ''
    """
    matches = difflib.get_close_matches(name, list(choices), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
