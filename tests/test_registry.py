"""Settings are typed and a wrong one is named; a broken method hides nobody."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

from medfsad_bench import registry
from medfsad_bench.errors import MethodError
from medfsad_bench.info import MethodInfo
from medfsad_bench.registry import Broken, all_methods, configure, method_info


@dataclass(frozen=True)
class Toy:
    rate: float = 1e-4
    epochs: int = 70
    stages: tuple[int, ...] = (1, 2)
    weights: str | None = None
    cached: bool = True


def build(config: Toy) -> object:
    return config


TOY = MethodInfo("toy", "1", Toy, build, "a toy", "", "Apache-2.0", presets={"quick": {"epochs": 2}})  # type: ignore[arg-type]


def test_the_defaults_are_the_paper_and_quick_is_accepted_by_all() -> None:
    assert configure(TOY) == Toy()
    assert configure(TOY, preset="quick") == Toy(epochs=2)
    bare = MethodInfo("bare", "1", Toy, build, "", "", "")  # type: ignore[arg-type]
    assert configure(bare, preset="quick") == Toy()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rate", "1e-3", 1e-3),
        ("epochs", "5", 5),
        ("stages", "2,3", (2, 3)),
        ("stages", "(4)", (4,)),
        ("weights", "none", None),
        ("weights", "a.pth", "a.pth"),
        ("cached", "false", False),
    ],
)
def test_a_setting_is_read_as_its_type(name: str, text: str, value: object) -> None:
    assert getattr(configure(TOY, settings={name: text}), name) == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": "5"}, "no setting 'epoch'. Did you mean 'epochs'\\? There are cached, epochs"),
        ({"epochs": "many"}, "epochs='many'"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, str], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        configure(TOY, settings=settings)


def test_every_record_of_ours_fits_a_line_of_the_list_of_methods() -> None:
    infos = [info for info in all_methods().values() if isinstance(info, MethodInfo)]
    assert [info.name for info in infos if len(info.name) > 16 or len(info.paper) > 26 or "\n" in info.summary] == []


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(MethodError, match=r"no preset 'fast'\. There are paper, quick"):
        configure(TOY, preset="fast")


def test_a_method_that_fails_to_import_neither_hides_nor_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("broken", "no_such_package_here:INFO", registry.GROUP),
        EntryPoint("toy", "tests.test_registry:TOY", registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    all_methods.cache_clear()
    try:
        methods = all_methods()
        assert isinstance(methods["broken"], Broken)
        with pytest.raises(MethodError, match="can't be imported: ModuleNotFoundError"):
            method_info("broken")
        with pytest.raises(MethodError, match=r"not installed\. There are broken, toy"):
            method_info("other")
    finally:
        all_methods.cache_clear()
