"""The words of the commands prepare, convert, describe, content and generate_raw, turned into options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from cli.command_line import Words, take_apart
from prepare.content.store import FILE, ContentStore, compact
from prepare.conversion.convert_dataset import convert, convert_graph
from prepare.conversion.formats import READERS
from prepare.dataset_description import describe, plot_degrees
from prepare.files import make_named_folder
from prepare.options import ALL, CheckedOptions, PrepareOptions
from prepare.prepare_dataset import prepare_dataset
from prepare.synthetic_raw.raw_spec import SIZES, RawSpec
from prepare.synthetic_raw.write_raw import WRITERS, write_raw
from utils.config.configuration import Request, data_folder, parse_yaml
from utils.config.schema import Key, keys_of
from utils.errors import UserError, nearest
from utils.runs.run_folder import write_json

Options = TypeVar("Options", bound=CheckedOptions)
ACTIONS = ("list", "verify", "compact")
SHOWN = 50
FIGURES = ("svg", "pdf", "png")


def options_help(options: type[CheckedOptions]) -> str:
    """A line or two for each option."""
    lines = []
    for key in keys_of(options).values():
        default = "" if key.default in (None, False, {}) or key.name == "name" else f" [{key.default}]"
        lines += [f"  --{key.name}{default}", f"        {key.field.metadata['help']}"]
    return "\n".join(lines)


def values_of(words: Words, options: type[CheckedOptions], command: str) -> dict[str, Any]:
    """The values of words by option; numbers are read as YAML, mappings as NAME=VALUE.

    Raises:
        UserError: for options that are not known, without a value or with too many.
    """
    keys = keys_of(options)
    unknown = [name for name in (*words.options, *words.flags) if name not in keys]
    problems = [f"{command}: unknown option --{name}{nearest(name, keys)}" for name in unknown]
    values: dict[str, Any] = dict.fromkeys(words.flags, True)
    for name, given in words.options.items():
        key = keys.get(name)
        if not given:
            problems.append(f"{command}: --{name}: a value is missing")
        elif key is None:
            continue
        elif isinstance(key.default, dict):
            values[name] = _pairs(given, name, command, problems)
        elif key.is_list:
            values[name] = [_value(word, name, key) for word in given]
        elif len(given) > 1:
            problems.append(f"{command}: --{name}: expected one value, got {len(given)}")
        else:
            values[name] = _value(given[0], name, key)
    if problems:
        raise UserError(*problems)
    return values


def _value(word: str, name: str, key: Key) -> Any:
    return word if "word" in key.describe() else parse_yaml(word, f"--{name}")


def _pairs(words: Sequence[str], name: str, command: str, problems: list[str]) -> dict[str, str]:
    """NAME=VALUE words; of --columns several may be joined by commas, and one FILE of --feature_ids is for all."""
    if name == "feature_ids" and len(words) == 1 and "=" not in words[0]:
        return {ALL: words[0]}
    pairs: dict[str, str] = {}
    for part in (part for word in words for part in (word.split(",") if name == "columns" else [word])):
        left, _, right = part.partition("=")
        if not left or not right:
            problems.append(f"{command}: --{name}: expected NAME=VALUE, got '{part}'")
        elif left in pairs:
            problems.append(f"{command}: --{name}: {left} is given twice")
        pairs[left] = right
    return pairs


def _name(arguments: Sequence[str], command: str) -> str:
    name = arguments[0] if arguments else ""
    if not name or name.startswith("-"):
        raise UserError(f"{command}: the name of the data set is missing; see {command} --help")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"{command}: expected a name of letters, digits, _ . and -, got '{name}'")
    return name


def _asks_for_help(arguments: Sequence[str]) -> bool:
    return not arguments or arguments[0] in ("-h", "--help")


def prepare_command(arguments: Sequence[str]) -> int:
    """The command `prepare`; returns the exit code."""
    if _asks_for_help(arguments):
        print("usage: main.py prepare NAME --raw DIR [--source SOURCE] | --interactions FILE [options]\n")
        print("Makes DATA_PATH/NAME from raw files. The same command continues after a kill and skips what is done.")
        print(f"docs/data.md explains it.\n\noptions:\n{options_help(PrepareOptions)}")
        return 0
    flags = [name for name, key in keys_of(PrepareOptions).items() if key.type is bool]
    name = _name(arguments, "prepare")
    words = take_apart(list(arguments[1:]), flags)
    prepare_dataset(PrepareOptions.of({"name": name, **values_of(words, PrepareOptions, "prepare")}))
    return 0


def generate_raw_command(arguments: Sequence[str]) -> int:
    """The command `generate_raw`; returns the exit code."""
    usage = f"main.py generate_raw DIR [--source {'|'.join(WRITERS)}] [--size {'|'.join(SIZES)}] [--KEY VALUE ...]"
    if _asks_for_help(arguments):
        print(f"usage: {usage}\n\nkeys (of the size small):\n{options_help(RawSpec)}")
        return 0
    if arguments[0].startswith("-"):
        raise UserError(f"generate_raw: the folder is missing; usage: {usage}")
    words = take_apart(list(arguments[1:]), ())
    source, size = words.one("source", "amazon2014") or "", words.one("size", "small") or ""
    problems = []
    for what, value, known in (("source", source, list(WRITERS)), ("size", size, list(SIZES))):
        words.options.pop(what, None)
        if value not in known:
            problems.append(
                f"generate_raw: --{what}: expected {', '.join(known)}, got '{value}'{nearest(value, known)}"
            )
    try:
        values = values_of(words, RawSpec, "generate_raw")
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(*problems)
    record = write_raw(RawSpec.of(vars(SIZES[size]) | values), Path(arguments[0]).expanduser(), source)
    for name, counts in record["files"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:,}" for key, value in counts.items()))
    print(f"written to {arguments[0]}; the 5-core holds " + ", ".join(f"{n:,} {k}" for k, n in record["core"].items()))
    return 0


def describe_command(arguments: Sequence[str]) -> int:
    """The command `describe`; returns the exit code."""
    if _asks_for_help(arguments):
        print("usage: main.py describe NAME [--data_path DIR] [--output FILE.json] [--plots DIR] [--figure_format F]\n")
        print("Describes DATA_PATH/NAME: sizes, splits, how interactions are spread, and the health of its features.\n")
        print("  --output FILE.json   the same in full precision, with manifest.json")
        print(
            "  --plots DIR          DIR/degrees.svg: the share of users and of items with at least so many interactions"
        )
        print(f"  --figure_format F    one or more of {', '.join(FIGURES)} (default svg)")
        return 0
    name = _name(arguments, "describe")
    words = take_apart(list(arguments[1:]), ())
    known = ("data_path", "output", "plots", "figure_format")
    problems = [f"describe: unknown option --{n}{nearest(n, known)}" for n in words.options if n not in known]
    problems += [f"describe: --{n}: a value is missing" for n, v in words.options.items() if n in known and not v]
    formats = words.options.get("figure_format", ["svg"])
    problems += [
        f"describe: --figure_format: expected {', '.join(FIGURES)}, got '{f}'" for f in formats if f not in FIGURES
    ]
    if problems:
        raise UserError(*problems)
    target = Path(output).expanduser() if (output := words.one("output")) else None
    if target and (target.is_dir() or not target.parent.is_dir()):
        raise UserError(f"describe: --output: expected a file to write in a folder that is there, got {target}")
    description = describe(_data_folder(words) / name, name)
    print("\n".join(description.lines()))
    if target:
        write_json(target, description.record() | {"manifest": description.manifest})
        print(f"written to {target}")
    if plots := words.one("plots"):
        make_named_folder(Path(plots).expanduser(), "--plots")
        for form in formats:
            path = Path(plots).expanduser() / f"degrees.{form}"
            plot_degrees(description, path)
            print(f"written to {path}")
    return 0


def convert_command(arguments: Sequence[str]) -> int:
    """The command `convert`; returns the exit code."""
    if _asks_for_help(arguments):
        print("usage: main.py convert FORMAT IN OUT [--to FORMAT] [--single] [--renumber]\n")
        print(
            f"Converts a data set. FORMAT is that of IN: {', '.join(READERS)} or user_graph (a .npy and a .npz file)."
        )
        print("  --to FORMAT   of OUT (default mmrec)\n  --single      recbole: one file with a column of splits")
        print("  --renumber    number users and items in order of first appearance, even where they count from 0")
        return 0
    first = next((k for k, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    places, words = arguments[:first], take_apart(list(arguments[first:]), ("single", "renumber"))
    if len(places) != 3:
        raise UserError(f"convert: expected a format and two places, got {len(places)} words; see convert --help")
    form, source, target = places[0], Path(places[1]).expanduser(), Path(places[2]).expanduser()
    if unknown := [name for name in words.options if name != "to"]:
        raise UserError(f"convert: unknown option --{unknown[0]}{nearest(unknown[0], ['to'])}")
    to = words.one("to", "mmrec") or ""
    if form == "user_graph" and (words.options or words.flags):
        raise UserError("convert: user_graph takes no options; the ending of OUT says its form")
    if to == "user_graph":
        raise UserError("convert: --to user_graph: write `convert user_graph IN OUT`")
    if form == "user_graph":
        lines = convert_graph(source, target)
    else:
        lines = convert(source, target.absolute(), form, to, "single" in words.flags, "renumber" in words.flags)
    print("\n".join(lines))
    return 0


def content_command(arguments: Sequence[str]) -> int:
    """The command `content`; returns the exit code."""
    if _asks_for_help(arguments):
        print(
            "usage: main.py content list|verify|compact NAME [--data_path DIR]\n\nThe raw images and texts of a data set."
        )
        print("  list      kinds of content and how many items have it")
        print("  verify    recomputes every hash; names what is damaged, and then ends with exit code 1")
        print("  compact   writes the file anew without free space, if nothing is damaged")
        return 0
    action = arguments[0]
    if action not in ACTIONS:
        raise UserError(f"content: unknown action '{action}'{nearest(action, ACTIONS)}; there are {', '.join(ACTIONS)}")
    name = _name(arguments[1:], "content")
    words = take_apart(list(arguments[2:]), ())
    if unknown := [name for name in words.options if name != "data_path"]:
        raise UserError(f"content: unknown option --{unknown[0]}{nearest(unknown[0], ['data_path'])}")
    path = _data_folder(words) / name / FILE
    if action == "compact":
        before, after = compact(path)
        print(f"{path}: {before:,} bytes before, {after:,} after")
        return 0
    with ContentStore.open(path) as store:
        print(store.summary())
        problems = store.verify() if action == "verify" else []
    if action == "verify":
        lines = [f"damaged: {problem}" for problem in problems[:SHOWN]]
        lines += [f"and {len(problems) - SHOWN:,} more"] * (len(problems) > SHOWN)
        print(
            "\n".join(
                [
                    *lines,
                    f"{len(problems):,} damaged records"
                    if problems
                    else "every record has the hash it was written with",
                ]
            )
        )
    return 1 if problems else 0


def _data_folder(words: Words) -> Path:
    return data_folder(Request([], [], {"data_path": words.one("data_path")} if "data_path" in words.options else {}))
