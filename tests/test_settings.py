"""Settings: strict reading, errors that name file, key and nearest name, and values that come back as they went."""

import dataclasses
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import yaml

import mmembed
from mmembed.errors import InputError
from mmembed.settings import (
    Part,
    check_keys,
    dump_settings,
    dump_yaml,
    load_yaml,
    make_parser,
    parse_yaml,
    read_settings,
    subclasses,
)


@dataclass(frozen=True)
class Shape(Part):
    """Something drawn."""

    abstract: ClassVar[bool] = True


@dataclass(frozen=True)
class Circle(Shape):
    """Round."""

    radius: float = 1.0
    """Half its width."""

    def __post_init__(self):
        if self.radius <= 0:
            raise InputError("radius", expected="more than 0", got=self.radius, remedy="give a size")


@dataclass(frozen=True)
class Square(Shape):
    """Not round."""

    side: int = 2
    colours: tuple[str, ...] = ("red",)


@dataclass(frozen=True)
class Ink:
    """An entry of a mapping inside a mapping."""

    amount: float = 1.0
    shades: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """An entry of a mapping."""

    count: int
    rate: float = 0.5
    shape: Shape = field(default_factory=Circle)
    inks: dict[str, Ink] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The whole."""

    name: str
    steps: dict[str, Step] = field(default_factory=dict)
    shape: Shape = field(default_factory=Circle)
    step: Step | None = None
    mode: Literal["fast", "slow"] = "fast"
    path: Path | None = None
    limit: float | None = None


VALUES = {
    "name": "x",
    "steps": {
        "first": {"count": 1},
        "second": {"count": 2, "shape": {"class_path": "Square", "init_args": {"side": 3}}},
    },
}


def message_of(values, overrides=()):
    with pytest.raises(InputError) as error:
        read_settings(Plan, values, where="plan.yaml", overrides=overrides)
    return str(error.value)


def test_plain_values_become_typed_settings():
    plan = read_settings(Plan, VALUES)

    assert plan == Plan("x", {"first": Step(1), "second": Step(2, shape=Square(3))})
    assert list(plan.steps) == ["first", "second"]


@pytest.mark.parametrize(
    ("overrides", "change"),
    [
        (["--name", "y"], {"name": "y"}),
        (["--limit=5e-5"], {"limit": 5e-5}),
        (["--mode", "slow"], {"mode": "slow"}),
        (["--path", "a/b"], {"path": Path("a/b")}),
        (["--shape", "Square"], {"shape": Square()}),
        (["--shape", "Square", "--shape.side", "7"], {"shape": Square(7)}),
        (["--shape.radius", "3"], {"shape": Circle(3.0)}),
        (["--steps.first.count", "9"], {"steps": {"first": Step(9), "second": Step(2, shape=Square(3))}}),
        (["--steps.second.shape.side", "9"], {"steps": {"first": Step(1), "second": Step(2, shape=Square(9))}}),
        (["--steps.second.rate", "0.1", "--steps.first.rate", "0.2"],
         {"steps": {"first": Step(1, 0.2), "second": Step(2, 0.1, Square(3))}}),
    ],
)  # fmt: skip
def test_dotted_overrides_reach_inside_mappings_and_parts(overrides, change):
    plain = read_settings(Plan, VALUES)

    assert read_settings(Plan, VALUES, overrides=overrides) == dataclasses.replace(plain, **change)


INKED = VALUES | {
    "steps": {"first": {"count": 1, "inks": {"red": {"amount": 2.0, "shades": {"dark": 0.5}}, "blue": {}}}}
}


@pytest.mark.parametrize(
    ("overrides", "red"),
    [
        (["--steps.first.inks.red.amount", "3"], Ink(3.0, {"dark": 0.5})),
        (["--steps.first.inks.red.amount=5e-1", "--steps.first.rate=0.5"], Ink(0.5, {"dark": 0.5})),
        (["--steps.first.inks.red.shades.dark", "0.1"], Ink(2.0, {"dark": 0.1})),
        (["--steps.first.inks.red", "{amount: 4}"], Ink(4.0)),
    ],
)
def test_dotted_overrides_reach_inside_mappings_of_mappings(overrides, red):
    before = dump_settings(read_settings(Plan, INKED))

    plan = read_settings(Plan, INKED, overrides=overrides)

    assert plan.steps["first"] == Step(1, inks={"red": red, "blue": Ink()})
    assert dump_settings(read_settings(Plan, INKED)) == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "--steps.first.inks.rde.amount",
            "--steps.first.inks.rde.amount: expected a name the recipe has, got 'rde'; did",
        ),
        ("--steps.first.inks.red.amuont", "expected a known option, got 'amuont'; did you mean 'amount'?"),
        ("--steps.first.inks.red.amount", "'much'"),
    ],
)
def test_a_wrong_override_inside_a_mapping_of_a_mapping_is_named(override, message):
    assert message in message_of(INKED, [override, "much"])


def test_an_override_gives_a_missing_value():
    assert read_settings(Plan, {}, overrides=["--name", "y"]) == Plan("y")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "plan.yaml: name: expected a value, got nothing; give it in the file or as an option"),
        ({"name": "x", "mod": 1}, "plan.yaml: mod: expected a setting of Plan, got 'mod'; did you mean 'mode'?"),
        ({"name": "x", "steps": {"a": {"count": 1, "rte": 1}}},
         "plan.yaml: steps.a.rte: expected a setting of Step, got 'rte'; did you mean 'rate'?"),
        ({"name": "x", "steps": {"a": {}}}, "plan.yaml: steps.a.count: expected a value, got nothing"),
        ({"name": "x", "step": {"count": 1, "shap": "Circle"}}, "plan.yaml: step.shap: expected a setting of Step"),
        ({"name": "x", "shape": "Circl"},
         "plan.yaml: shape: expected class_path of a Shape, got 'Circl'; did you mean 'Circle'?"),
        ({"name": "x", "shape": {"class_path": "Shape"}},
         "plan.yaml: shape: expected class_path of a Shape, got 'Shape'; known: Circle, Square"),
        ({"name": "x", "shape": {"class_path": "Circle", "radius": 2}},
         "plan.yaml: shape.radius: expected class_path and init_args, got 'radius'; put settings under init_args"),
        ({"name": "x", "shape": {"class_path": "Circle", "init_args": {"side": 2}}},
         "plan.yaml: shape.side: expected a setting of Circle, got 'side'; known: radius"),
        ({"name": "x", "mode": "fats"}, "plan.yaml: mode: expected one of ['fast', 'slow'], got 'fats'"),
        ({"name": "x", "step": {"count": "many"}}, "plan.yaml: step"),
        ({"name": "x", "steps": {"a": {"count": 1}, "b": {"count": "many"}}},
         "plan.yaml: steps.b.count: expected int, got 'many'"),
        ({"name": "x", "steps": {"a": {"count": 1.5}}}, "plan.yaml: steps.a.count: expected int, got '1.5'"),
        ({"name": "x", "shape": {"class_path": "Circle", "init_args": {"radius": -1.0}}},
         "radius: expected more than 0, got -1.0; give a size"),
        (["x"], "plan.yaml: expected a mapping of settings, got list; write key: value lines"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_words(values, message):
    assert message in message_of(values)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--mod", "--mod: expected a known option, got 'mod'; did you mean 'mode'?"),
        (
            "--steps.frist.count",
            "--steps.frist.count: expected a name the recipe has, got 'frist'; did you mean 'first'?",
        ),
        ("--steps.first.cuont", "--steps.first.cuont: expected a known option, got 'cuont'; did you mean 'count'?"),
        ("--step.cuont", "--step.cuont: expected a known option, got 'cuont'; did you mean 'count'?"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_name(override, message):
    assert message in message_of(VALUES, [override, "1"])


def test_a_wrong_value_of_an_option_is_named():
    assert "many" in message_of(VALUES, ["--steps.first.count", "many"])
    assert "got 'fats'" in message_of(VALUES, ["--mode", "fats"])


def test_a_repeated_key_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n")

    with pytest.raises(InputError, match=r"a\.yaml: line 5: c: expected each key once, got the key again; keep one"):
        load_yaml(tmp_path / "a.yaml")


def test_broken_yaml_and_missing_files_are_named(tmp_path):
    (tmp_path / "a.yaml").write_text("a: [1\nb: 2\n")

    with pytest.raises(InputError, match=r"a\.yaml: expected YAML, got .*line 2.*; mend the line named"):
        load_yaml(tmp_path / "a.yaml")
    with pytest.raises(InputError, match=r"b\.yaml: expected a readable YAML file, got No such file or directory"):
        load_yaml(tmp_path / "b.yaml")


def test_yaml_runs_no_code():
    with pytest.raises(InputError, match="expected YAML, got could not determine a constructor"):
        parse_yaml("a: !!python/object/apply:os.getcwd []", "text")


@pytest.mark.parametrize(
    ("text", "value"), [("5e-5", 5e-5), ("1E3", 1000.0), ("-2.5e1", -25.0), ("1.0", 1.0), ("7", 7), ("e5", "e5")]
)
def test_numbers_are_read_as_numbers(text, value):
    read = parse_yaml(f"a: {text}", "text")["a"]

    assert read == value
    assert type(read) is type(value)


def test_parts_are_found_by_name_without_the_abstract_ones():
    assert subclasses(Shape) == {"Circle": Circle, "Square": Square}


def test_a_plain_parser_knows_every_field():
    help_text = make_parser(Plan).format_help()

    for option in ("--name", "--steps", "--shape", "--mode", "--config", "--print_config"):
        assert option in help_text


def test_settings_come_back_from_yaml_as_they_went():
    plan = Plan("x", {"a": Step(1, 5e-5, Square(3, ("red", "blue")))}, Circle(2.0), Step(2), "slow", Path("a/b"), 1e-9)

    assert read_settings(Plan, parse_yaml(dump_yaml(plan), "text")) == plan
    assert dump_settings(plan)["steps"]["a"]["shape"] == {
        "class_path": "Square", "init_args": {"side": 3, "colours": ["red", "blue"]},
    }  # fmt: skip


def test_dumped_yaml_can_be_read_by_anything():
    text = dump_yaml(Plan("東京", path=Path("a/b")))

    assert "東京" in text
    assert yaml.safe_load(text)["path"] == "a/b"


def test_keys_are_checked_without_reading_values():
    check_keys(Plan, {"name": 3}, "plan.yaml")
    with pytest.raises(InputError, match=r"plan\.yaml: nme: expected a setting of Plan"):
        check_keys(Plan, {"name": 3, "nme": 4}, "plan.yaml")


def package_parts():
    """Every concrete part of the package, with the part it stands for."""
    root = Path(mmembed.__file__).parent
    for file in sorted(root.rglob("settings.py")):
        importlib.import_module(".".join(("mmembed", *file.relative_to(root).with_suffix("").parts)))
    bases = [base for base in Part.__subclasses__() if base.__module__.startswith("mmembed.")]
    return [(base, part) for base in bases for name, part in sorted(subclasses(base).items())]


def test_every_part_of_the_package_comes_back_from_yaml_as_it_went():
    parts = package_parts()

    for base, part in parts:
        holder = dataclasses.make_dataclass("Holder", [("part", base)], frozen=True)
        given = holder(part())
        assert read_settings(holder, parse_yaml(dump_yaml(given), part.__name__)) == given
    assert len(parts) >= 10
