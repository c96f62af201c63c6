"""The command line: words to a request, and the commands, of which train is the default."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrec.plugin import ModelFile, mistakes_of_plugins, plugin_keys, read_model_file
from runner.registry import available_models, model_class, model_keys, model_name, plugin_of, summary
from utils.config.configuration import Config, Request, data_folder, known_datasets, parse_yaml, read_yaml, resolve
from utils.config.schema import Key, keys_of
from utils.config.settings import SETTINGS, WITHOUT_EFFECT
from utils.errors import UserError, nearest
from utils.paths import CONFIGS, DATA_VARIABLE

USAGE = """\
usage: main.py -m MODEL [MODEL ...] -d DATASET [DATASET ...] [options] [--KEY VALUE ...]
       main.py recommend RUN_FOLDER [--users ID ...] [--k K] [--output FILE] [--data_path DIR] [--device D]
       main.py generate NAME --data_path DIR [--size demo|baby|sports|elec] [--n_users N ...]
       main.py prepare NAME --raw DIR | --interactions FILE [options]
       main.py study FILE.yaml [--workers N] [--launcher local|ray] [--dry_run] [--output_dir DIR] [--data_path DIR]
       main.py report STUDY_FOLDER
       main.py audit DATASET [--data_path DIR] [--user_graph_file FILE.npz] [--random_split] [--output FILE.json]
       main.py describe NAME [--data_path DIR] [--output FILE.json] [--plots DIR]
       main.py convert FORMAT IN OUT [--to FORMAT]
       main.py convert_user_graph user_graph_dict.npy OUT.npz
       main.py content list|verify|compact NAME [--data_path DIR]
       main.py generate_raw DIR [--source amazon2014|amazon2023|own] [--size small|baby|elec] [--KEY VALUE ...]
       main.py check_plugin FILE[:CLASS] [--plugin_config FILE] [--KEY VALUE ...]
       main.py --list | --help

Trains and evaluates each model on each data set; several runs end in a comparison table.

options:
  -m, --model NAME ...     models (see --list)
  -d, --dataset NAME ...   data sets of the tree (see --list), or any folder DATA_PATH/NAME with NAME.inter
  --plugin FILE ...        models from files of your own or written for MMRec, unmodified (-m may then be left out)
  --plugin_config FILE ... their YAML files, in the same order; without: NAME.yaml beside the file
  --config FILE ...        YAML files laid over the model's (MMRec's key names work)
  --best                   lay the best published setting for the data set over the model's, where there is one
  --grid                   run the search space that the model's file publishes under `grid:`
  --first_combination      of a grid, run the first combination only
  --resume                 continue: skip the finished runs of this command, take up the killed one
  --quiet                  no progress bar
  --list                   show models and data sets, which are present, and how to get the others
  -h, --help               show this; with -m MODEL, its keys too

Any key can be set as --KEY VALUE; several values of a key that holds one are a grid (--seed 1 2 3).
"""
FLAGS = ("best", "grid", "first_combination", "resume", "quiet", "list", "help")
SHORT = {"-m": "--model", "-d": "--dataset", "-h": "--help"}
RESERVED = ("model", "dataset", "config", "plugin", "plugin_config")


@dataclass
class Words:
    """The command line taken apart: flags, and options with their values."""

    flags: set[str] = field(default_factory=set)
    options: dict[str, list[str]] = field(default_factory=dict)

    def one(self, name: str, default: str | None = None) -> str | None:
        """The single value of an option."""
        values = self.options.get(name)
        if values is None:
            return default
        if len(values) != 1:
            raise UserError(f"--{name}: expected one value, got {len(values)}")
        return values[0]


def take_apart(arguments: Sequence[str], flags: Sequence[str] = FLAGS) -> Words:
    """Splits words into flags and options; a value may start with '-' only as a number.

    Raises:
        UserError: for a word that belongs to no option, an option given twice, or one without a value.
    """
    words = Words()
    current: str | None = None
    for argument in arguments:
        argument = SHORT.get(argument, argument)
        number = re.fullmatch(r"-(\d|\.\d|inf|nan).*", argument)
        if argument.startswith("--") and len(argument) > 2:
            name, equals, value = argument[2:].partition("=")
            name = name.replace("-", "_")
            if name in flags:
                if equals:
                    raise UserError(f"--{name} takes no value, got '{value}'")
                words.flags.add(name)
                current = None
                continue
            if name in words.options:
                raise UserError(f"--{name} is given twice; write its values after one --{name}")
            words.options[name] = [value] if equals else []
            current = None if equals else name
        elif argument.startswith("-") and not number:
            raise UserError(f"unknown option '{argument}'; short options are {', '.join(SHORT)}")
        elif current is None:
            raise UserError(f"'{argument}' belongs to no option; write --KEY VALUE (see --help)")
        else:
            words.options[current].append(argument)
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 1 for a failed run, 2 for a mistake in what was given."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
        signal.signal(signal.SIGTERM, _terminate)
    try:
        with mistakes_of_plugins():
            code = _dispatch(arguments)
        sys.stdout.flush()  # while a reader that has gone away can still be told from a mistake of ours
        return code
    except UserError as error:
        for problem in error.problems:
            print(f"error: {' '.join(problem.split())}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", text):
            raise
        print(f"error: not enough memory ({text[:200]}); use smaller sizes or batches", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        training = arguments[:1] == ["train"] or not arguments or arguments[0].startswith("-")
        print("\nstopped" + "; the same command with --resume continues" * training, file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}; check its permissions and the disk", file=sys.stderr)
        return 2
    finally:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: Any) -> None:
    raise KeyboardInterrupt(number)


def _dispatch(arguments: list[str]) -> int:
    commands = {
        "train": _train, "study": _study, "report": _report, "recommend": _recommend, "generate": _generate,
        "convert_user_graph": _convert_user_graph, "audit": _audit, "prepare": _prepare,
        "generate_raw": _generate_raw, "describe": _describe, "convert": _convert,
        "content": _content, "check_plugin": _check_plugin,
    }  # fmt: skip
    if arguments and not arguments[0].startswith("-"):
        command = arguments[0]
        if command not in commands:
            raise UserError(f"unknown command '{command}'{nearest(command, commands)}; there are {', '.join(commands)}")
        return commands[command](arguments[1:])
    return _train(arguments)


def _train(arguments: list[str]) -> int:
    words = take_apart(arguments)
    if "help" in words.flags or not arguments:
        _print_help(words)
        return 0
    request, problems = _request(words)
    if "list" in words.flags:
        if problems:
            raise UserError(*problems)
        _print_list(data_folder(request))
        return 0
    problems += [
        f"--{needed} is missing; write -{short} NAME (see --list)"
        for needed, short in (("model", "m"), ("dataset", "d"))
        if needed not in words.options and (needed == "dataset" or "plugin" not in words.options)
    ]
    classes = {name: model_class(name, request.plugins.get(name)) for name in request.models}
    try:
        configs, notes = resolve(request, {name: _own_keys(name, request) for name in request.models})
    except UserError as error:
        raise UserError(*problems, *error.problems) from None
    if problems:
        raise UserError(*problems)
    hidden = [name for name in request.plugins if name in available_models()]
    for note in [*notes, *(f"{name} is that of {request.plugins[name].path}, not the project's" for name in hidden)]:
        print(f"note: {note}")

    from runner.session import run_all

    needs_features = {name: cls.needs_features for name, cls in classes.items()}
    return run_all(configs, needs_features, resume="resume" in words.flags, quiet="quiet" in words.flags)


def _request(words: Words) -> tuple[Request, list[str]]:
    """Turns words into a request, and says what is wrong with them."""
    problems: list[str] = []
    plugins = _plugins(words, problems)
    names: list[str] = []
    for word in words.options.get("model", []):
        try:
            names.append(model_name(word, plugins))
        except UserError as error:
            problems += error.problems
    names += plugins  # who gives a model file wants it run
    files = [Path(value).expanduser() for value in words.options.get("config", [])]
    request = Request(
        list(dict.fromkeys(names)), list(dict.fromkeys(words.options.get("dataset", []))), {}, files, plugins=plugins
    )
    keys = _keys(request)
    known = [*FLAGS, *RESERVED, *keys]
    overrides = request.overrides
    for name, values in words.options.items():
        key = keys.get(name)
        if values and name not in RESERVED:
            overrides[name] = [_value(value, name, key) for value in values]
        elif not values and key is not None and key.type is bool:
            overrides[name] = [True]
        elif not values:
            # Without a value and unknown, it is most often a misspelt flag.
            unknown = name not in known and nearest(name, FLAGS)
            problems.append(
                f"unknown option --{name}{nearest(name, known)}" if unknown else f"--{name}: a value is missing"
            )
        if "list" in words.flags and values and name not in (*known, *WITHOUT_EFFECT):
            problems.append(f"unknown option --{name}{nearest(name, known)}")
    request.grid, request.best = "grid" in words.flags, "best" in words.flags
    request.first_combination = "first_combination" in words.flags
    return request, problems


def _plugins(words: Words, problems: list[str]) -> dict[str, ModelFile]:
    """The model files that --plugin names, by the name of their model, each with its YAML file."""
    paths = [Path(value).expanduser() for value in words.options.get("plugin", [])]
    settings = [Path(value).expanduser() for value in words.options.get("plugin_config", [])]
    if settings and len(settings) != len(paths):
        problems.append(f"--plugin_config: expected a file for each --plugin ({len(paths)}), got {len(settings)}")
        settings = []
    problems += [f"--plugin_config: there is no file {path}" for path in settings if not path.is_file()]
    found: dict[str, ModelFile] = {}
    for number, path in enumerate(paths):
        try:
            file = read_model_file(path, settings[number] if settings else None)
            if file.name in found:
                problems.append(f"--plugin: {found[file.name].path} and {path} are both called {file.name}")
            found[file.name] = file
        except UserError as error:
            problems += error.problems
    return found


def _own_keys(name: str, request: Request) -> dict[str, Key]:
    """The keys of a model besides those of the harness."""
    # A list in a file is a grid if any file says so; the keys of a model are those of its own file.
    axes = [read_yaml(path, str(path)).get("hyper_parameters") for path in request.files]
    return model_keys(name, request.plugins.get(name), axes)


def _keys(request: Request) -> dict[str, Key]:
    """Every key of the harness and of the models of a request, under each name that it has."""
    groups: list[Any] = [*SETTINGS, *(_own_keys(name, request) for name in request.models)]
    keys = [key for settings in groups for key in keys_of(settings).values()]
    return {name: key for key in keys for name in (key.name, *key.field.metadata["alias"])}


def _value(word: str, name: str, key: Key | None) -> Any:
    """Reads a value as YAML, so that 1e-3, true and [1, 2] mean what they say.

    Where a key holds a word, the value is taken as it stands (`2024`, `off`, `a #b`) unless it is null, quoted or a list.
    """
    if not word or (key is not None and key.is_word and not re.match(r"['\"\[]|(null|~)$", word)):
        return word
    return parse_yaml(word, f"--{name}")


def _print_help(words: Words) -> None:
    problems: list[str] = []
    plugins = _plugins(words, problems)
    names = [model_name(word, plugins) for word in words.options.get("model", [])]
    if problems:
        raise UserError(*problems)
    print(USAGE)
    sections: dict[str, list[Any]] = {"keys": list(SETTINGS)}
    for name in dict.fromkeys([*names, *plugins]):
        keys = model_keys(name, plugins.get(name))
        sections[f"keys of {name}"] = [{key: keys[key] for key in keys if key not in plugin_keys()}]
    values = read_yaml(CONFIGS / "overall.yaml", "overall.yaml")
    for title, groups in sections.items():
        own = dict(values)
        if title != "keys":
            name = title.rpartition(" ")[2]
            path = plugins[name].settings_file if name in plugins else CONFIGS / "model" / f"{name}.yaml"
            own |= read_yaml(path, title) if path else {}
        print(f"{title} (default in brackets):")
        for settings in groups:
            for key in keys_of(settings).values():
                print(f"  --{key.name} [{own.get(key.name)!r}]".replace("None", "null"))
                print(f"        {key.field.metadata['help']}; {key.describe()}")
        print()


def _print_list(folder: Path) -> None:
    print("models:")
    for name, path in available_models().items():
        print(f"  {name:10} {summary(path).partition(': ')[2] or summary(path)}")
    print(f"\ndata sets (folder {folder}; --data_path DIR or ${DATA_VARIABLE} names another):")
    for name in known_datasets(folder):
        content: dict[str, Any] = {}
        for path in (CONFIGS / "dataset" / f"{name}.yaml", folder / name / "dataset.yaml"):
            if path.is_file():
                content |= read_yaml(path, str(path))
        place = folder / name
        if content.get("synthetic") is not None:
            print(f"  {name:10} present (generated by the project)")
        elif (place / (content.get("inter_file_name") or f"{name}.inter")).is_file():
            arrays = ", ".join(sorted(path.name for path in place.glob("*_feat.npy"))) or "no feature files"
            print(f"  {name:10} present ({arrays})")
        else:
            print(f"  {name:10} not present; get it from {content.get('source', 'its authors')}")


def _study(arguments: list[str]) -> int:
    from study.command import study_command

    return study_command(arguments)


def _report(arguments: list[str]) -> int:
    from study.command import report_command

    return report_command(arguments)


def _generate_raw(arguments: list[str]) -> int:
    from prepare.raw import raw_command

    return raw_command(arguments)


def _describe(arguments: list[str]) -> int:
    from prepare.describe import describe_command

    return describe_command(arguments)


def _convert(arguments: list[str]) -> int:
    from prepare.convert import convert_command

    return convert_command(arguments)


def _content(arguments: list[str]) -> int:
    from prepare.store_command import content_command

    return content_command(arguments)


def _check_plugin(arguments: list[str]) -> int:
    usage = "check_plugin FILE[:CLASS] [--plugin_config FILE] [--KEY VALUE ...]"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: main.py {usage}\n\nTries a model file on a tiny data set and reports what it reads and lacks.")
        return 0
    if arguments[0].startswith("-"):
        raise UserError(f"check_plugin: the model file is missing; usage: {usage}")
    words = take_apart(arguments[1:])
    settings = words.one("plugin_config")
    file = read_model_file(Path(arguments[0]), Path(settings).expanduser() if settings else None)

    from mmrec.check_plugin import check_plugin

    given = {name: values for name, values in words.options.items() if name != "plugin_config"}
    overrides = {name: [_value(value, name, None) for value in values] for name, values in given.items()}
    report = check_plugin(file, overrides)
    print(report.text())
    return 1 if report.failure else 0


def _recommend(arguments: list[str]) -> int:
    usage = "recommend RUN_FOLDER [--users ID ...] [--k K] [--output FILE] [--data_path DIR] [--device D]"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: main.py {usage}")
        return 0
    if arguments[0].startswith("-"):
        raise UserError(f"recommend: the run folder is missing; usage: {usage}")
    folder = Path(arguments[0]).expanduser()
    words = take_apart(arguments[1:])
    known = ("users", "k", "output", "data_path", "device")
    problems = [f"recommend: unknown option --{n}{nearest(n, known)}" for n in words.options if n not in known]
    problems += [f"recommend: --{flag} has no meaning here" for flag in words.flags]
    problems += [f"recommend: --{n}: a value is missing" for n, values in words.options.items() if not values]
    single = {n: values for n, values in words.options.items() if n in known and n != "users" and values}
    problems += [f"recommend: --{n}: expected one value, got {len(v)}" for n, v in single.items() if len(v) > 1]
    users = [whole_number("recommend", "users", 0, word, problems) for word in words.options.get("users", [])]
    k = whole_number("recommend", "k", 1, single.get("k", ["20"])[0], problems)
    if problems:
        raise UserError(*problems)

    from runner.recommend import recommend

    output = words.one("output")
    return recommend(
        folder,
        list(dict.fromkeys(users)) or None,
        k,
        Path(output).expanduser() if output else None,
        words.one("data_path"),
        words.one("device"),
    )


def whole_number(command: str, name: str, low: int, word: str, problems: list[str]) -> int:
    """The word as a number, or a line more in `problems`."""
    if re.fullmatch(r"-?\d{1,18}", word) and int(word) >= low:
        return int(word)
    problems.append(f"{command}: --{name}: expected an integer of at least {low}, got '{word}'")
    return low


def _generate(arguments: list[str]) -> int:
    import dataclasses

    from utils.data.synthetic import SIZES, SyntheticSpec, generate, write

    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: main.py generate NAME --data_path DIR [--size demo|baby|sports|elec] [--KEY VALUE ...]\n")
        print("keys (value of the size demo in brackets):")
        helps = dict(re.findall(r"^ +(\w+): (.+)$", SyntheticSpec.__doc__ or "", re.MULTILINE))
        for entry in dataclasses.fields(SyntheticSpec):
            print(f"  --{entry.name} [{getattr(SIZES['demo'], entry.name)}]\n        {helps.get(entry.name, '')}")
        return 0
    name = arguments[0]
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"generate: expected a name for the data set first, got '{name}'")
    words = take_apart(arguments[1:])
    fields = {entry.name for entry in dataclasses.fields(SyntheticSpec)}
    known = [*fields, "data_path", "size"]
    problems = [f"generate: unknown option --{n}{nearest(n, known)}" for n in words.options if n not in known]
    problems += [f"generate: --{flag} has no meaning here" for flag in sorted(words.flags)]
    size = words.one("size", "demo") or ""
    if size not in SIZES:
        problems.append(f"generate: unknown size '{size}'{nearest(size, SIZES)}; there are {', '.join(SIZES)}")
    if problems:
        raise UserError(*problems)
    values = {n: parse_yaml(words.one(n) or "", f"--{n}") for n in words.options if n in fields}
    try:
        spec = dataclasses.replace(SIZES[size], **values)
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"generate: {error}".replace("SyntheticSpec: ", "")) from None
    folder = data_folder(Request([], [], {"data_path": words.one("data_path")})) / name
    if there := sorted(path.name for path in folder.glob("*_feat.npy")):
        raise UserError(f"generate: {folder} holds {', '.join(there)}: delete the folder or choose another name")
    start = time.perf_counter()
    try:
        write(generate(spec), folder)
    except FileExistsError as error:
        raise UserError(f"generate: {error}") from None
    except OSError as error:
        raise UserError(f"generate: {folder}: cannot be written ({error.strerror})") from None
    print(f"{folder}: {spec.n_users:,} users, {spec.n_items:,} items, {spec.n_interactions:,} interactions")
    print(f"written in {time.perf_counter() - start:.1f} s; train on it with -d {name} --data_path {folder.parent}")
    return 0


def _prepare(arguments: list[str]) -> int:
    from prepare.command import prepare_command

    return prepare_command(arguments)


def _convert_user_graph(arguments: list[str]) -> int:
    usage = "convert_user_graph user_graph_dict.npy OUT.npz"
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: main.py {usage}")
        return 0
    if len(arguments) != 2:
        raise UserError(f"convert_user_graph: expected two files, got {len(arguments)}; usage: {usage}")

    from utils.data.user_graph_file import convert_user_graph

    source, target = (Path(argument).expanduser() for argument in arguments)
    n_users, n_pairs = convert_user_graph(source, target)
    print(f"written to {target}: {n_users:,} users, {n_pairs:,} co-users")
    print(f"use it by --user_graph_file {target.absolute()}")
    return 0


def _audit(arguments: list[str]) -> int:
    usage = "audit DATASET [--data_path DIR] [--user_graph_file FILE.npz] [--random_split] [--output FILE.json]"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(
            f"usage: main.py {usage}\n\nChecks a data set and its split for leakage; exit code 1 where it finds some."
        )
        return 0
    if arguments[0].startswith("-"):
        raise UserError(f"audit: the name of the data set is missing; usage: {usage}")
    words = take_apart(arguments[1:], ("random_split",))
    known = ("data_path", "user_graph_file", "output", "random_split")
    problems = [f"audit: unknown option --{n}{nearest(n, known)}" for n in words.options if n not in known]
    problems += [
        f"audit: --{n}: a value is missing" for n, values in words.options.items() if n in known and not values
    ]
    if problems:
        raise UserError(*problems)
    data_path, graph, output = (words.one(name) for name in ("data_path", "user_graph_file", "output"))
    # Read before, so that a place that cannot be written to costs no work.
    target = Path(output).expanduser() if output else None
    if target and (target.is_dir() or not target.parent.is_dir()):
        raise UserError(f"audit: --output: expected a file to write in a folder that is there, got {target}")
    overrides = {"data_path": [data_path]} if data_path else {}
    (config,), _ = resolve(Request(["audit"], [arguments[0]], overrides), {"audit": None})

    from audit.checks import audit, table
    from utils.runs.run_folder import write_json

    result = audit(config, Path(graph).expanduser() if graph else None, "random_split" in words.flags)
    print(f"{table(result.checks)}\n\n{result.sentence()}")
    if target:
        write_json(target, result.record())
        print(f"written to {target}")
    return 1 if result.leaks else 0


def config_of(folder: Path, changed: Mapping[str, Any]) -> Config:
    """The settings of a run folder, from its config.yaml with some changed, checked against the model's keys.

    Raises:
        UserError: if the folder is not a run folder of this code.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: not a run folder (no config.yaml)")
    content = read_yaml(path, str(path))
    if not isinstance(content.get("model"), str) or not isinstance(content.get("dataset"), str):
        raise UserError(f"{path}: expected the names of a model and a data set, as a run writes them")
    plugin = plugin_of(content)
    model, dataset = model_name(content.pop("model"), [plugin.name] if plugin else []), content.pop("dataset")
    keys = model_keys(model, plugin, content=content)
    return Config.from_values(model, keys, dataset, {**content, **changed}, str(path))
