"""A new method as a package that works at once, made from the files in `templates`: `medfsad new-method NAME`."""

import keyword
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from medfsad_bench.errors import MethodError
from medfsad_bench.files import whole_folder, write_text
from medfsad_bench.registry import all_methods


def new_method(name: str, out: Path) -> Path:
    """Write the package: its entry point in `pyproject.toml`, a README, info, config, method, and a test.

    Args:
        name: Of the method and its package: lower-case letters, digits and underscores.
        out: Folder to put it in.

    Returns:
        The package's folder.

    Raises:
        MethodError: If the name can't be a package's, is taken, or the folder exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise MethodError(
            f"{name!r} can't be the name of a method. Expected lower-case letters, digits and underscores, beginning "
            "with a letter, as in my_method: it becomes a Python package."
        )
    if name in all_methods():
        raise MethodError(f"A method {name!r} is installed already. Choose another name.")
    folder = out / name
    if folder.exists():
        raise MethodError(f"{folder} exists already. Choose another name, or another folder with --out.")
    if not out.is_dir():
        raise MethodError(f"--out {out} isn't a folder. Expected one in which {name}/ can be made.")
    title = "".join(part.capitalize() for part in name.split("_"))
    templates = Environment(
        loader=PackageLoader("medfsad_bench"),
        undefined=StrictUndefined,
        autoescape=select_autoescape(),
        keep_trailing_newline=True,
    )
    with whole_folder(folder) as package:
        for template in templates.list_templates(extensions=["jinja"]):
            path = package / template.removesuffix(".jinja").replace("NAME", name)
            write_text(path, templates.get_template(template).render(name=name, title=title))
    return folder
