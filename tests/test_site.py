"""The site without a browser: what its pages hold, that they ask nobody for anything, and that texts stay texts."""

import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from board_rows import row_of
from test_cli import Medfsad, medfsad  # noqa: F401 - a fixture
from test_runner import TOY, cell_of

from medfsad_bench.board.accepted import rows_in_runs
from medfsad_bench.board.groups import groups
from medfsad_bench.board.site.build import write_site
from medfsad_bench.board.site.cells import command_of
from medfsad_bench.board.site.payload import boards_of, payload
from medfsad_bench.errors import ResultsError
from medfsad_bench.metrics.image import auroc_score
from medfsad_bench.results.row import Row
from medfsad_bench.results.run_folder import RunFolder, scores_by_run
from medfsad_bench.runner.runner import Runner

EVIL = "<script>alert(1)</script> | \u202e:x: \x1b[2K \"'&"


@pytest.fixture(scope="module")
def runs(own_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for shots in (1, 2):
        Runner("cpu").run(cell_of(TOY, own_data, folder, target="ward_b", shots=shots, draws=3))
    return folder


@pytest.fixture(scope="module")
def site(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real runs, rows of a benchmark, one of a member of a family and a published one beside its strict one."""
    folder = tmp_path_factory.mktemp("site") / "site"
    write_site([*rows_in_runs(runs), *benchmark_rows()], scores_by_run(runs), folder, runs=runs)
    return folder


def benchmark_rows() -> list[Row]:
    values = {"mean_distance": 0.8, "anomalib:padim": 0.7, "shortcut": 0.65}
    rows = [
        row_of(method, target, value + number / 50)
        for method, value in values.items()
        for number, target in enumerate(("lgg", "chest_nih", "histology_lung"))
    ]
    solved = row_of("shortcut", "brain_tumor", 0.95)
    others = [row_of(method, "brain_tumor", 0.3) for method in values if method != "shortcut"]
    published = row_of("mean_distance", "lgg", 0.97, protocol="published", run_id="published")
    return [*rows, solved, *others, published]


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


class Links(HTMLParser):
    """Targets of all links, and ids."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text_of(page))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if attributes.get("id"):
            self.ids.add(str(attributes["id"]))
        self.targets += [str(attributes[name]) for name in ("href", "src") if attributes.get(name)]


def test_every_link_leads_to_a_page_of_the_site(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for target in Links(page).targets:
            name, _, anchor = target.partition("#")
            if target == "data:,":
                continue
            if target.startswith("https://"):  # where a set's images come from: nobody follows it but a reader
                continue
            file = (page.parent / unquote(name)).resolve() if name else page
            assert file.is_file(), f"{page.name}: {target}"
            if anchor and "=" not in anchor:
                assert anchor in Links(file).ids, f"{page.name}: {target}"


def test_no_page_asks_anybody_for_anything(site: Path) -> None:
    for page in site.rglob("*.html"):
        links = Links(page)
        assert not [a for tag, a in links.tags if tag != "a" and "//" in str(a.get("href") or a.get("src"))]
        assert "default-src 'none'" in text_of(page)
        assert not [tag for tag, attributes in links.tags if tag == "script" and attributes.get("src")]
        assert "@import" not in text_of(page)
        assert "url(" not in text_of(page)


def test_a_cells_page_holds_its_draws_command_and_downloads(site: Path, runs: Path) -> None:
    folder = RunFolder(next(runs.glob("toy-ward_b-2shot-*")))
    row, scores = folder.row(), folder.scores()
    page = html.unescape(text_of(site / "cells" / f"{row.run_id}.html"))
    for _, draw in scores.groupby("draw"):
        assert f"{auroc_score(draw['score'].to_numpy(), draw['anomalous'].to_numpy(bool)):.3f}" in page
    supports = folder.calibration().query("set == 'ward_b' and kind == 'support' and draw == 1")["id"]
    assert ", ".join(supports) in page
    for fact in (row.run_id, row.membership_digest, row.content_digest, row.weights_digest, row.date):
        assert fact in page
    assert "medfsad run toy --target ward_b --shots 2" in page
    assert json.loads(text_of(site / "cells" / f"{row.run_id}.json")) == row.dump()
    table = pd.read_csv(io.StringIO(text_of(site / "cells" / f"{row.run_id}.csv")), dtype={"id": str})
    wide = scores.pivot_table(index="id", columns="draw", values="score").loc[table["id"]]
    assert np.array_equal(table[["draw00", "draw01", "draw02"]].to_numpy(), wide.to_numpy()), "unrounded"


def test_leaving_out_confounded_sets_ranks_as_the_command_line_does_without_them() -> None:
    rows = benchmark_rows()
    (track,) = payload(rows, boards_of(rows, {}, ()), {}, ())["tracks"]
    assert [target["name"] for target in track["targets"] if target["confounded"]] == ["brain_tumor"]
    boards = track["boards"]["image_auroc"]
    assert set(boards) == {"", "confounded"}
    for left_out, kept in (("", rows), ("confounded", [row for row in rows if row.target != "brain_tumor"])):
        (group,) = groups(kept)
        expected = [(line.method, line.rank, line.mean, line.letters or None) for line in group.lines]
        lines = boards[left_out]["lines"]
        assert [(line["method"], line.get("rank"), line.get("mean"), line.get("letters")) for line in lines] == expected
        assert tuple(boards[left_out]["in_mean"]) == group.in_mean
    assert boards[""]["lines"][0]["method"] != boards["confounded"]["lines"][0]["method"], "the switch matters here"


def test_texts_of_rows_are_texts_on_every_page(tmp_path: Path) -> None:
    evil = {
        "preset": EVIL,
        "knowledge": EVIL,
        "warnings": (EVIL,),
        "device": EVIL,
        "organ": EVIL,
        "config": {EVIL: EVIL},
    }
    rows = [row_of("evil", "ward", 0.5, benchmark="own", **evil), row_of("good", "ward", 0.6, benchmark="own")]
    write_site(rows, {}, tmp_path / "site")
    for page in (tmp_path / "site").rglob("*.html"):
        shown = text_of(page)
        assert "alert(1)</script>" not in shown, page.name
        assert "<script>alert" not in shown, page.name
        assert not re.search("[\x1b\u202e]|\\\\u202e\\W*\\]\\}", shown), page.name
    cell = text_of(tmp_path / "site" / "cells" / "evil-ward-4shot.html")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in cell
    assert "\\u202e" in cell
    board = re.search(r'(?s)id="payload">(.*?)</script>', text_of(tmp_path / "site" / "index.html"))
    assert board is not None
    assert "\u202e" not in json.dumps(json.loads(board[1]), ensure_ascii=False), (
        "the browser reads no mark of direction"
    )


def test_a_data_set_shows_its_manifest_and_a_method_its_record(site: Path) -> None:
    page = html.unescape(text_of(site / "datasets" / "brain_tumor.html"))
    for fact in ("CC0 1.0", "masoudnickparvar/brain-tumor-mri-dataset", "medfsad-open", "glioma, meningioma"):
        assert fact in page
    assert "Roth" not in page
    page = html.unescape(text_of(site / "methods" / "mean_distance.html"))
    assert "Apache-2.0" in page
    assert (site / "methods" / "anomalib-padim.html").is_file()


def test_a_published_row_stands_beside_its_strict_one_and_has_no_rank(site: Path) -> None:
    page = html.unescape(text_of(site / "protocol.html"))
    assert "published 0.970 [0.920, 1.020], strict 0.800 [0.750, 0.850]" in page
    assert "mean_distance (published)" in html.unescape(text_of(site / "index.html"))


def test_the_feed_is_xml_with_an_entry_per_row(site: Path, runs: Path) -> None:
    feed = ElementTree.parse(site / "feed.xml")  # noqa: S314 - our own
    entries = feed.findall("{http://www.w3.org/2005/Atom}entry")
    ids = [entry.findtext("{http://www.w3.org/2005/Atom}id", "") for entry in entries]
    of_rows = [name for name in ids if name.startswith("urn:medfsad:run:")]
    assert len(of_rows) == len(benchmark_rows()) + len(rows_in_runs(runs))
    assert sum(name.startswith("urn:medfsad:benchmark:medfsad-open-") for name in ids) == 1
    assert "urn:medfsad:method:shortcut:1.0.0" in ids
    assert len(set(ids)) == len(ids)


def test_a_site_is_whole_replaces_a_site_and_nothing_else(tmp_path: Path) -> None:
    rows = [row_of("a", "lgg", 0.6)]
    write_site(rows, {}, tmp_path / "site")
    (tmp_path / "site" / "old.html").write_text("", "utf-8")
    write_site(rows, {}, tmp_path / "site")
    assert not (tmp_path / "site" / "old.html").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("", "utf-8")
    with pytest.raises(ResultsError, match="isn't empty and holds no site"):
        write_site(rows, {}, tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    with pytest.raises(ResultsError, match="no row"):
        write_site([], {}, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_command_names_the_settings_that_differ_from_the_preset() -> None:
    row = row_of("patchcore", "lgg", 0.6, preset="quick", config={"backbone": "efficientnet_lite0", "neighbours": 3})
    assert "--set neighbours=3" in command_of(row)
    assert "backbone" not in command_of(row)
    assert "--set 'note=two words'" in command_of(row_of("not_installed", "lgg", 0.6, config={"note": "two words"}))


def test_the_command_line_writes_a_site(medfsad: Medfsad, runs: Path, tmp_path: Path) -> None:  # noqa: F811
    code, out, _ = medfsad("leaderboard", "--runs", runs, "--format", "html", "--out", "site")
    assert code == 0
    assert "site/index.html" in out
    assert "ward_b" in text_of(tmp_path / "site" / "index.html")
    code, _, err = medfsad("leaderboard", "--runs", runs, "--format", "html")
    assert code == 2
    assert "Name it with --out" in " ".join(err.split())
