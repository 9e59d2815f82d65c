"""Exports: what other tools read is what the prepared file holds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medfsad_bench.errors import StoreError
from medfsad_bench.store import Dataset
from medfsad_bench.store.export import export_croissant, export_ids, export_png, export_table


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
