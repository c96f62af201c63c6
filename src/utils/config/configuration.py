"""From YAML files and command-line words to checked settings, each with the place that it came from.

Order, the later wins: configs/overall.yaml, configs/dataset/NAME.yaml, DATA_PATH/NAME/dataset.yaml,
configs/model/NAME.yaml, configs/best/DATASET/NAME.yaml with --best, files given by --config, the command line.
All mistakes are reported at once.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from utils.config.best import published
from utils.config.schema import Key, check_value, keys_of
from utils.config.settings import NOT_IDENTITY, SETTINGS, WITHOUT_EFFECT
from utils.errors import UserError, nearest
from utils.paths import CONFIGS, default_data_path

if TYPE_CHECKING:
    from mmrec.plugin import ModelFile

OwnKeys = type | Mapping[str, Key] | None  # of a model: a settings dataclass, or the keys themselves

FEATURE_FILE_ALIASES = {"vision_feature_file": "visual", "text_feature_file": "textual"}
COMMAND_LINE = "command line"
LARGEST_LOG = 700  # e to it is still a float


class _Loader(yaml.SafeLoader):
    """YAML without surprises: 1e-4 is a number, and a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key '{name}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: a word such as 1e5 is quoted."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse_yaml(text: str, name: str) -> Any:
    """Reads YAML with safe types only.

    Raises:
        UserError: naming the place and the line, if the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{name}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, RecursionError) as error:  # 2020-99-99 looks like a date; [[[[... goes too deep
        raise UserError(f"{name}: not valid YAML: {error}") from None


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """Reads a configuration file as a mapping; `name` stands for it in messages.

    Raises:
        UserError: if it cannot be read or is not a mapping of keys to values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(f"{name}: cannot be read ({reason})") from None
    content = parse_yaml(text, name)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{name}: expected keys and values ('key: value'), got {type(content).__name__}")
    return content


@dataclass(frozen=True)
class Config(Mapping[str, Any]):
    """The settings of one run. `config[key]` gives None for a key that is not set, as MMRec models expect."""

    model: str
    dataset: str
    entries: dict[str, Any]
    sources: dict[str, str]
    aliases: dict[str, str] = field(default_factory=dict)
    axes: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Any:
        if key in ("model", "dataset"):
            return getattr(self, key)
        return self.entries.get(self.aliases.get(key, key))

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, key: object) -> bool:
        return key in ("model", "dataset") or self.aliases.get(str(key), key) in self.entries

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or `default` where the key is not there or null."""
        value = self[key]
        return default if value is None else value

    @classmethod
    def from_values(
        cls, model: str, model_settings: OwnKeys, dataset: str, content: Mapping[str, Any], source: str
    ) -> Config:
        """The settings that a run folder's config.yaml holds, checked like any other file.

        Raises:
            UserError: with every mistake in it.
        """
        resolver = _Resolver(model, model_settings, dataset)
        resolver.layer({key: value for key, value in content.items() if key != "hyper_parameters"}, source)
        resolver.values["hyper_parameters"] = None
        runs = resolver.combinations(use_grid=False, first=True)
        problems = resolver.problems or _cross_checks(runs[0])
        if problems:
            raise UserError(*problems)
        return runs[0]

    def to_yaml(self) -> str:
        """The resolved settings, one a line, with the place each came from as a comment."""
        lines = [f"model: {self.model}", f"dataset: {self.dataset}"]
        for key, value in self.entries.items():
            text = yaml.dump({key: value}, Dumper=_Dumper, default_flow_style=True, width=10**6, sort_keys=False)
            lines.append(f"{text.strip()[1:-1]}  # {self.sources[key]}")
        return "\n".join(lines) + "\n"


@dataclass
class Request:
    """What the command line asks for, before it is checked against the files."""

    models: list[str]
    datasets: list[str]
    overrides: dict[str, Any] = field(default_factory=dict)  # value, or a list of them
    files: list[Path] = field(default_factory=list)
    grid: bool = False
    first_combination: bool = False
    best: bool = False
    plugins: Mapping[str, ModelFile] = field(default_factory=dict)  # models that come from elsewhere, by name


class _Resolver:
    """Merges the layers of one (model, data set) pair and collects every mistake on the way."""

    def __init__(self, model: str, model_settings: OwnKeys, dataset: str) -> None:
        self.model, self.dataset = model, dataset
        self.keys: dict[str, Key] = {}
        for settings in (*SETTINGS, *([model_settings] if model_settings else [])):
            self.keys.update(keys_of(settings))
        self.aliases = {a: key.name for key in self.keys.values() for a in key.field.metadata["alias"]}
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.grid: dict[str, tuple[list[Any], str]] = {}  # values and where they stand
        self.named: list[str] = []
        self.problems: list[str] = []
        self.notes: list[str] = []

    def layer(self, content: Mapping[str, Any], source: str) -> None:
        """Lays one file over what is there; unknown keys are noted as mistakes."""
        for raw, value in content.items():
            if raw in FEATURE_FILE_ALIASES:
                before = self.values.get("modalities") or {}
                files = {**before, FEATURE_FILE_ALIASES[raw]: value} if isinstance(before, dict) else before
                self._put("modalities", files, source)
            elif raw in ("model", "dataset"):  # a run folder's config.yaml says what it is of
                if value != getattr(self, raw):
                    self.problems.append(
                        f"{source}: these are settings of {raw} '{value}', not of '{getattr(self, raw)}'"
                    )
            elif raw == "grid":
                self._take_grid(value, source)
            elif raw == "hyper_parameters":
                self._name_axes(value, source)
                self._put(raw, None, source)
            elif (name := self.aliases.get(raw, raw)) in self.keys:
                self._put(name, value, source)
            elif raw in WITHOUT_EFFECT:
                self.notes.append(f"{source}: {raw} has no effect here: {WITHOUT_EFFECT[raw]}")
            else:
                known = [*self.keys, *self.aliases]
                self.problems.append(f"{source}: unknown key '{raw}'{nearest(raw, known)}")

    def override(self, overrides: Mapping[str, Any]) -> list[str]:
        """Lays the command line over the files; several values for a plain key are a grid. Returns unknown keys."""
        unknown = []
        # What a file searches, the command line sets; an axis that is named here too is named below.
        given = {self.aliases.get(raw, raw) for raw in overrides}
        self.named = [axis for axis in self.named if axis not in given]
        self.grid = {axis: found for axis, found in self.grid.items() if axis not in given}
        for raw, words in overrides.items():
            name = self.aliases.get(raw, raw)
            if raw in FEATURE_FILE_ALIASES or raw == "hyper_parameters":
                flat = [e for word in words for e in (word if isinstance(word, list) else [word])]
                self.layer({raw: flat if raw == "hyper_parameters" else words[0]}, COMMAND_LINE)
            elif name not in self.keys:
                unknown.append(raw)
            elif self.keys[name].is_list:
                self._put(name, words[0] if len(words) == 1 else words, COMMAND_LINE)
            else:
                several = words[0] if len(words) == 1 and isinstance(words[0], list) else words
                self._put(name, several[0] if len(several) == 1 else list(several), COMMAND_LINE)
                if len(several) > 1:
                    self.named.append(name)
        return unknown

    def combinations(self, use_grid: bool, first: bool) -> list[Config]:
        """The settings of every run: one, or the product of the grid's axes, the first varying slowest."""
        axes: dict[str, list[Any]] = {}
        for name in self.named:
            if name in self.values:
                value = self.values[name]
                axes[name] = list(value) if isinstance(value, list) else [value]
        if use_grid:
            searched = {name: found for name, found in self.grid.items() if name not in axes}
            axes = {**{name: values for name, (values, _) in searched.items()}, **axes}
            self.sources |= {name: source for name, (_, source) in searched.items()}
        checked: dict[str, Any] = {}
        for name, key in self.keys.items():
            if name in axes:
                n_problems = len(self.problems)
                axes[name] = [self._checked(key, value) for value in axes[name]]
                doubled = [value for i, value in enumerate(axes[name]) if value in axes[name][:i]]
                if not axes[name]:
                    self.problems.append(f"{self._place(name)}: {name}: expected a list of values, got []")
                elif doubled and len(self.problems) == n_problems:
                    self.problems.append(f"{self._place(name)}: {name} lists {doubled[0]!r} twice")
                elif name in NOT_IDENTITY and len(axes[name]) > 1:
                    self.problems.append(
                        f"{self._place(name)}: {name}: expected one value, got {len(axes[name])}: it does not change "
                        "what a run computes"
                    )
            elif name in self.values:
                checked[name] = self._checked(key, self.values[name])
            elif key.default is not _missing():
                checked[name], self.sources[name] = key.default, "default"
            else:
                self.problems.append(f"no file sets '{name}' ({key.field.metadata['help']})")
        if self.problems:
            return []
        runs = []
        for point in itertools.product(*axes.values()):
            values = {**checked, **dict(zip(axes, point, strict=True))}
            ordered = {name: values[name] for name in self.keys}
            varied = tuple(name for name, options in axes.items() if len(options) > 1)
            sources = {name: self._place(name) + (", grid" if name in axes else "") for name in ordered}
            runs.append(Config(self.model, self.dataset, ordered, sources, self.aliases, varied))
        return runs[:1] if first else runs

    def _place(self, name: str) -> str:
        return self.sources.get(name, "default")

    def _put(self, name: str, value: Any, source: str) -> None:
        self.values[name], self.sources[name] = value, source

    def _checked(self, key: Key, value: Any) -> Any:
        try:
            return check_value(key, value)
        except ValueError as error:
            self.problems.append(f"{self._place(key.name)}: {key.name}: {error}")
            return None

    def _take_grid(self, content: Any, source: str) -> None:
        if not isinstance(content, dict):
            self.problems.append(f"{source}: grid: expected keys with lists of values, got {content!r}")
            return
        for raw, values in content.items():
            name = self.aliases.get(raw, raw)
            if name not in self.keys:
                self.problems.append(f"{source}: grid: unknown key '{raw}'{nearest(str(raw), self.keys)}")
            elif not isinstance(values, list) or not values:
                self.problems.append(f"{source}: grid: {raw}: expected a list of values, got {values!r}")
            else:
                self.grid[name] = values, source

    def _name_axes(self, content: Any, source: str) -> None:
        names = content if isinstance(content, list) else [content] if content else []
        for raw in names:
            name = self.aliases.get(str(raw), str(raw))
            if name not in self.keys:
                self.problems.append(f"{source}: hyper_parameters: unknown key '{raw}'{nearest(str(raw), self.keys)}")
            else:
                self.named.append(name)


def _missing() -> Any:
    import dataclasses

    return dataclasses.MISSING


def data_folder(request: Request) -> Path:
    """The folder of data sets: what the command line says, else a --config file, overall.yaml or the default.

    Raises:
        UserError: for several folders, or a file that cannot be read.
    """
    overall = read_yaml(CONFIGS / "overall.yaml", "overall.yaml")
    for content in (request.overrides, *(read_yaml(path, str(path)) for path in reversed(request.files)), overall):
        value = content.get("data_path")
        if isinstance(value, list):
            if len(value) != 1:
                raise UserError(f"data_path: expected one folder, got {value}")
            value = value[0]
        if value:
            return Path(str(value)).expanduser()
    return default_data_path()


def known_datasets(folder: Path) -> list[str]:
    """Names of the data sets with a configuration file in the tree or a folder of their own under `folder`."""
    names = {path.stem for path in (CONFIGS / "dataset").glob("*.yaml")}
    if folder.is_dir():
        names |= {p.name for p in folder.iterdir() if (p / f"{p.name}.inter").is_file()}
        names |= {p.name for p in folder.iterdir() if (p / "dataset.yaml").is_file()}
    return sorted(names)


def resolve(request: Request, model_settings: Mapping[str, OwnKeys]) -> tuple[list[Config], list[str]]:
    """Returns the settings of every run that a request stands for, and notes for the user.

    Args:
        request: what the command line asks for.
        model_settings: for each model of the request, its own keys.

    Raises:
        UserError: with every mistake in files and command line.
    """
    folder = data_folder(request)
    datasets = known_datasets(folder)
    problems = [
        f"unknown data set '{name}'{nearest(name, datasets)}; there are {', '.join(datasets)}, "
        f"and any folder {folder / name} with {name}.inter"
        for name in request.datasets
        if name not in datasets
    ]
    if folder.exists() and not folder.is_dir():
        problems.append(f"data_path: expected a folder that holds one folder per data set, got the file {folder}")
    runs: list[Config] = []
    notes: list[str] = []
    unknown_to_all: set[str] | None = None
    known_words: set[str] = set()
    for dataset, model in itertools.product(request.datasets, request.models):
        resolver = _Resolver(model, model_settings[model], dataset)
        files = [(CONFIGS / "overall.yaml", "overall.yaml")]
        files += [(CONFIGS / "dataset" / f"{dataset}.yaml", f"dataset/{dataset}.yaml")]
        files += [(folder / dataset / "dataset.yaml", str(folder / dataset / "dataset.yaml"))]
        plugin = request.plugins.get(model)
        if plugin is None:
            files += [(CONFIGS / "model" / f"{model}.yaml", f"model/{model}.yaml")]
        elif plugin.settings_file:
            files += [(plugin.settings_file, str(plugin.settings_file))]
        for path, name in files:
            if path.is_file():
                resolver.layer(read_yaml(path, name), name)
        if plugin:
            resolver.layer({"plugin": str(plugin.path), "plugin_sha256": plugin.sha256}, "--plugin")
        best = CONFIGS / "best" / dataset / f"{model}.yaml"
        if request.best and best.is_file() and not plugin:
            name = f"best/{dataset}/{model}.yaml"
            setting = published(read_yaml(best, name), name)
            resolver.layer(setting.settings, f"{name} ({setting.source})" if setting.source else name)
            if setting.source:
                resolver.notes.append(f"best setting of {model} on {dataset}: {setting.source}")
        elif request.best:
            resolver.notes.append(f"no best setting of {model} on {dataset} is published; its defaults are used")
        for path in request.files:
            resolver.layer(read_yaml(path, str(path)), str(path))
        unknown = set(resolver.override(request.overrides))
        unknown_to_all = unknown if unknown_to_all is None else unknown_to_all & unknown
        known_words |= {*resolver.keys, *resolver.aliases, *FEATURE_FILE_ALIASES}
        if resolver.values.get("data_path") is None:
            resolver.sources["data_path"] = "default"
        # A run folder may be read from elsewhere: its paths are absolute.
        resolver.values["data_path"] = str(folder.absolute())
        if isinstance(cache := resolver.values.get("cache_dir"), str):
            resolver.values["cache_dir"] = str(Path(cache).expanduser().absolute())
        runs += resolver.combinations(request.grid, request.first_combination)
        problems += [problem for problem in resolver.problems if problem not in problems]
        notes += [note for note in resolver.notes if note not in notes]
    for word in sorted(unknown_to_all or ()):
        if word in WITHOUT_EFFECT:
            notes.append(f"{COMMAND_LINE}: {word} has no effect here: {WITHOUT_EFFECT[word]}")
        else:
            problems.append(f"{COMMAND_LINE}: unknown key '--{word}'{nearest(word, known_words)}")
    if not problems:
        problems = list(dict.fromkeys(problem for run in runs for problem in _cross_checks(run)))
    if problems:
        raise UserError(*problems)
    return runs, notes


def _cross_checks(config: Config) -> list[str]:
    """Rules that bind several keys at once."""
    problems = []
    schedule = config["learning_rate_scheduler"]
    if len(schedule) != 2:
        problems.append(f"learning_rate_scheduler: expected two numbers [g, s], got {schedule}")
    elif math.log(schedule[0]) * config["epochs"] / schedule[1] > LARGEST_LOG:
        problems.append(
            f"learning_rate_scheduler: expected [g, s] with a finite g^(epochs/s), got {schedule} "
            f"for {config['epochs']} epochs"
        )
    known = [f"{metric}@{k}" for metric in config["metrics"] for k in config["topk"]]
    if config["valid_metric"].lower() not in known:
        problems.append(
            f"valid_metric: expected one of metrics x topk ({', '.join(known)}), got '{config['valid_metric']}'"
        )
    if len(config["field_separator"]) != 1:
        problems.append(
            f"field_separator: expected one character, got {config['field_separator']!r}; "
            "a tab is \"\\t\" in YAML and $'\\t' in a shell"
        )
    clip = config["clip_grad_norm"]
    if isinstance(clip, dict) and (set(clip) - {"max_norm", "norm_type"} or "max_norm" not in clip):
        problems.append(f"clip_grad_norm: expected a number or {{max_norm: a, norm_type: p}}, got {clip}")
    mirror = config["mirror_gradient"]
    if mirror is not None and not _is_mirror_gradient(mirror):
        problems.append(
            "mirror_gradient: expected {alpha1: a, alpha2: b, beta: n} with a > b >= 0 and a whole n of at least 1, "
            f"got {mirror}"
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", config["device"]):
        problems.append(f"device: expected auto, cpu, cuda or cuda:N, got '{config['device']}'")
    return problems


def _is_mirror_gradient(values: Mapping[str, float]) -> bool:
    if set(values) != {"alpha1", "alpha2", "beta"}:
        return False
    return values["alpha1"] > values["alpha2"] >= 0 and values["beta"] >= 1 and values["beta"].is_integer()
