"""Model files from elsewhere: reading and loading them, and their keys. The way in to this folder.

A *foreign* file is one whose class declares no `settings` dataclass: it is written for MMRec. It is imported with builtins
of its own, whose `__import__` hands it MMRec's base class and stand-ins for what newer libraries removed; the libraries
themselves stay as they are, and nobody else sees the stand-ins.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from mmrec.mistakes import mistakes_of_plugins
from mmrec.model_file import ModelFile, base_names, class_in, read_model_file, stubs_in
from mmrec.tree import parse, parse_bytes
from utils.config.schema import Key, keys_of, setting
from utils.config.settings import SETTINGS
from utils.config.yaml_files import read_yaml
from utils.errors import UserError
from utils.paths import CONFIGS

__all__ = [
    "ModelFile", "class_in", "load_class", "mistakes_of_plugins", "own_keys", "parse", "plugin_keys", "read_model_file",
]  # fmt: skip

EPOCH_HOOKS = ("pre_epoch_processing", "post_epoch_processing")  # one further argument is the number of the epoch
CALLED = {"calculate_loss": 1, "full_sort_predict": 1, "pre_epoch_processing": 0, "post_epoch_processing": 0}


def own_keys(file: ModelFile, content: Mapping[str, Any], axes: Iterable[Any] = ()) -> dict[str, Key]:
    """The keys of a foreign model: those of its YAML file and those that its source reads; null where not set.

    A key that it reads and its tree's configs/overall.yaml sets has that value, unless another file sets it.

    A key is of any type; one whose value is a list, and no grid, takes several words on the command line as one value.

    Args:
        file: the model file.
        content: of its YAML file.
        axes: the value of `hyper_parameters` in other files, each a list, a word or None.
    """
    ours = {name for settings in SETTINGS for key in keys_of(settings).values() for name in _names_of(key)}
    ours |= {"model", "dataset", "grid", "vision_feature_file", "text_feature_file", *plugin_keys()}
    named: list[Any] = []
    for entry in (content.get("hyper_parameters"), *axes):
        named += entry if isinstance(entry, list) else [entry] if entry else []
    everywhere = _overall(file)
    values = {**{key: everywhere.get(key) for key in file.reads}, **{str(name): None for name in named}, **content}
    keys = {}
    for name, value in values.items():
        kind: Any = list[Any] | None if isinstance(value, list) and name not in named else Any
        if name not in ours:
            keys[name] = Key(name, kind, setting(f"read by {file.path.name}", default=everywhere.get(name)))
    return keys


def _overall(file: ModelFile) -> dict[str, Any]:
    """What configs/overall.yaml of the tree that a file lies in sets: its repository's values for all models."""
    path = file.tree.root / "configs" / "overall.yaml"
    return read_yaml(path, str(path)) if path.is_file() and path.parent != CONFIGS else {}


def _names_of(key: Key) -> tuple[str, ...]:
    return key.name, *key.field.metadata["alias"]


def plugin_keys() -> dict[str, Key]:
    """The keys of a run whose model was given by --plugin."""
    return {
        "plugin": Key("plugin", str, setting("the model file")),
        "plugin_sha256": Key("plugin_sha256", str, setting("SHA-256 of the model file")),
        "plugin_modules": Key(
            "plugin_modules",
            dict[str, str] | None,
            setting("SHA-256 of each module that it takes from its own tree", default=None),
        ),
    }


def load_class(file: ModelFile) -> Any:
    """Imports a model file under a name of its own and returns its class.

    Raises:
        UserError: if it is no model that can be trained here, and why; whatever the file raises, it raises.
    """
    if file.foreign:
        _check_source(file)

    # Here, since they load PyTorch, which a list of models or a help text can do without.
    from common.abstract_recommender import GeneralRecommender
    from mmrec.foreign import ForeignRecommender
    from mmrec.importing import load

    cls = vars(load(file)).get(file.name)
    base = ForeignRecommender if file.foreign else GeneralRecommender
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise UserError(
            f"{file.path}: {file.name} is no model: expected a class derived from "
            "common.abstract_recommender.GeneralRecommender"
        )
    if file.foreign:
        assert issubclass(cls, ForeignRecommender)
        _check_interface(file, cls)
        cls.file = file
        cls.needs_features = file.needs_features
    return cls


def _check_source(file: ModelFile) -> None:
    """Refuses what no plugin can be, before anything of it runs."""
    tree = parse_bytes(file.source, str(file.path))
    node = class_in(file.path, tree, file.name)
    assert node is not None
    if any("Sequential" in name for name in base_names(node)) or file.mentions(r"\bself\.(ITEM_SEQ|ITEM_SEQ_LEN)\b"):
        raise UserError(
            f"{file.path}: {file.name} is a sequential model: batches with histories are not offered, only users and items"
        )
    settings = read_yaml(file.settings_file, str(file.settings_file)) if file.settings_file else {}
    needless = ["calculate_loss"] if settings.get("req_training") is False else []
    if stubs := [name for name in stubs_in(node) if name not in needless]:
        raise UserError(f"{file.path}: {file.name} was published with stubs: {', '.join(stubs)} without code")


def _check_interface(file: ModelFile, cls: type) -> None:
    """Refuses a class that the training loop here cannot call, naming what it lacks or asks for."""
    from mmrec.foreign import ForeignRecommender

    def further(name: str, given: int) -> list[str]:
        parameters = list(inspect.signature(vars(cls).get(name, getattr(cls, name))).parameters.values())[1 + given :]
        return [
            each.name
            for each in parameters
            if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ]

    if asked := further("__init__", 2):
        raise UserError(
            f"{file.path}: {file.name}.__init__ needs further arguments ({', '.join(asked)}) than config and dataset: "
            "its own program makes them, which a plugin does not come with"
        )
    for name, given in CALLED.items():
        asked = further(name, given)
        epoch = name in EPOCH_HOOKS or (asked and "epoch" in asked[0].lower())
        if asked and not (epoch and len(asked) == 1):
            raise UserError(
                f"{file.path}: {file.name}.{name} needs further arguments ({', '.join(asked)}): it is called by a trainer "
                "of its own, which a plugin does not come with"
            )
        if asked:
            cls.epoch_in = (*cls.epoch_in, name)  # type: ignore[attr-defined]
    for name in ("calculate_loss", "full_sort_predict"):
        if getattr(cls, name) is getattr(ForeignRecommender, name):
            raise UserError(
                f"{file.path}: {file.name} has no {name}: its file is not complete, or its own trainer and evaluation call "
                "other methods, which a plugin does not come with"
            )
