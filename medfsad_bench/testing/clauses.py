"""Clauses of a contract: what each promises, and how a method fared."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from medfsad_bench.errors import MethodError

SEEDED = "Draw random numbers from torch.Generator().manual_seed(context.seed)."


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause of the contract, and how a method fared.

    Attributes:
        name: In one or two words.
        promise: What the clause says.
        fault: How it was broken; empty if it was kept.
        untried: Why it wasn't tried; empty if it was.
    """

    name: str
    promise: str
    fault: str = ""
    untried: str = ""


def all_tried(trials: Mapping[str, tuple[str, Callable[[], str]]], *, needed: Mapping[str, str]) -> list[Clause]:
    """Try one clause after the other.

    Args:
        trials: By name each clause's promise, and what returns its fault, or raises it as a `MethodError`.
        needed: Clauses without which no later one can be tried, each with the reason.
    """
    clauses: list[Clause] = []
    for name, (promise, trial) in trials.items():
        reasons = [needed[clause.name] for clause in clauses if clause.fault and clause.name in needed]
        if reasons:
            clauses.append(Clause(name, promise, untried=reasons[0]))
            continue
        try:
            clauses.append(Clause(name, promise, trial()))
        except MethodError as error:
            clauses.append(Clause(name, promise, str(error)))
    return clauses
