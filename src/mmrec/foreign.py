"""The base class that a model file written for MMRec finds here.

`from common.abstract_recommender import GeneralRecommender` in such a file gives the class of this module; see
docs/plugins.md for what it may rely on.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from common.abstract_recommender import Loss
from mmrec import running, state
from mmrec.config import ForeignConfig, is_set
from mmrec.loader import TrainingData
from mmrec.model_file import ModelFile
from mmrec.tree import Tree
from utils.config.configuration import Config
from utils.data.dataset import Dataset
from utils.errors import UserError

# Names of feature matrices by family: MMRec's, its offspring's with sound, and MRLib's.
ALWAYS = {"v_feat": "visual", "t_feat": "textual"}
IF_MENTIONED = {"a_feat": "acoustic", "visual_feat": "visual", "textual_feat": "textual", "audio_feat": "acoustic"}
NONE_IF_ABSENT = ("v_feat", "t_feat", "a_feat")
ALL_TOGETHER = "item_feat"
STREAM = "batches of its own loader"  # in the extra state; no attribute has such a name


def _in_run(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A method that the training loop calls, in the working folder of the run, with the epoch's number if it wants it."""

    @functools.wraps(method)
    def called(self: ForeignRecommender, *arguments: Any, **options: Any) -> Any:
        if name in self.epoch_in and len(arguments) == (0 if name.endswith("processing") else 1) and not options:
            arguments = (*arguments, max(self.epochs_begun - (name != "pre_epoch_processing"), 0))
        if name == "pre_epoch_processing" and self.epoch_in and not running.is_inside():
            self.epochs_begun += 1
        with running.inside():
            result = method(self, *arguments, **options)
        return _loss(result, self.device) if name == "calculate_loss" else result

    return called


def _loss(result: Any, device: torch.device) -> Any:
    """A tuple of terms whose plain numbers, as 0.0 for a term that is off, are tensors too."""
    if type(result) is not tuple:
        return result
    return tuple(torch.tensor(float(t), device=device) if isinstance(t, int | float) else t for t in result)


class ForeignRecommender(nn.Module):
    """MMRec's base class: sizes, features [I, F] by the names that the file uses, `device` and `batch_size` as attributes.

    A class derived from it implements `__init__`, `calculate_loss` and `full_sort_predict`. Attributes that are plain
    tensors, numbers or lists of these and change after the model is built are part of its state dict: such files score
    from what they kept at the last batch, which belongs to a checkpoint as much as the weights.

    It offers the harness what `common.abstract_recommender.GeneralRecommender` does, but is not derived from it: any name
    more than those of MMRec might be one that a file gives to something else.
    """

    needs_features: ClassVar[bool] = False  # set for each file as it is loaded
    file: ClassVar[ModelFile | None] = None  # likewise
    epoch_in: ClassVar[tuple[str, ...]] = ()  # methods that want the number of the epoch
    keeps_zero_gradients: ClassVar[bool] = False
    batches_by_user: ClassVar[bool] = False
    whole_batches: ClassVar[bool] = True
    epochs_begun: int = 0
    _training_data: TrainingData

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("calculate_loss", "full_sort_predict", "pre_epoch_processing", "post_epoch_processing"):
            if callable(method := vars(cls).get(name)):
                setattr(cls, name, _in_run(method, name))

    def __init__(self, config: Mapping[str, Any], dataset: Any) -> None:
        super().__init__()
        for key in ("use_full_sampling", "use_neighborhood_loss"):
            if config[key]:
                raise UserError(f"{key}: batches of that kind are not offered; the model cannot be trained here")
        self.USER_ID, self.ITEM_ID = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
        self.NEG_ITEM_ID = config["NEG_PREFIX"] + self.ITEM_ID
        self.n_users, self.n_items = dataset.dataset.get_user_num(), dataset.dataset.get_item_num()
        self.batch_size = config["train_batch_size"]
        self.device = config["device"]
        self.needs_negatives, self.needs_training = bool(config["use_neg_sampling"]), bool(config["req_training"])
        object.__setattr__(self, "_training_data", dataset)
        read = self.needs_features and config["is_multimodal_model"]
        for name, matrix in feature_attributes(type(self).file, dataset._dataset, bool(read)).items():
            if not hasattr(type(self), name):
                # A copy: files make parameters of it, and runs share the data set.
                setattr(self, name, None if matrix is None else torch.tensor(matrix, device=self.device))

    @classmethod
    def build(cls, config: Config, dataset: Dataset, device: torch.device) -> ForeignRecommender:
        """The model on its device, from what MMRec would give it."""
        run = running.begin(config, dataset, device, cls.needs_features)
        given = ForeignConfig(run)
        try:
            with running.inside():
                model = cls(given, TrainingData(given, dataset)).to(device)
        except BaseException as error:
            running.end(run.folder, os.getpid())
            if isinstance(error, Exception) and (unset := unset_keys(config, cls.file)):
                error.unset_keys = unset  # type: ignore[attr-defined]
            raise
        object.__setattr__(model, "_unset_keys", unset_keys(config, cls.file))
        object.__setattr__(model, "_built_with", {p: state.fingerprint(v) for p, v in model._attributes()})
        weakref.finalize(model, running.end, run.folder, os.getpid())
        return model

    @classmethod
    def memory_needed(cls, config: Mapping[str, Any], dataset: Dataset) -> dict[str, int]:
        """Nothing is known of it."""
        return {}

    @classmethod
    def notes_on(cls, config: Config, dataset: Dataset) -> list[str]:
        """What the file asks for and does not get, a line each."""
        notes = []
        if unset := unset_keys(config, cls.file):
            notes.append(
                f"{cls.__name__} reads {', '.join(unset)}, which no file sets, and gets None: "
                f"set them with {' '.join(f'--{key} VALUE' for key in unset)} or in {cls.__name__}.yaml"
            )
        if calls := trainer_calls(cls):
            notes.append(
                f"{cls.__name__}: the trainer of its own tree also uses {', '.join(calls)}; the one here does not"
            )
        return notes + _feature_notes(cls, dataset)

    def set_elsewhere(self, name: str) -> str:
        """A remark on an attribute that the model lacks, if it is its tree's trainer that would set it."""
        where = _in_trainer(type(self), rf"\bmodel\.{name}\s*=[^=]")
        if where:
            return (
                f" (its own trainer, {where}, sets it: the model needs that trainer, which a plugin does not come with)"
            )
        family = {"audio_feat": "acoustic", "visual_feat": "visual", "textual_feat": "textual"}
        if name in family or name.endswith("_feat"):
            return f" (the data set has no {family.get(name, name.removesuffix('_feat'))} features; see --modalities)"
        return ""

    @property
    def unset_keys(self) -> tuple[str, ...]:
        """Keys that the file reads and nobody sets."""
        return self.__dict__.get("_unset_keys", ())

    def pre_epoch_processing(self) -> Any:
        """Called before each epoch."""
        if self.epoch_in and not running.is_inside():
            self.epochs_begun += 1

    def post_epoch_processing(self) -> Any:
        """Called after each epoch."""

    def calculate_loss(self, interaction: Tensor) -> Loss:
        """The loss of a batch int64 [3, B] of users, positives, negatives; [2, B] if `use_neg_sampling` is false."""
        raise UserError(f"{type(self).__name__} has no calculate_loss")

    def full_sort_predict(self, interaction: Sequence[Tensor]) -> Tensor:
        """Scores of all items [B, I] for the users interaction[0] [B]."""
        raise UserError(f"{type(self).__name__} has no full_sort_predict")

    def pre_step_processing(self, batch: Tensor) -> None:
        """Nothing: MMRec has no such hook."""

    def modality_embeddings(self) -> dict[str, tuple[Tensor, Tensor]]:
        """None are known."""
        return {}

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Within it the model is in eval mode, without gradients."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    def __setattr__(self, name: str, value: Any) -> None:
        # Files make a parameter in __init__, on a GPU a plain tensor by `.to(device)`, and put a result in its place.
        if (
            isinstance(value, Tensor)
            and not isinstance(value, nn.Parameter)
            and name in self.__dict__.get("_parameters", ())
        ):
            del self._parameters[name]
        super().__setattr__(name, value)

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        """Everything that its modules hold besides parameters, buffers and modules: place as "module.name", value."""
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if name not in _OF_MODULES:
                    yield f"{prefix}.{name}" if prefix else name, value

    def get_extra_state(self) -> dict[str, Any]:
        """What has changed since the model was built, by place; goes into the state dict."""
        before = self.__dict__.get("_built_with")
        if before is None:  # part of another model
            return {}
        kept = {
            place: state.packed(value)
            for place, value in self._attributes()
            if (place not in before or not state.same(before[place], state.fingerprint(value)))
            and state.can_keep(value)
        }
        stream = self._training_data.stream
        return kept if stream is None else {**kept, STREAM: stream}

    def set_extra_state(self, saved: dict[str, Any]) -> None:
        """Puts back what `get_extra_state` gave; what was as built then becomes so again."""
        saved = dict(saved)
        if (stream := saved.pop(STREAM, None)) is not None:
            self._training_data.stream = stream
        before = self.__dict__.get("_built_with", {})
        for place, value in list(self._attributes()):
            changed = place in before and not state.same(before[place], state.fingerprint(value))
            if changed and place not in saved and state.can_keep(value):
                self._put(place, before[place][0])
        now = dict(self._attributes())
        for place, value in saved.items():
            device = getattr(now.get(place), "device", self.device)
            self._put(place, state.unpacked(value, device, now.get(place)))

    def _put(self, place: str, value: Any) -> None:
        module, _, name = place.rpartition(".")
        setattr(self.get_submodule(module), name, value)

    def load_state_dict(self, state_dict: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
        for place in state_dict.get("_extra_state", {}):  # a result in a parameter's place
            if place in self._parameters:
                del self._parameters[place]
        there = self.state_dict()
        for place in [place for place in state_dict if place not in there]:  # a parameter under a second name
            module, _, name = place.rpartition(".")
            self.get_submodule(module).register_parameter(name, nn.Parameter(state_dict[place].to(self.device)))
        return super().load_state_dict(state_dict, *arguments, **options)


GeneralRecommender = AbstractRecommender = ForeignRecommender  # the names that files import

_OF_MODULES = {*vars(nn.Module()), "_built_with", "_training_data", "_unset_keys"}


def feature_attributes(file: ModelFile | None, dataset: Dataset, read: bool) -> dict[str, Any]:
    """The feature matrices by the attributes that a file uses; None for one that is absent, where its family has that."""
    wanted = dict(ALWAYS)
    mentioned = file.features if file else ()
    anything = file is not None and file.any_feature
    wanted |= {name: m for name, m in IF_MENTIONED.items() if anything or name in mentioned}
    others = {f"{m}_feat": m for m in dataset.features if m not in ("visual", "textual", "acoustic")}
    wanted |= {name: m for name, m in others.items() if anything or name in mentioned}
    features = dataset.features if read else {}
    found = {name: features.get(m) for name, m in wanted.items() if m in features or name in NONE_IF_ABSENT}
    if ALL_TOGETHER in mentioned and ALL_TOGETHER not in others:
        found[ALL_TOGETHER] = np.concatenate(list(features.values()), axis=1) if features else None
    return found


def _feature_notes(cls: type[ForeignRecommender], dataset: Dataset) -> list[str]:
    if not cls.needs_features:
        return []
    given = feature_attributes(cls.file, dataset, True)
    mentioned = cls.file.features if cls.file else ()
    names = {"v_feat": "visual", "t_feat": "textual", **IF_MENTIONED}
    shown = [name for name in names if name in mentioned and given.get(name) is None]
    used = {names.get(name, name.removesuffix("_feat")) for name in mentioned}
    every = cls.file is not None and (cls.file.any_feature or ALL_TOGETHER in mentioned)
    left_out = [] if every else [m for m in dataset.features if m not in ("visual", "textual") and m not in used]
    said = [f"{name} is None" for name in shown] + [f"{name} is left out" for name in left_out]
    notes = []
    if said:
        notes.append(
            f"{cls.__name__} on {dataset.name}: files written for MMRec know visual (v_feat) and textual (t_feat) "
            f"features, some acoustic ones (a_feat): {', '.join(said)}; "
            "--modalities '{visual: A.npy, textual: B.npy}' says otherwise"
        )
    if ALL_TOGETHER in mentioned and "item" not in dataset.features:
        notes.append(f"{cls.__name__}: item_feat is all modalities side by side, as there is no item_feat.npy")
    return notes


def unset_keys(config: Config, file: ModelFile | None) -> tuple[str, ...]:
    """Keys that a file needs and nobody sets."""
    return tuple(key for key in file.needs if not is_set(config, key)) if file else ()


# The trainer of a file's own tree


_EVERY_TRAINER = {
    "calculate_loss", "full_sort_predict", "pre_epoch_processing", "post_epoch_processing", "train", "eval", "parameters",
    "named_parameters", "state_dict", "load_state_dict", "to", "modules", "zero_grad", "device", "forward",
}  # fmt: skip


def _trainer(cls: type[ForeignRecommender]) -> tuple[str, str]:
    """The source of the trainer in the tree that a class comes from, and where it is; empty if there is none."""
    if cls.file is None:
        return "", ""
    tree = Tree.of(cls.file.path)
    path = tree.find("common.trainer")
    ours = Path(__file__).resolve().parent.parent
    if path is None or not path.is_file() or tree.root == ours:
        return "", ""
    return path.read_text(encoding="utf-8", errors="replace"), path.relative_to(tree.root).as_posix()


def trainer_calls(cls: type[ForeignRecommender]) -> list[str]:
    """Methods of the model's own that the trainer of its tree calls and the one here does not."""
    used = set(re.findall(r"\bmodel\.(\w+)\s*\(", _trainer(cls)[0]))
    own = {name for base in cls.__mro__ if "__plugin__" in _globals(base) for name in vars(base)}
    return sorted((used & own) - _EVERY_TRAINER)


def _globals(base: type) -> dict[str, Any]:
    return vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}


def _in_trainer(cls: type[ForeignRecommender], pattern: str) -> str:
    text, path = _trainer(cls)
    found = re.search(pattern, text)
    return f"{path}, line {text.count(chr(10), 0, found.start()) + 1}" if found else ""
