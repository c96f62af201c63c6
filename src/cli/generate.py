"""Generates a data set from a planted preference model, of any size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cli.arguments import dataset_folder
from cli.parser import Parser, checked_values, read_value
from utils.config.schema import keys_of, setting
from utils.data.synthetic_spec import SIZES, SyntheticSpec, synthetic_spec
from utils.errors import UserError


@dataclass(frozen=True)
class GenerateOptions:
    """Where the data set goes, and which of the ready sizes it starts from."""

    name: str = setting("name of the data set")
    data_path: str | None = setting("folder of data sets", default=None)
    size: str = setting("size that the keys below are laid over", choices=tuple(SIZES), default="demo")


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    parser = Parser("generate", __doc__ or "", ["name"])
    parser.add_options(GenerateOptions)
    keys = keys_of(SyntheticSpec)
    parser.add_keys(keys.values(), asdict(SIZES["demo"]), "keys (values of the size demo in brackets)")
    if not words or not {"-h", "--help"}.isdisjoint(words):
        print(parser.format_help(), end="")
        return 0
    given = parser.split(words)
    options = checked_values(GenerateOptions, given, "generate")
    problems = given.problems
    name = options.get("name", "")
    try:
        folder = dataset_folder("generate", name, options.get("data_path"))
    except UserError as error:
        problems += error.problems
    values = {}
    for key in keys.values():
        if (found := given.values.get(key.name)) is not None:
            if len(found) == 1:
                values[key.name] = read_value(found[0], key.name, key)
            else:
                problems.append(f"generate: --{key.name}: expected one value, got {len(found)}")
    if problems:
        raise UserError(*problems)
    try:
        spec = synthetic_spec(values, SIZES[options["size"]])
    except UserError as error:
        raise UserError(*(problem.replace("synthetic: ", "generate: ", 1) for problem in error.problems)) from None
    if present := sorted(path.name for path in folder.glob("*_feat.npy")):
        raise UserError(f"generate: {folder} holds {', '.join(present)}: delete the folder or choose another name")

    from utils.data.synthetic import generate, write

    start = time.perf_counter()
    write(generate(spec), folder)
    print(f"{folder}: {spec.n_users:,} users, {spec.n_items:,} items, {spec.n_interactions:,} interactions")
    print(f"written in {time.perf_counter() - start:.1f} s; train on it with -d {name} --data_path {folder.parent}")
    return 0
