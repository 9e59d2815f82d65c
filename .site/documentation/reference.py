"""Markdown of the command line and the Python interface, taken from the program itself."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import typer
from typer.main import get_command

import medfsad_bench
from documentation.errors import SiteError
from medfsad_bench import cli

# What authors of methods import, beside the interface of the package itself.
AUTHORS_MODULES = ("method", "info", "learning", "testing", "registry", "errors")

_SECTION = re.compile(r"(?m)^(Args|Attributes|Returns|Yields|Raises):\n((?:(?: {4}.*)?\n)*)")


def commands() -> dict[str, Any]:
    """Every command by its name, in the order of `medfsad --help`."""
    group: Any = get_command(cli.app)
    return {name: command for name, command in group.commands.items() if not command.hidden}


def with_commands(text: str) -> str:
    """Add to the chapter of each command what it does, how it is called, and its options.

    Args:
        text: Markdown with a chapter `## NAME` per command, which holds an example.

    Raises:
        SiteError: If a command has no chapter, a chapter no command, or no example of it runs.
    """
    before, *parts = re.split(r"(?m)^## (\S+)\n", text)
    chapters = dict(zip(parts[::2], parts[1::2], strict=True))
    registered = commands()
    if odd := sorted(chapters.keys() ^ registered.keys()):
        raise SiteError(
            f"Commands and chapters differ: {', '.join(odd)}. Each command has one chapter with an example."
        )
    for name, chapter in chapters.items():
        if not any(
            re.search(rf"(?m)^medfsad {name}\b", block) for block in re.findall(r"(?s)```sh run\n(.*?)```", chapter)
        ):
            raise SiteError(f"The chapter {name!r} has no example that runs `medfsad {name}`. Add a block `sh run`.")
    return before + "".join(_chapter(name, registered[name], chapter) for name, chapter in chapters.items())


def with_interface(text: str) -> str:
    """Add the public names of the package and of the modules that authors import, from their docstrings."""
    own = {name: getattr(medfsad_bench, name) for name in medfsad_bench.__all__ if not name.startswith("_")}
    parts = [text, "\n## medfsad_bench\n\n", *(_entry(name, thing) for name, thing in own.items())]
    for name in AUTHORS_MODULES:
        module = import_module(f"medfsad_bench.{name}")
        shown = {name: thing for name, thing in _public(module) if thing not in own.values()}
        parts += [f"\n## medfsad_bench.{name}\n\n{_prose(module.__doc__)}\n\n"]
        parts += [_entry(name, thing) for name, thing in shown.items()]
    return "".join(parts)


def _chapter(name: str, command: Any, text: str) -> str:
    context = typer.Context(command, info_name=f"medfsad {name}")
    lines = [
        f"## {name}\n",
        inspect.cleandoc(command.help or ""),
        f"\n    {command.get_usage(context).partition(': ')[2]}\n",
    ]
    records = [record for parameter in command.params if (record := parameter.get_help_record(context))]
    table = [f"| {_code(words)} | {_cell(meaning)} |" for words, meaning in records]
    options = ["| option | meaning |", "|---|---|", *table, ""] if table else []
    return "\n".join([*lines, text.strip(), "", *options, ""])


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Functions and classes that a module itself defines, in the order of its text."""
    for name, thing in vars(module).items():
        written_here = getattr(thing, "__module__", "").startswith(module.__name__)
        if not name.startswith("_") and written_here and (inspect.isclass(thing) or inspect.isfunction(thing)):
            yield name, thing


def _entry(name: str, thing: Any) -> str:
    """A function, or a class with its public methods."""
    text = f"### {name}\n\n{_signature(name, thing)}{_prose(thing.__doc__)}\n\n"
    if not inspect.isclass(thing) or issubclass(thing, Exception):
        return text
    for method, function in vars(thing).items():
        call = getattr(function, "fget", function) if isinstance(function, property) else function
        call = getattr(call, "__func__", call)
        if not method.startswith("_") and inspect.isfunction(call):
            shown = (
                f"    {name}.{method}\n\n" if isinstance(function, property) else _signature(f"{name}.{method}", call)
            )
            text += f"#### {name}.{method}\n\n{shown}{_prose(call.__doc__)}\n\n"
    return text


def _signature(name: str, thing: Any) -> str:
    """How it is called, as a block of code; a long one with a line per argument. Exceptions say nothing by theirs."""
    if inspect.isclass(thing) and (issubclass(thing, Exception) or inspect.isabstract(thing)):
        return ""
    signature = inspect.signature(thing)
    text = f"{name}{signature}"
    if len(text) > 88:
        arguments = "".join(f"    {argument},\n" for argument in _arguments(signature))
        result = str(signature.replace(parameters=()))[2:]
        text = f"{name}(\n{arguments}){result}"
    return f"```python\n{_plain(text)}\n```\n\n"


def _arguments(signature: inspect.Signature) -> Iterator[str]:
    starred = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        yield str(parameter)


def _plain(text: str) -> str:
    """As it is written in code: annotations without modules and quotes, and no address of a default in memory."""
    text = re.sub(r"<function .*? at 0x[0-9a-f]+>", "…", text)
    text = re.sub(r"\b(?:[a-z_0-9]+\.)+(?=[A-Z])", "", text)
    return re.sub(r"(?<=[:>] )'([^']+)'", r"\1", text)


def _prose(docstring: str | None) -> str:
    """A docstring in Google's form as Markdown."""
    text = inspect.cleandoc(docstring or "")
    text = _SECTION.sub(
        lambda match: f"**{match[1]}**\n\n{_items(match[1], inspect.cleandoc(match[2]))}\n\n", text + "\n"
    )
    return re.sub(r"(?m)((?:^(?:>>>|\.\.\.) .*\n(?:(?!>>>|\n).*\n)*)+)", r"```python\n\1```\n", text).strip()


def _items(section: str, text: str) -> str:
    """Lines `name: meaning` as a list; what is returned has no name."""
    parts = re.split(r"(?m)^([\w*, ]+): ", text)
    if parts[0].strip() or section in ("Returns", "Yields"):
        return text
    return "\n".join(
        f"- `{name}`: {' '.join(meaning.split())}" for name, meaning in zip(parts[1::2], parts[2::2], strict=True)
    )


def _code(words: str) -> str:
    return f"`{words}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[")
