"""Exports: what other tools read is what the prepared file holds."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_store import HEADER, toy_pixels, toy_table

from medfsad_bench.errors import StoreError
from medfsad_bench.files import cell_text, shown_cell
from medfsad_bench.results.submission import read_submitted
from medfsad_bench.store import Dataset
from medfsad_bench.store.export import export_croissant, export_episodes, export_ids, export_png, export_table
from medfsad_bench.store.writer import write_store


@pytest.fixture
def ward(own_data: Path) -> Dataset:
    return Dataset(own_data / "own" / "ward_a-0.0.0-64px.h5")


def test_png_files_hold_the_stored_pixels_and_masks(ward: Dataset, tmp_path: Path) -> None:
    assert export_png(ward, tmp_path / "png") == len(ward.table)
    for index, row in enumerate(ward.table.itertuples()):
        name = f"{str(row.id).replace('/', '_')}.png"
        path = tmp_path / "png" / str(row.split) / ("anomalous" if row.label else "normal") / name
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), ward.images(np.array([index]))[0])
        if row.label:
            with Image.open(tmp_path / "png" / "masks" / name) as image:
                assert np.array_equal(np.asarray(image) > 0, ward.mask(index))
    with pytest.raises(StoreError, match="isn't an empty folder"):
        export_png(ward, tmp_path / "png")


def test_the_table_comes_back_from_csv(ward: Dataset, tmp_path: Path) -> None:
    export_table(ward, tmp_path / "t.csv")
    table = pd.read_csv(tmp_path / "t.csv", dtype=str)
    assert table["id"].tolist() == ward.table["id"].tolist()
    assert table["label"].tolist() == ward.table["label"].astype(str).tolist()
    assert len(export_ids(ward, tmp_path / "ids.csv")) == 64


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # rdflib's, of what mlcroissant calls
def test_croissant_is_valid_and_its_records_are_the_table(ward: Dataset, tmp_path: Path) -> None:
    """Checked and read by MLCommons' own library."""
    mlc = pytest.importorskip("mlcroissant")
    export_croissant(ward, tmp_path / "c")
    described = mlc.Dataset(jsonld=tmp_path / "c" / "croissant.json")
    issues = described.metadata.ctx.issues
    assert not issues.errors, issues.report()
    records = list(described.records("images"))
    assert [record["images/id"].decode() for record in records] == ward.table["id"].tolist()
    assert [record["images/label"] for record in records] == ward.table["label"].tolist()
    assert all((tmp_path / "c" / record["images/image"].decode()).is_file() for record in records)


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'=1", "plain", "'quoted'", "a/b", "a_b", "A_B"]


@pytest.fixture
def formulas(tmp_path: Path) -> Dataset:
    """A file whose ids, patients and groups are what a spreadsheet would run."""
    table = toy_table(len(FORMULAS)).assign(id=FORMULAS, patient=FORMULAS, group=FORMULAS)
    path = tmp_path / "data" / "toy-1.0.0-32px.h5"
    masked = len(FORMULAS) - 2
    write_store(
        path, HEADER, table, [[0, 1, 2]], lambda i: (toy_pixels(i)[0], toy_pixels(7)[1] if i >= masked else None)
    )
    return Dataset(path)


def test_no_cell_of_an_export_is_one_that_a_spreadsheet_runs(formulas: Dataset, tmp_path: Path) -> None:
    export_table(formulas, tmp_path / "t.csv")
    export_ids(formulas, tmp_path / "ids.csv")
    export_episodes(formulas, tmp_path / "episodes.csv")
    export_croissant(formulas, tmp_path / "c")
    for path in (tmp_path / "t.csv", tmp_path / "ids.csv", tmp_path / "episodes.csv", tmp_path / "c" / "images.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        ids = [cell_text(row[rows[0].index("id")]) for row in rows[1:]]
        assert set(ids) <= set(FORMULAS)
        assert path.name == "episodes.csv" or set(ids) == set(FORMULAS)


def test_scores_of_such_ids_are_taken_back(formulas: Dataset, tmp_path: Path) -> None:
    export_episodes(formulas, tmp_path / "episodes.csv")
    with (tmp_path / "episodes.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["role"] == "query"]
    lines = [f"{row['membership_digest']},0,{row['id']},0.5" for row in rows if row["id"].isprintable()]
    (tmp_path / "s.csv").write_text("\n".join(["membership_digest,draw,id,score", *lines, ""]), "utf-8")
    taken = read_submitted(tmp_path / "s.csv")["id"].tolist()
    assert taken == [name for name in formulas.table["id"][formulas.indices("test")] if name.isprintable()]


def test_every_id_has_a_file_of_its_own(formulas: Dataset, tmp_path: Path) -> None:
    """`a/b`, `a_b` and `A_B` are one name once a slash is replaced, on a file system that takes no case."""
    export_png(formulas, tmp_path / "png")
    files = [path for path in (tmp_path / "png").rglob("*.png") if "masks" not in path.parts]
    assert len({path.name.casefold() for path in files}) == len(FORMULAS)


@given(st.text("='+-@\t\ra", max_size=6))
def test_a_cell_is_never_run_and_gives_its_text_back(text: str) -> None:
    assert not shown_cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell_text(shown_cell(text)) == text
