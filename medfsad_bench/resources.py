"""Where the data files that come with the package lie: in a wheel inside it, in a checkout beside it."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: str) -> Path:
    """Folder `data_manifests` or `leaderboard`.

    Args:
        name: The folder's name at the top of the checkout.

    Returns:
        `medfsad_bench/_data/<name>` of an installed wheel, else `<checkout>/<name>`.
    """
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name
