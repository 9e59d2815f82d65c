"""What a board answers before its tables: which method to take for an unseen target, and what training adds.

Only a row whose settings were chosen on other sets says what to expect of a target that nobody has looked at. What
training adds is the difference between two lines that differ in `epochs` alone, where one of them has none.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from medfsad_bench.board.groups import Group, Line
from medfsad_bench.board.labels import labels_of, told_apart
from medfsad_bench.board.significance import Evidence, pairs_of
from medfsad_bench.display import markdown_table
from medfsad_bench.results.row import Row

_APART = {True: "told apart", False: "can't be told apart"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as a table.

    Attributes:
        title: Of its section.
        basis: What it is made of, in plain words.
        header: Of the table.
        lines: Its cells.
    """

    title: str
    basis: str
    header: tuple[str, ...]
    lines: list[list[str]]


def answers(board: Sequence[Group], evidence: Evidence) -> list[Answer]:
    """The answers that the board can give.

    Args:
        board: Groups, all of one metric.
        evidence: Scores of as many of their rows as there are, see `board.significance`.
    """
    comparable = [group for group in board if not group.contaminated_supports and not group.edition]
    choice = Answer(
        "What to take for an unseen target",
        "By rows whose settings were chosen on the other sets, target by target, since settings of other tracks may "
        "have been chosen with these targets in view. Differences are means over the targets, paired, each with an "
        "interval of its own; told apart: at 5 % after Holm, as in the tables.",
        (
            "track",
            "take",
            "mean",
            "trained on other sets",
            "minus the others",
            "settings chosen (for so many targets)",
        ),
        [_choice(group, evidence) for group in comparable if group.tuned and len(_ranked(group)) > 1],
    )
    training = Answer(
        "What training adds",
        "Trained lines beside the same method as initialised (epochs 0): means over the targets, and their paired "
        "difference. Better and worse count the targets on which the difference alone is significant (5 %).",
        ("track", "method", "as initialised", "trained", "difference [95 %]", "better", "worse"),
        [cells for group in comparable if not group.tuned for cells in _trainings(group, evidence)],
    )
    return [answer for answer in (choice, training) if answer.lines]


def as_markdown(shown: Sequence[Answer]) -> str:
    """Answers as sections of a page."""
    return "\n".join(
        f"## {answer.title}\n\n{answer.basis}\n\n{markdown_table(answer.header, answer.lines)}" for answer in shown
    )


def _ranked(group: Group) -> list[tuple[str, Line]]:
    labelled = zip(labels_of(group), group.lines, strict=True)
    return [(label, line) for label, line in labelled if line.rank is not None]


def _choice(group: Group, evidence: Evidence) -> list[str]:
    (name, leader), *others = ranked = _ranked(group)
    pairs = pairs_of([_in_mean(group, line) for _, line in ranked], evidence, group.metric)
    differences = [
        f"{label}: {pairs.mean_of(number).text}, {_APART[told_apart(leader, line)]}"
        for number, (label, line) in enumerate(others)  # the leader's pairs come first
    ]
    trained = "yes" if any(row.sources for row in leader.rows.values()) else "no"
    return [_track(group), name, _mean(leader), trained, "; ".join(differences), _chosen_settings(leader)]


def _track(group: Group) -> str:
    return replace(group, tuned=False).title


def _chosen_settings(line: Line) -> str:
    """What was chosen of each setting, the most frequent first, with the number of targets where it isn't all."""
    rows = list(line.rows.values())
    settings = []
    for name in rows[0].settings_grid:
        counts = Counter(str(row.config[name]) for row in rows).most_common()
        values = [value if len(counts) == 1 else f"{value} ({count})" for value, count in counts]
        settings.append(f"{name} {', '.join(values)}")
    return "; ".join(settings)


def _trainings(group: Group, evidence: Evidence) -> Iterator[list[str]]:
    ranked = [line for _, line in _ranked(group)]
    for untrained in ranked:
        for trained in ranked:
            if _is_training_of(trained, untrained):
                pairs = pairs_of([_in_mean(group, line) for line in (trained, untrained)], evidence, group.metric)
                gains, losses = (str(of_pairs[0]) for of_pairs in pairs.wins())
                name = f"{trained.method}, {trained.preset}"
                difference = pairs.mean_of(0).text
                yield [_track(group), name, _mean(untrained), _mean(trained), difference, gains, losses]


def _is_training_of(trained: Line, untrained: Line) -> bool:
    """Whether they differ in `epochs` alone, which are none in the second."""
    row, other = (next(iter(line.rows.values())) for line in (trained, untrained))
    if other.config.get("epochs") != 0 or row.config.get("epochs") in (0, None):
        return False
    same = ("method", "method_version", "preset", "seed", "draws")
    return row.config | {"epochs": 0} == other.config and all(getattr(row, f) == getattr(other, f) for f in same)


def _in_mean(group: Group, line: Line) -> dict[str, Row]:
    return {target: line.rows[target] for target in group.in_mean}


def _mean(line: Line) -> str:
    return "–" if line.estimate is None else line.estimate.text
