"""What the lines of a group are called: the method, and of the facts that differ between its lines those that do."""

import json
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


def _name(line: Line, shared: str) -> str:
    protocol = next(iter(line.rows.values())).protocol
    marks = [] if line.preset in ("paper", shared) else [line.preset]
    marks += [] if protocol == "strict" else [protocol]
    return f"{line.method} ({', '.join(marks)})" if marks else line.method


def _facts(line: Line) -> Mapping[str, str]:
    row: Row = next(iter(line.rows.values()))
    settings = {name: json.dumps(value).strip('"') for name, value in row.config.items() if name != "shots"}
    facts = {"version": row.method_version, "seed": str(row.seed), "draws": str(row.draws)}
    return facts | settings
