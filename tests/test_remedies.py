"""What a message tells to do helps when it is done to the letter, and isn't told where it can't."""

import shutil
from pathlib import Path

import pytest
from conftest import Silent, write_own_folder
from PIL import Image
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_members import SPLIT, members
from test_score import PIXELS, score, ward  # noqa: F401 - a fixture

from medfsad_bench.curation.stage import PrepareOptions, SetReport, prepare
from medfsad_bench.errors import CurationError, DownloadError, MethodError
from medfsad_bench.manifest import Listed
from medfsad_bench.readers import read_picture


def prepared(folder: Path, out: Path, **options: object) -> SetReport:
    return prepare(folder, PrepareOptions(out, size_px=64), watcher=Silent(), **options)[0][0]  # type: ignore[arg-type]


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    write_own_folder(tmp_path / "clinic", seed=5, masks=False, normal=6, anomalous=4)
    return tmp_path / "clinic"


# --- own folders whose normal images are of one group


def test_copies_of_one_image_under_many_patients_are_called_near_duplicates(clinic: Path, tmp_path: Path) -> None:
    first, *others = sorted((clinic / "normal").iterdir())
    for path in others:
        shutil.copy(first, path)
    rows = [f"{path.relative_to(clinic).as_posix()},p{path.stem}" for path in clinic.rglob("*.png")]
    (clinic / "who.csv").write_text("\n".join(["path,patient", *rows]), "utf-8")
    with pytest.raises(CurationError, match="of 6 patients and near-duplicates of each other") as refusal:
        prepared(clinic, tmp_path / "out")
    assert "CSV" not in str(refusal.value)
    write_own_folder(tmp_path / "more", seed=6, masks=False, normal=3, anomalous=1)
    for path in (tmp_path / "more" / "normal").iterdir():
        shutil.copy(path, clinic / "normal" / f"differs_{path.name}")
    assert min(prepared(clinic, tmp_path / "out").counts.values()) > 0


@pytest.mark.parametrize("labelled", [False, True], ids=["beside the folders", "the table of labels"])
def test_a_wrong_grouping_is_mended_by_a_table_of_patients(clinic: Path, tmp_path: Path, labelled: bool) -> None:
    """BIDS names, which say that all normal images are of one subject."""
    for path in (clinic / "normal").iterdir():
        path.rename(path.with_name(f"sub-01_{path.name}"))
    paths = sorted(path.relative_to(clinic).as_posix() for path in clinic.rglob("*.png"))
    labels = [path.partition("/")[0] for path in paths]
    if labelled:
        rows = [f"{path},{label}" for path, label in zip(paths, labels, strict=True)]
        (clinic / "table.csv").write_text("\n".join(["path,label", *rows]), "utf-8")
        shutil.move(clinic / "normal", clinic / "ones")  # a table alone, no folders of classes
        content = (clinic / "table.csv").read_text("utf-8").replace("normal/sub", "ones/sub")
        (clinic / "table.csv").write_text(content, "utf-8")
    with pytest.raises(CurationError, match=r"one group \(sub-01\).*columns `path` and `patient` beside"):
        prepared(clinic, tmp_path / "out")
    patients = [f"p{number}" for number in range(len(paths))]
    header, table = ["path,patient"], [f"{path},{who}" for path, who in zip(paths, patients, strict=True)]
    if labelled:
        lines = (clinic / "table.csv").read_text("utf-8").splitlines()[1:]
        header, table = ["path,label,patient"], [f"{line},{who}" for line, who in zip(lines, patients, strict=True)]
    (clinic / "table.csv").write_text("\n".join([*header, *table]), "utf-8")
    assert prepared(clinic, tmp_path / "out").counts == {"train normal": 3, "test normal": 3, "test anomalous": 4}


# --- files of one's own, which nobody downloaded


def test_nobody_is_sent_to_download_images_of_their_own(clinic: Path, tmp_path: Path) -> None:
    (clinic / "masks").mkdir()
    Image.new("L", (20, 20), 255).save(clinic / "masks" / "case06.png")
    (clinic / "normal" / "case00.png").write_bytes(b"")
    bad = prepared(clinic, tmp_path / "out").quarantined
    assert bad["normal/case00"] == "case00.png: the file is empty. Get it again, or remove it."
    assert bad["anomalous/case06"].endswith("Expected the same size; mend or remove one of the two.")
    with pytest.raises(DownloadError, match=r"is missing from gone/\. Put it there\.$"):
        read_picture(tmp_path / "gone" / "a.png")
    for path in (clinic / "masks" / "case06.png", clinic / "normal" / "case00.png"):
        path.unlink()
    assert prepared(clinic, tmp_path / "out").quarantined == {}


# --- names


def test_a_name_for_one_of_two_own_sets_is_asked_for_with_its_folder(own_source: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"there are 2 .* Name one of them alone with --source\.$"):
        prepared(own_source, tmp_path / "out", name="hello")
    with pytest.raises(DownloadError, match=r"such as own_lgg\.$"):
        prepared(own_source / "ward_a", tmp_path / "out", name="lgg")
    assert prepared(own_source / "ward_a", tmp_path / "out", name="own_lgg").name == "own_lgg"


def test_an_unknown_set_is_told_with_those_that_there_are(own_source: Path, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as refusal:
        prepared(own_source, tmp_path / "out", datasets=["ward_c"])
    assert "--dataset 'ward_c' is unknown. Did you mean 'ward_" in str(refusal.value)
    assert "(ward_a, ward_b) or a set that `medfsad datasets` lists." in str(refusal.value)
    with pytest.raises(DownloadError, match=r"'rnsa' is unknown\. Did you mean 'rsna'\?.* lgg not found for benchmark"):
        prepared(own_source, tmp_path / "out", datasets=["rnsa", "lgg"])
    assert prepared(own_source, tmp_path / "out", datasets=["ward_b"]).name == "ward_b"


# --- files that aren't those of the committed list


def listed(**sides: str) -> list[Listed]:
    """Lines of a list by the image's number, of which 0 to 5 are normal and 6 to 9 anomalous."""
    numbers = {name: int(name.removeprefix("case")) for name in sides}
    ids = {name: f"{'normal' if number < 6 else 'anomalous'}/{name}" for name, number in numbers.items()}
    return [Listed(id=ids[name], group=name, split=side) for name, side in sides.items()]


@pytest.mark.parametrize("allow", [set(), {"smaller"}])
def test_files_that_contradict_the_committed_list_are_refused_before_anything_is_read(
    clinic: Path, allow: set[str]
) -> None:
    """A training image is normal, whether or not the list has a column of labels."""
    rows = [
        *listed(case00="train", case01="test", case07="train", case08="test"),
        Listed(id="x", group="x", split="test"),
    ]
    tried = members(clinic, SPLIT, rows, allow=frozenset(allow))
    with pytest.raises(CurationError, match=r"1 of the 4 listed .* \(anomalous/case07 is anomalous\)") as refusal:
        tried.choose_and_load()
    assert "--allow" not in str(refusal.value)
    assert tried.loaded == {}
    labelled = [row.model_copy(update={"label": "anomalous"}) for row in listed(case01="test", case08="test")]
    with pytest.raises(CurationError, match=r"\(normal/case01 is normal\)"):
        members(clinic, SPLIT, labelled).choose()


def test_a_smaller_set_needs_some_of_each_class_and_is_not_advised_without(clinic: Path) -> None:
    absent = Listed(id="x", group="x", split="test")
    for rows, lacks in (
        ([absent], "0 of the 1 listed images, none of them train normal, test normal, test anomalous"),
        ([*listed(case00="train", case01="test"), absent], "2 of the 3 listed images, none of them test anomalous"),
    ):
        for allow in (frozenset(), frozenset({"smaller"})):
            with pytest.raises(CurationError, match=lacks) as refusal:
                members(clinic, SPLIT, rows, allow=allow).choose()
            assert "--allow" not in str(refusal.value)
    rows = [*listed(case00="train", case01="test", case08="test"), absent]
    with pytest.raises(CurationError, match="or pass --allow smaller"):
        members(clinic, SPLIT, rows).choose()
    smaller = members(clinic, SPLIT, rows, allow=frozenset({"smaller"}))
    smaller.choose()
    assert len(smaller.chosen) == 3


# --- a threshold with other sets


@pytest.mark.parametrize(
    ("shots", "level", "ways", "mended"),
    [
        (24, 0.05, "Prepare more or larger sets, or leave", None),
        (24, 0.09, "Prepare more or larger sets, give 3 to 6 supports, or leave", (6, 0.09)),
        (8, 0.1, "Prepare more or larger sets, give 3 to 7 supports, raise --level to 0.112, or leave", (8, 0.112)),
        (9, 0.05, "Prepare more or larger sets, raise --level to 0.143, or leave", (9, 0.143)),
    ],
)
def test_sources_too_few_for_the_level_are_told_with_the_ways_that_help(
    ward: Path,  # noqa: F811
    own_data: Path,
    tmp_path: Path,
    shots: int,
    level: float,
    ways: str,
    mended: tuple[int, float] | None,
) -> None:
    write_own_folder(tmp_path / "supports", seed=9, masks=False)
    supports, sources = sorted((tmp_path / "supports" / "normal").iterdir()), own_data / "own"
    with pytest.raises(MethodError, match=ways):
        score(ward, PIXELS, out="refused", support=supports[:shots], level=level, sources=sources)
    if mended is not None:
        out = f"mended-{shots}-{level}"
        outcome = score(ward, PIXELS, out=out, support=supports[: mended[0]], level=mended[1], sources=sources)
        assert outcome.settings["level"] == mended[1]


# --- pictures


@pytest.mark.parametrize(
    "command",
    [
        ("show", "run"),
        ("inspect", "file.h5"),
        ("influence", "patchcore", "--target", "ward_a"),
        ("robustness", "patchcore"),
        ("curve", "d24fad"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("q.xyz", "--out q.xyz: pictures are written as PNG. Expected a name that ends in .png, such as q.png."),
        ("folder", "--out folder is a folder. Expected the name of a PNG, such as folder/x.png."),
        ("file/x.png", "file is no folder that takes files. Choose another --out."),
    ],
    ids=["suffix", "folder", "below a file"],
)
def test_a_picture_that_can_not_be_written_is_refused_before_the_work(
    medfsad: Medfsad,  # noqa: F811
    tmp_path: Path,
    command: tuple[str, ...],
    picture: str,
    message: str,
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    code, out, err = medfsad(*command, "--out", picture)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
