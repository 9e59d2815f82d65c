"""What the lines of a group are called, and who leads it.

A line is called by its method, and by those of its facts in which it differs from the method's other lines.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from medfsad_bench.board.groups import Group, Line
from medfsad_bench.registry import preset_settings
from medfsad_bench.results.row import Row


def shared_preset(group: Group) -> str:
    """The preset of all lines, or empty where there are several."""
    presets = {line.preset for line in group.lines}
    return presets.pop() if len(presets) == 1 else ""


def labels_of(group: Group) -> list[str]:
    """One label per line, no two alike unless the lines differ in nothing that a user chose.

    A label is the method's name, its preset unless that is the paper's or everybody's, its protocol unless that is
    the strict one, and, where several lines would be called alike, the version, seed, draws and settings in which they
    differ; a setting is named by the lines that don't have it as their preset has it.
    """
    shared = shared_preset(group)
    names = [_name(line, shared) for line in group.lines]
    alike: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        alike[name].append(number)
    for numbers in alike.values():
        if len(numbers) > 1:
            for number, told in zip(numbers, _told_apart([group.lines[number] for number in numbers]), strict=True):
                names[number] += "".join(f", {fact}" for fact in told)
    return names


def verdict(group: Group) -> str:
    """Who leads and by how much, who can't be told from the leader, and the best of those that can.

    Empty where nobody is compared.
    """
    ranked = [
        (name, line, line.mean)
        for name, line in zip(labels_of(group), group.lines, strict=True)
        if line.rank is not None and line.mean is not None
    ]
    if len(ranked) < 2 or not ranked[0][1].letters:
        return ""
    (leader, first, mean), *others = ranked
    apart = [told_apart(first, line) for _, line, _ in others]
    gaps = [_gap(abs(mean - of_line)) for _, _, of_line in others]
    names = [name for name, _, _ in others]
    alike = [name for name, is_apart in zip(names, apart, strict=True) if not is_apart]
    text = f"{leader} leads with a mean of {mean:.3f}, {gaps[0]} ahead of {names[0]}."
    if not alike:
        return f"{text} It can be told from all others."
    text += f" Can't be told from it: {listed(alike)}."
    if True in apart:
        best = apart.index(True)
        text += f" The best that can: {names[best]}, {gaps[best]} behind."
    return text


def _gap(difference: float) -> str:
    return f"{difference:.3f}" if difference >= 0.0005 else "less than 0.001"


def told_apart(first: Line, second: Line) -> bool:
    """Whether two ranked lines of a group share no letter."""
    return not _signs(first.letters) & _signs(second.letters)


def listed(names: Sequence[str]) -> str:
    """Labels in a sentence: where one holds a comma, semicolons stand between them."""
    return ("; " if any("," in name for name in names) else ", ").join(names)


def _signs(letters: str) -> set[str]:
    """The letters apart: the 27th is aa."""
    return {sign.group() for sign in re.finditer(r"(.)\1*", letters)}


def _name(line: Line, shared: str) -> str:
    protocol = next(iter(line.rows.values())).protocol
    marks = [] if line.preset in ("paper", shared) else [line.preset]
    marks += [] if protocol == "strict" else [protocol]
    return f"{line.method} ({', '.join(marks)})" if marks else line.method


def _told_apart(lines: Sequence[Line]) -> list[list[str]]:
    """Of each line what others don't have, but for settings as its preset has them; unknown presets have none."""
    rows = [next(iter(line.rows.values())) for line in lines]
    facts = [_facts(row) for row in rows]
    keys = dict.fromkeys(key for of_row in facts for key in of_row)
    differing = [key for key in keys if len({of_row.get(key) for of_row in facts}) > 1]
    usual = [_as_texts(preset_settings(row.method, row.preset)) for row in rows]
    return [
        [f"{key} {of_row[key]}" for key in differing if key in of_row and of_row[key] != of_preset.get(key, "none")]
        for of_row, of_preset in zip(facts, usual, strict=True)
    ]


def _facts(row: Row) -> dict[str, str]:
    settings = {name: value for name, value in row.config.items() if name != "shots"}
    return {"version": row.method_version, "seed": str(row.seed), "draws": str(row.draws), **_as_texts(settings)}


def _as_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name: "none" if value is None else json.dumps(value).strip('"') for name, value in settings.items()}
