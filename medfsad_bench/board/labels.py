"""What the lines of a group are called, and who leads it.

A line is called by its method, and by those of its facts in which it differs from the method's other lines.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping

from medfsad_bench.board.groups import Group, Line
from medfsad_bench.results.row import Row


def shared_preset(group: Group) -> str:
    """The preset of all lines, or empty where there are several."""
    presets = {line.preset for line in group.lines}
    return presets.pop() if len(presets) == 1 else ""


def labels_of(group: Group) -> list[str]:
    """One label per line, no two alike unless the lines differ in nothing that a user chose.

    A label is the method's name, its preset unless that is the paper's or everybody's, its protocol unless that is
    the strict one, and, where several lines would be called alike, the version, seed, draws and settings in which they
    differ.
    """
    shared = shared_preset(group)
    names = [_name(line, shared) for line in group.lines]
    alike: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        alike[name].append(number)
    for numbers in alike.values():
        facts = [_facts(group.lines[number]) for number in numbers]
        keys = dict.fromkeys(key for of_line in facts for key in of_line)
        differing = [key for key in keys if len({of_line.get(key) for of_line in facts}) > 1]
        for number, of_line in zip(numbers, facts, strict=True):
            told = [f"{key} {of_line[key]}" for key in differing if key in of_line]
            names[number] += f", {', '.join(told)}" if told else ""
    return names


def verdict(group: Group) -> str:
    """Who leads, who can't be told from the leader, and the best of those that can; empty where nobody is compared."""
    ranked = [
        (name, line.mean, _signs(line.letters))
        for name, line in zip(labels_of(group), group.lines, strict=True)
        if line.rank is not None and line.mean is not None
    ]
    if len(ranked) < 2 or not ranked[0][2]:
        return ""
    (leader, mean, letters), *others = ranked
    alike = [name for name, _, of_line in others if of_line & letters]
    apart = [f"{name}, {abs(mean - lower):.3f} behind" for name, lower, of_line in others if not of_line & letters]
    text = f"{leader} leads with a mean of {mean:.3f}."
    text += f" Can't be told from it: {', '.join(alike)}." if alike else ""
    return text + (f" The best that can: {apart[0]}." if apart else "")


def _signs(letters: str) -> set[str]:
    """The letters apart: the 27th is aa."""
    return {sign.group() for sign in re.finditer(r"(.)\1*", letters)}


def _name(line: Line, shared: str) -> str:
    protocol = next(iter(line.rows.values())).protocol
    marks = [] if line.preset in ("paper", shared) else [line.preset]
    marks += [] if protocol == "strict" else [protocol]
    return f"{line.method} ({', '.join(marks)})" if marks else line.method


def _facts(line: Line) -> Mapping[str, str]:
    row: Row = next(iter(line.rows.values()))
    given = {name: value for name, value in row.config.items() if name != "shots" and value is not None}
    settings = {name: json.dumps(value).strip('"') for name, value in given.items()}
    facts = {"version": row.method_version, "seed": str(row.seed), "draws": str(row.draws)}
    return facts | settings
