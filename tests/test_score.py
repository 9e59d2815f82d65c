"""`medfsad score`: own images against a few normal ones, as a user meets it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Silent, write_own_folder
from PIL import Image
from sklearn.metrics import roc_auc_score

import medfsad_bench as medfsad
from medfsad_bench.errors import CurationError, DownloadError, MethodError
from medfsad_bench.own_images.detector import Answer, Detector
from medfsad_bench.own_images.folder import Outcome, ScoreOptions, score_folder
from medfsad_bench.own_images.reading import ReadingOptions
from medfsad_bench.own_images.support import suspects
from medfsad_bench.own_images.threshold import support_threshold
from medfsad_bench.own_images.trained import MethodOptions
from medfsad_bench.store import Dataset

PATCHES = MethodOptions("multistage", preset="quick", device="cpu")
PIXELS = MethodOptions("pixel_distance", device="cpu")


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight supports and new images, some with a bright disc; beside them what isn't an image."""
    root = tmp_path_factory.mktemp("ward")
    write_own_folder(root, seed=5, masks=False, normal=16, anomalous=6)
    (root / "support").mkdir()
    for path in sorted((root / "normal").iterdir())[:8]:
        path.rename(root / "support" / path.name)
    (root / "new").mkdir()
    for path in (*(root / "normal").iterdir(), *(root / "anomalous").iterdir()):
        path.rename(root / "new" / path.name)
    (root / "new" / "cut.png").write_bytes((root / "new" / "case08.png").read_bytes()[:300])
    (root / "new" / "notes.txt").write_text("not an image", "utf-8")
    Image.new("L", (80, 96), 7).save(root / "new" / "blank.png")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (96, 80, 3), np.uint8)).save(root / "new" / "colour.png")
    shutil.copy(root / "support" / "case00.png", root / "new" / "again.png")
    return root


@pytest.fixture(scope="module")
def scored(ward: Path) -> tuple[Outcome, Path]:
    """The ward scored by patches, with 16-bit maps."""
    labels = ward / "labels.csv"
    numbers = range(8, 22)
    rows = [f"case{number:02d}.png,{'normal' if number < 16 else 'anomalous'}" for number in numbers]
    labels.write_text("\n".join(["file,label", *rows]), "utf-8")
    return score(ward, PATCHES, out="patches", labels=labels, plain_maps=True), ward / "patches"


def score(ward: Path, method: MethodOptions, *, out: str, **options: object) -> Outcome:
    given = {"support": [ward / "support"], "images": [ward / "new"], "reading": ReadingOptions(64), **options}
    return score_folder(ScoreOptions(out=ward / out, method=method, **given), Silent())  # type: ignore[arg-type]


def test_lesions_are_flagged_and_named_first(scored: tuple[Outcome, Path]) -> None:
    table = scored[0].table.set_index("file")
    lesions = [f"case{number:02d}.png" for number in range(16, 22)]
    assert set(table.drop("colour.png").sort_values("score").index[-6:]) == set(lesions)
    assert table.loc[lesions, "flagged"].all()
    assert (table.loc[lesions, "percentile"] == 100).all()


def test_what_cannot_be_scored_is_a_line_with_its_reason(scored: tuple[Outcome, Path]) -> None:
    reasons = {item.name: item.reason for item in scored[0].left_out}
    assert set(reasons) == {"cut.png", "notes.txt", "blank.png", "again.png"}
    assert "blank" in reasons["blank.png"]
    assert "the support case00.png" in reasons["again.png"]


def test_a_picture_in_colour_among_grey_ones_is_not_comparable_and_not_flagged(scored: tuple[Outcome, Path]) -> None:
    row = scored[0].table.set_index("file").loc["colour.png"]
    assert "in colour" in row["not_comparable"]
    assert not row["flagged"]


def test_the_tables_say_the_same_and_name_files_that_are_there(scored: tuple[Outcome, Path]) -> None:
    outcome, folder = scored
    csv = pd.read_csv(folder / "scores.csv", keep_default_na=False)
    parquet = pd.read_parquet(folder / "scores.parquet")
    np.testing.assert_array_equal(csv["score"], parquet["score"])
    np.testing.assert_array_equal(parquet["score"], outcome.table["score"])
    assert all((folder / name).is_file() for name in (*csv["overlay"], *csv["map"]))


def test_a_16_bit_map_is_highest_in_the_lesion(scored: tuple[Outcome, Path], ward: Path) -> None:
    plain = np.asarray(Image.open(scored[1] / "maps" / "case16.png.map.png"))
    picture = np.asarray(Image.open(ward / "new" / "case16.png"))
    assert plain.dtype == np.uint16
    assert plain.shape == picture.shape
    row, column = np.unravel_index(plain.argmax(), plain.shape)
    rows, columns = np.nonzero(picture == 250)
    assert np.hypot(rows.mean() - row, columns.mean() - column) < 16


def test_figures_of_labels_are_those_of_scikit_learn(scored: tuple[Outcome, Path]) -> None:
    table = scored[0].table[scored[0].table["file"].str.startswith("case")]
    truth = table["file"] >= "case16"
    figures = scored[0].settings["figures"]
    assert figures["image AUROC"].startswith(f"{roc_auc_score(truth, table['score']):.3f}")
    assert figures["Sensitivity at the threshold"].startswith("1.000")


def test_the_report_needs_nothing_else_and_says_first_what_it_is_not(scored: tuple[Outcome, Path]) -> None:
    html = (scored[1] / "report.html").read_text("utf-8")
    body = html[html.index("</style>") :]
    assert re.sub(r"<[^>]+>", "", body).strip().startswith("Research use, not a medical device.")
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", html)
    cards = json.loads(re.search(r'id="cards">(.*?)</script>', html, re.DOTALL)[1])  # type: ignore[index]
    assert [card["f"] for card in cards] == list(scored[0].table["file"])
    assert scored[0].settings["promise"].split(":")[0] in html


def test_a_name_that_is_markup_stays_a_name(ward: Path) -> None:
    new = ward / "odd"
    new.mkdir()
    shutil.copy(ward / "new" / "case08.png", new / "<img src=x onerror=alert(1)>.png")
    shutil.copy(ward / "new" / "case09.png", new / "=1+1.png")
    score(ward, PIXELS, out="odd-out", images=[new])
    assert "<img src=x" not in (ward / "odd-out" / "report.html").read_text("utf-8")
    assert "'=1+1.png" in (ward / "odd-out" / "scores.csv").read_text("utf-8")


def test_a_score_depends_on_no_other_new_image(scored: tuple[Outcome, Path], ward: Path) -> None:
    alone = score(ward, PATCHES, out="alone", images=[ward / "new" / "case17.png"]).table
    together = scored[0].table.set_index("file").loc["case17.png"]
    assert alone["score"].item() == together["score"]
    assert alone["flagged"].item() == together["flagged"]


def test_a_broken_run_leaves_no_folder_and_goes_on_where_it_was(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medfsad_bench.own_images.blocks._BLOCK", 4)
    whole = score(ward, PIXELS, out="whole")
    read: list[int] = []

    class Breaking(Silent):
        def advance(self, steps: int) -> None:
            read.append(steps)
            if stop_at and sum(read) > stop_at:
                raise KeyboardInterrupt

    given = ScoreOptions([ward / "support"], [ward / "new"], ward / "broken", PIXELS, ReadingOptions(64))
    stop_at = 8 + 8 + 19 + 9  # files looked at, supports, and so many images
    with pytest.raises(KeyboardInterrupt):
        score_folder(given, Breaking())
    assert not given.out.exists()
    kept = list((ward / ".broken.unfinished").rglob("rows/*.json"))
    assert kept
    stop_at = 0
    scored: list[int] = []
    real = Detector.answer

    def counted(detector: Detector, pixels: np.ndarray) -> Answer:
        scored.append(len(pixels))
        return real(detector, pixels)

    monkeypatch.setattr(Detector, "answer", counted)
    again = score_folder(given, Breaking())
    assert 0 < sum(scored) < len(whole.table), "what was finished isn't scored again"
    pd.testing.assert_frame_equal(again.table, whole.table)
    assert not (ward / ".broken.unfinished").exists()
    assert score_folder(given, Silent()).done_before


def test_nothing_in_the_way_is_overwritten(scored: tuple[Outcome, Path], ward: Path) -> None:
    (ward / "diary").mkdir()
    (ward / "diary" / "diary.txt").write_text("mine", "utf-8")
    with pytest.raises(CurationError, match="something else"):
        score(ward, PIXELS, out="diary")
    with pytest.raises(CurationError, match="other images or settings"):
        score(ward, PIXELS, out="patches")
    assert (ward / "diary" / "diary.txt").read_text("utf-8") == "mine"


def test_an_anomaly_among_the_supports_is_named(ward: Path) -> None:
    mixed = ward / "mixed"
    shutil.copytree(ward / "support", mixed)
    shutil.copy(ward / "new" / "case18.png", mixed / "wrong.png")
    outcome = score(ward, PATCHES, out="mixed-out", support=[mixed])
    assert list(outcome.settings["suspects"]) == ["wrong.png"]
    assert "may not be normal" in (ward / "mixed-out" / "report.html").read_text("utf-8")


def test_one_support_gives_a_ranking_and_no_threshold(ward: Path) -> None:
    outcome = score(ward, PIXELS, out="single", support=[ward / "support" / "case01.png"])
    assert outcome.settings["threshold"] is None
    assert not outcome.table["flagged"].any()
    assert "No threshold" in outcome.settings["promise"]
    assert any("one image" in note for note in outcome.settings["notes"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"support": [Path("nowhere")]}, DownloadError, "no such file"),
        ({"level": 1.5}, MethodError, "--level"),
        ({"method": MethodOptions("d24fad", preset="quick")}, MethodError, "--checkpoint"),
    ],
    ids=["nowhere", "level", "untrained"],
)
def test_a_wrong_use_says_what_to_do(ward: Path, change: dict[str, object], error: type, message: str) -> None:
    given = {"method": PIXELS, "out": "wrong", **change}
    with pytest.raises(error, match=message):
        score(ward, **given)  # type: ignore[arg-type]
    assert not (ward / "wrong").exists()


def test_labels_that_say_nothing_are_refused(ward: Path) -> None:
    for name, content, message in (
        ("columns.csv", "a,b\n1,2\n", "no column"),
        ("words.csv", "file,label\ncase08.png,maybe\n", "line 2"),
        ("others.csv", "file,label\nelsewhere.png,normal\n", "none of its 1 row"),
    ):
        (ward / name).write_text(content, "utf-8")
        with pytest.raises(DownloadError, match=message):
            score(ward, PIXELS, out="unlabelled", labels=ward / name)


def test_images_of_one_patient_count_once_for_the_threshold() -> None:
    scores = np.array([0.1, 0.9, 0.2, 0.3, 0.4])
    threshold = support_threshold(scores, ["a", "a", "b", "c", "d"], level=0.2)
    assert threshold.calibration.tolist() == [0.2, 0.3, 0.4, 0.9]
    assert (threshold.value, threshold.level) == (0.9, 0.2)
    assert "patients or volumes" in threshold.promise


def test_the_promise_of_the_level_holds_for_exchangeable_normals(rng_rounds: Callable[[], np.ndarray]) -> None:
    """Of a new normal's scores at most `level` lie above: 500 draws of K + 1 from one distribution."""
    for count, level in ((4, 0.2), (19, 0.05), (30, 0.1)):
        draws = rng_rounds()[:, : count + 1]
        flagged = [
            support_threshold(draw[:-1], [str(number) for number in range(count)], level=level).flags(draw[-1:])[0]
            for draw in draws
        ]
        assert np.mean(flagged) < level + 3 * np.sqrt(level / len(draws))


@pytest.fixture
def rng_rounds() -> Callable[[], np.ndarray]:
    return lambda: np.random.default_rng(3).gumbel(size=(500, 31))


def test_alike_supports_hold_no_suspect() -> None:
    draws = np.random.default_rng(1).normal(size=(400, 8))
    named = [bool(suspects(draw, list("abcdefgh"))) for draw in draws]
    assert np.mean(named) < 0.1
    assert suspects(np.array([1.0, 9.0]), ["a", "b"]) == {}


def test_other_sets_help_to_set_the_threshold(own_data: Path, ward: Path) -> None:
    """The rule of the rows: the sets' normals in standard deviations of their left-out supports."""
    own = [ward / "support" / f"case{number:02d}.png" for number in range(3)]
    outcome = score(ward, PIXELS, out="sources", support=own, level=0.1, sources=own_data / "own")
    settings = outcome.settings
    assert settings["level"] == 0.1
    assert list(settings["sources"]) == ["ward_a", "ward_b"]
    assert "not promised: 18 normal images of other sets (ward_a, ward_b)" in settings["promise"]
    left_out = np.array(settings["left_out_scores"])
    reach = (settings["threshold"] - left_out.mean()) / left_out.std(ddof=1)
    pivots = []
    for name in ("ward_a", "ward_b"):
        dataset = Dataset(own_data / "own" / f"{name}-0.0.0-64px.h5")
        images = dataset.images(dataset.episodes[0][:12]).astype(np.float64) / 255
        apart = medfsad.score("pixel_distance", images[:3], images[3:], size=64, device="cpu")
        spread = apart.threshold.calibration
        pivots += list((apart.table["score"] - spread.mean()) / spread.std(ddof=1))
    assert reach == pytest.approx(max(pivots), rel=1e-4), "the highest of 18, at a level of 0.1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reading": ReadingOptions(32)}, "scored at 32 px"),
        ({"level": 0.01}, "takes 99"),
        ({"support": [Path("support/case01.png")]}, "takes 3 or more supports"),
    ],
    ids=["size", "level", "one support"],
)
def test_sources_that_cannot_help_are_refused(
    ward: Path, own_data: Path, change: dict[str, object], message: str
) -> None:
    few = [ward / "support" / f"case{number:02d}.png" for number in range(3)]
    given = {"support": few, "sources": own_data / "own", **change}
    given["support"] = [ward / path for path in given["support"]]  # type: ignore[attr-defined]
    with pytest.raises(MethodError, match=message):
        score(ward, PIXELS, out="refused", **given)
    assert not (ward / "refused").exists()
