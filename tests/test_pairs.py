"""All pairs of a board at once say what two methods compared by themselves do."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from board_rows import row_of

from medfsad_bench.board.significance import letters_of, pairs_of
from medfsad_bench.estimates.image import score_matrix
from medfsad_bench.metrics.delong import Measurement, delong, placements
from medfsad_bench.metrics.metric import METRICS
from medfsad_bench.metrics.paired import Difference, difference_of, holm, letters, mean_over_targets
from medfsad_bench.results.row import Row

TARGETS = ("lgg", "odir_dr", "odir_glaucoma")  # the last two share patients


def board(folder: Path) -> tuple[list[dict[str, Row]], dict[str, Path]]:
    """Five methods: of the first four there are scores, of the second in another order of images."""
    rng = np.random.default_rng(3)
    lines, evidence = [], {}
    for method in range(5):
        line = {}
        for target in TARGETS:
            row = row_of(f"m{method}", target, 0.8 - method / 20, n_groups=40 + method)
            line[target] = row
            if method == 4:
                continue
            scores = scores_of(rng, target, gap=1.2 - 0.3 * method)
            evidence[row.run_id] = folder / f"{row.run_id}.parquet"
            scores = scores.iloc[rng.permutation(len(scores))] if method == 1 else scores
            scores.to_parquet(evidence[row.run_id], index=False)
        lines.append(line)
    return lines, evidence


def scores_of(rng: Any, target: str, *, gap: float, draws: int = 3, images: int = 40) -> pd.DataFrame:
    anomalous = np.arange(images) % 2 == 0
    parts = []
    for draw in range(draws):
        score = rng.normal(size=images) + gap * anomalous + 0.1 * rng.normal()
        parts.append(
            pd.DataFrame(
                {
                    "draw": draw,
                    "index": np.arange(images),
                    "id": [f"{number:03d}" for number in range(images)],
                    "group": [f"patient {number // 3}" for number in range(images)],
                    "anomalous": anomalous,
                    "score": score,
                    "target": target,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def one_pair(first: dict[str, Row], second: dict[str, Row], evidence: dict[str, Path]) -> tuple[Difference, list[Any]]:
    """The slow way: one target after the other, then their mean."""
    measured = []
    for target in TARGETS:
        rows = (first[target], second[target])
        if all(row.run_id in evidence for row in rows):
            tables = (pd.read_parquet(evidence[row.run_id]).sort_values(["draw", "index"]) for row in rows)
            matrices = [score_matrix(table) for table in tables]
            placed = [placements(matrix.scores, matrix.anomalous) for matrix in matrices]
            measured.append(delong(placed[0] - placed[1], matrices[0].anomalous, matrices[0].groups))
        else:
            value = rows[0].metrics["image_auroc"].value - rows[1].metrics["image_auroc"].value
            measured.append(Measurement(value, float(np.hypot(0.1, 0.1)) / 3.92, 99.0))
    differences = [difference_of(each) for each in measured]
    families = ["lgg", "eyes", "eyes"]
    return mean_over_targets(differences, families=families).these_targets, differences


def test_all_pairs_at_once_are_each_pair_by_itself(tmp_path: Path) -> None:
    lines, evidence = board(tmp_path)
    pairs = pairs_of(lines, evidence)
    p = []
    for number, (first, second) in enumerate(itertools.combinations(lines, 2)):
        mean, by_target = one_pair(first, second, evidence)
        of_pair = pairs.mean_of(number)
        for name in ("value", "error", "freedom", "low", "high", "p"):
            assert getattr(of_pair, name) == pytest.approx(getattr(mean, name), rel=1e-9), (number, name)
        sure = [each.value for each in by_target if each.p < 0.05]
        wins, losses = (int(of_pairs[number]) for of_pairs in pairs.wins())
        assert (wins, losses) == (sum(value > 0 for value in sure), sum(value < 0 for value in sure))
        p.append(1.0 if mean.p is None else mean.p)
    adjusted = holm(p)
    assert pairs.mean_p == pytest.approx(adjusted, rel=1e-9)
    names = [str(number) for number in range(len(lines))]
    apart = {pair: value < 0.05 for pair, value in zip(itertools.combinations(names, 2), adjusted, strict=True)}
    assert letters_of(lines, evidence) == list(letters(names, apart).values())
    assert 0 < sum(apart.values()) < len(apart), "some are told apart, some aren't"


def test_a_method_that_equals_another_is_never_told_from_it(tmp_path: Path) -> None:
    lines, evidence = board(tmp_path)
    pairs = pairs_of([lines[0], lines[0], lines[1]], evidence)
    assert (pairs.mean.value[0], pairs.mean.error[0], pairs.mean_p[0]) == (0.0, 0.0, 1.0)
    assert [int(of_pairs[0]) for of_pairs in pairs.wins()] == [0, 0]


def test_other_metrics_are_compared_by_their_intervals(tmp_path: Path) -> None:
    metric = METRICS["image_average_precision"]
    rows = [
        {"lgg": row_of(f"m{n}", "lgg", 0.5, metrics={metric.name: {"value": 0.9 - n / 5, "low": 0.5, "high": 1.0}})}
        for n in range(2)
    ]
    expected = difference_of(Measurement(0.2, float(np.hypot(0.5, 0.5)) / 3.92, 99.0), metric=metric)
    assert pairs_of(rows, {}, metric).mean_of(0).p == pytest.approx(expected.p)
