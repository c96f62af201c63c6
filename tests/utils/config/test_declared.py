"""Keys read from a model's source are those that its class has."""

from __future__ import annotations

import ast

import pytest

from runner.registry import available_models, model_class
from utils.config.declared import declared_keys
from utils.config.schema import keys_of
from utils.paths import SOURCE

MODELS = available_models()


@pytest.mark.parametrize("name", MODELS)
def test_source_and_class_declare_the_same(name):
    declared = declared_keys(ast.parse(MODELS[name].read_text()), name, SOURCE)
    settings = model_class(name).settings
    expected = keys_of(settings) if settings else {}
    assert declared is not None, "the keys of a model of the project are constants"
    assert list(declared) == list(expected)
    for key, found in declared.items():
        assert found.type == expected[key].type
        assert found.default == expected[key].default
        assert dict(found.field.metadata) == dict(expected[key].field.metadata)


@pytest.mark.parametrize(
    "body",
    ["a: int = setting(help_of('a'))", "a: Tensor = setting('h')", "a: int = 3", "a: int = setting('h', low=UNKNOWN)"],
)
def test_what_only_running_the_file_would_tell_is_not_guessed(body):
    text = f"class Keys:\n    {body}\n\n\nclass Mine:\n    settings = Keys\n"
    assert declared_keys(ast.parse(text), "Mine", SOURCE) is None


def test_a_model_without_keys():
    assert declared_keys(ast.parse("class Mine:\n    settings = None\n"), "Mine", SOURCE) == {}
    assert declared_keys(ast.parse("class Mine:\n    pass\n"), "Mine", SOURCE) is None
