"""A user's own images in one folder per class, whatever the two are called: `Normal/ Abnormal/`, `good/ bad/`, …."""

from pathlib import Path

from medfsad_bench.errors import DownloadError

NORMAL_WORDS = frozenset({"normal", "normals", "good", "healthy", "negative"})
ANOMALOUS_WORDS = frozenset(
    {"anomalous", "anomaly", "anomalies", "abnormal", "bad", "diseased", "pathological", "positive"}
)

OWN_FORMS = (
    "Accepted forms of own images: a folder with normal/ and anomalous/ (or Normal/ Abnormal/, good/ bad/, in any "
    "case) and, if known, masks/; --normal DIR --anomalous DIR [--masks DIR] [--name NAME]; a folder with a CSV table "
    "of the columns path and label (normal or anomalous) and, if known, patient and mask, other names told by --column "
    "path=filename --column label=diagnosis --label normal=0,healthy. Images without labels: `medfsad score METHOD "
    "--support DIR --images DIR` scores them against a few normal ones."
)


def class_folders(root: Path) -> dict[str, Path]:
    """The folders of a class directly in `root`, by `normal` and `anomalous`; those of them that are there.

    Raises:
        DownloadError: If both classes are there, and one of them in two folders.
    """
    words = {"normal": NORMAL_WORDS, "anomalous": ANOMALOUS_WORDS}
    children = sorted(path for path in root.iterdir() if path.is_dir())
    named = {label: [path for path in children if path.name.lower() in of_class] for label, of_class in words.items()}
    if all(named.values()):
        for label, paths in named.items():
            if len(paths) > 1:
                raise DownloadError(
                    f"{root}: {paths[0].name}/ and {paths[1].name}/ both stand for {label}. Expected one folder; put "
                    "them together, or name one with --normal and --anomalous."
                )
    return {label: paths[0] for label, paths in named.items() if paths}
