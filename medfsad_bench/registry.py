"""Which methods there are, and their configuration. Imports no torch."""

import dataclasses
import re
from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import TypeAdapter, ValidationError

from medfsad_bench.errors import MethodError, nearest
from medfsad_bench.info import METHOD_NAME, MethodInfo

GROUP = "medfsad.methods"
PRESETS = ("paper", "quick")


@dataclass(frozen=True, slots=True)
class Broken:
    """A method whose package can't be imported, with the reason; the others aren't affected."""

    name: str
    reason: str


class Methods(UserDict[str, MethodInfo | Broken]):
    """Methods by name, each imported when it is first looked at: most bring PyTorch, and a name alone needs none."""

    def __getitem__(self, name: str) -> MethodInfo | Broken:
        method: Any = self.data[name]
        if not isinstance(method, MethodInfo | Broken):  # an entry point
            method = self.data[name] = _load(method)
        return method


@cache
def all_methods() -> Methods:
    """Every installed method by name, found through the entry points of group `medfsad.methods`.

    Raises:
        MethodError: If two packages claim one name.
    """
    points: dict[str, Any] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        if point.name in points:
            raise MethodError(
                f"Two installed packages register a method {point.name!r}, one of them as {point.value!r}. "
                "Uninstall one."
            )
        points[point.name] = point
    methods = Methods()
    methods.data = points
    return methods


@cache
def installed_names() -> frozenset[str]:
    """Names of the installed methods, without importing them. It looks at every installed package, once."""
    return frozenset(point.name for point in entry_points(group=GROUP))


def method_info(name: str) -> MethodInfo:
    """The record of one method, or of one member of a family (`family:member`).

    Raises:
        MethodError: If it's unknown or can't be imported.
    """
    family, colon, member = name.partition(":")
    info = all_methods().get(family)
    if info is None:
        raise MethodError(
            f"Method {family!r} is not installed.{nearest(family, all_methods())} There are "
            f"{', '.join(sorted(all_methods()))}; `medfsad methods` says what each does."
        )
    if isinstance(info, Broken):
        raise MethodError(f"Method {family!r} can't be imported: {info.reason}. Mend or reinstall its package.")
    if info.member is None:
        if colon:
            raise MethodError(f"Method {family!r} is one method and not a family; leave {colon + member!r} out.")
        return info
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", member):
        raise MethodError(
            f"{family!r} is a family of methods ({info.summary}); {name!r} names none of them. Expected {family}:NAME, "
            "the name in lower-case letters, digits, dots and dashes."
        )
    return info.member(member)


def configure(info: MethodInfo, *, preset: str = "paper", settings: Mapping[str, Any] | None = None) -> Any:
    """A method's configuration: defaults (the paper's values), then the preset, then single settings.

    Args:
        info: The method.
        preset: `paper` is the defaults; `quick` is accepted by every method.
        settings: Field values by name; text is read as the field's type (`lr=1e-4`, `stages=2,3`, `weights=none`).

    Raises:
        MethodError: If a field is unknown or a value isn't of its type.
    """
    if preset not in PRESETS and preset not in info.presets:
        names = dict.fromkeys((*PRESETS, *info.presets))
        raise MethodError(
            f"Method {info.name!r} has no preset {preset!r}.{nearest(preset, names)} There are {', '.join(names)}."
        )
    fields = {field.name: field for field in dataclasses.fields(info.config)}
    values = {**info.presets.get(preset, {})}
    for name, value in (settings or {}).items():
        if name not in fields:
            raise MethodError(
                f"Method {info.name!r} has no setting {name!r}.{nearest(name, fields)} There are "
                f"{', '.join(sorted(fields)) or 'none'}."
            )
        values[name] = _typed(info.name, name, value, fields[name].type)
    try:
        return info.config(**values)
    except ValueError as error:
        raise MethodError(f"Method {info.name!r}: these settings contradict each other: {error}.") from error


def _typed(method: str, name: str, value: Any, type_: Any) -> Any:
    if isinstance(value, str):
        text = value.strip()
        candidates: list[Any] = [None] if text.lower() == "none" else []
        if "tuple" in str(type_):
            parts = [part.strip() for part in text.strip("()[]").split(",") if part.strip()]
            candidates += [list(map(_number, parts)), parts]
        candidates.append(text)
    else:
        candidates = [value]
    adapter: TypeAdapter[Any] = TypeAdapter(type_)
    for candidate in candidates:
        try:
            return adapter.validate_python(candidate, strict=False)
        except ValidationError:
            continue
    kind = getattr(type_, "__name__", str(type_))
    raise MethodError(f"Method {method!r}: setting {name}={value!r} is not of type {kind}. Give a value of that type.")


def _number(text: str) -> float | str:
    """A number as it's written: 1 is the first stage after 0, and 1.0 the whole depth."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _load(point: Any) -> MethodInfo | Broken:  # once anything imports it, of the package `importlib_metadata`
    try:
        info = point.load()
    except Exception as error:  # noqa: BLE001 - whatever a foreign package does on import must not hide the others
        return Broken(point.name, f"{type(error).__name__}: {error}")
    if not isinstance(info, MethodInfo) or info.name != point.name:
        return Broken(point.name, f"{point.value} isn't a MethodInfo of that name")
    if not re.fullmatch(METHOD_NAME, info.name):
        return Broken(point.name, "its name isn't made of small letters, digits, dots, dashes and underscores")
    return info
