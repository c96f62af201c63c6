"""What a model file written for MMRec finds here: its base class, its settings and its training data.

`from common.abstract_recommender import GeneralRecommender` in such a file gives the class of this module; see
docs/plugins.md for what it may rely on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.abstract_recommender import Loss
from utils.config.configuration import Config
from utils.data.dataset import Dataset
from utils.errors import UserError
from utils.files import make_folder
from utils.paths import default_cache_path
from utils.runs.run_folder import identity

# Values that MMRec's own files give to keys that the harness here does not have.
MMREC_VALUES: dict[str, Any] = {
    "NEG_PREFIX": "neg_",
    "TIME_FIELD": "timestamp",
    "is_multimodal_model": True,
    "use_neg_sampling": True,
    "use_full_sampling": False,
    "use_raw_features": False,
    "end2end": False,
    "req_training": True,
    "user_graph_dict_file": "user_graph_dict.npy",
    "item_graph_dict_file": "item_graph_dict.npy",
}
# What newer libraries warn of in ways to build a graph that such files are full of.
OUTDATED = (r"torch\.sparse\.SparseTensor\(", "Sparse invariant checks", "The given NumPy array is not writable")
DERIVED_FILES = (".pt", ".pth")  # graphs that model files make and keep beside the data


class ForeignConfig(Mapping[str, Any]):
    """The settings of a run as MMRec gives them to a model: `config[key]` is None for a key that nobody sets.

    `device` is a torch.device; `data_path`, which such files join with the data set's name, ends with a slash and is a
    folder of links to the user's files, so that what a model writes there does not land among them.
    """

    def __init__(self, config: Config, dataset: Dataset, device: torch.device) -> None:
        self._config, self._dataset = config, dataset
        files = config["modalities"] or dataset.feature_files
        self._values: dict[str, Any] = {
            "device": device,
            "use_gpu": device.type == "cuda",
            "gpu_id": device.index or 0,
            "inter_file_name": config["inter_file_name"] or f"{config.dataset}.inter",
            "vision_feature_file": files.get("visual", "image_feat.npy"),
            "text_feature_file": files.get("textual", "text_feat.npy"),
        }

    def __getitem__(self, key: str) -> Any:
        if key == "data_path" and key not in self._values:
            self._values[key] = f"{linked_data(self._config, self._dataset)}/"
        if key in self._values:
            return self._values[key]
        value = self._config[key]
        return MMREC_VALUES.get(key) if value is None else value

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value

    def __contains__(self, key: object) -> bool:
        return key in self._values or key in self._config or key in MMREC_VALUES

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._config, *self._values, *MMREC_VALUES]))

    def __len__(self) -> int:
        return len(list(iter(self)))


def linked_data(config: Config, dataset: Dataset) -> Path:
    """A folder DATASET/ of links to the user's files, within one for this model file, these settings and these data.

    Graphs that were derived by others (.pt) are not linked: nothing says what they were made from.
    """
    made_of = json.dumps([identity(config), config.model, dataset.fingerprint], sort_keys=True)
    cache = dataset.cache.folder if dataset.cache else default_cache_path()
    parent = cache / "plugins" / hashlib.sha256(made_of.encode()).hexdigest()[:16]
    make_folder(parent / config.dataset)
    source = Path(config["data_path"]) / config.dataset
    for file in sorted(source.iterdir()) if source.is_dir() else ():
        link = parent / config.dataset / file.name
        if file.suffix in DERIVED_FILES or link.exists():
            continue
        link.unlink(missing_ok=True)  # a link to what has moved
        try:
            link.symlink_to(file.absolute())
        except FileExistsError:
            continue  # another process was here first
        except OSError:  # a file system without links
            if file.is_file():
                shutil.copyfile(file, link)
    return parent


class TrainingData:
    """The training split under the names of MMRec's training loader and, as `dataset`, of its data set."""

    def __init__(self, config: ForeignConfig, dataset: Dataset) -> None:
        self.config, self._dataset = config, dataset
        self.dataset_name = dataset.name
        self.uid_field, self.iid_field = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
        self.user_num, self.item_num = dataset.n_users, dataset.n_items
        self.batch_size = config["train_batch_size"]

    @property
    def dataset(self) -> TrainingData:
        """Itself."""
        return self

    @cached_property
    def df(self) -> pd.DataFrame:
        """The training interactions, a row each, with the columns of users and items."""
        train = self._dataset.train
        return pd.DataFrame({self.uid_field: train.users, self.iid_field: train.items})

    @cached_property
    def all_items(self) -> list[int]:
        """The items of the training split."""
        return np.unique(self._dataset.train.items).tolist()

    @cached_property
    def all_uids(self) -> NDArray[np.int64]:
        """The users of the training split."""
        return np.unique(self._dataset.train.users)

    @cached_property
    def history_items_per_u(self) -> dict[int, set[int]]:
        """User to the set of the user's training items."""
        history: dict[int, set[int]] = {}
        train = self._dataset.train
        for user, item in zip(train.users.tolist(), train.items.tolist(), strict=True):
            history.setdefault(user, set()).add(item)
        return history

    def get_user_num(self) -> int:
        """Number of users U."""
        return self.user_num

    def get_item_num(self) -> int:
        """Number of items I."""
        return self.item_num

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """The 0/1 training matrix [U, I], float32, as a scipy matrix in `form` coo or csr."""
        return self._dataset.inter_matrix(form, value_field)

    def __len__(self) -> int:
        return len(self._dataset.train)


class ForeignRecommender(nn.Module):
    """MMRec's base class: sizes, `v_feat` [I, F] and `t_feat` [I, F] (or None), `device` and `batch_size` as attributes.

    A class derived from it implements `__init__`, `calculate_loss` and `full_sort_predict`. Attributes that are plain
    tensors, numbers or lists of these and change after the model is built are part of its state dict: such files score
    from what they kept at the last batch, which belongs to a checkpoint as much as the weights.

    It offers the harness what `common.abstract_recommender.GeneralRecommender` does, but is not derived from it: any name
    more than those of MMRec might be one that a file gives to something else.
    """

    needs_features: ClassVar[bool] = False  # set for each file as it is loaded
    keeps_zero_gradients: ClassVar[bool] = False
    whole_batches: ClassVar[bool] = True

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
        self.v_feat: Any = None
        self.t_feat: Any = None
        if self.needs_features and config["is_multimodal_model"]:
            self.v_feat = self._features(dataset, "visual")
            self.t_feat = self._features(dataset, "textual")

    def _features(self, dataset: TrainingData, modality: str) -> Tensor | None:
        matrix = dataset._dataset.features.get(modality)
        # A copy: files make parameters of it, and runs share the data set.
        return None if matrix is None else torch.tensor(matrix, device=self.device)

    @classmethod
    def build(cls, config: Config, dataset: Dataset, device: torch.device) -> ForeignRecommender:
        """The model on its device, from what MMRec would give it."""
        given = ForeignConfig(config, dataset, device)
        with warnings.catch_warnings():
            for message in OUTDATED:
                warnings.filterwarnings("ignore", message=message, category=UserWarning)
            model = cls(given, TrainingData(given, dataset)).to(device)
        object.__setattr__(model, "_built_with", {place: _parts(value) for place, value in model._attributes()})
        return model

    @classmethod
    def memory_needed(cls, config: Mapping[str, Any], dataset: Dataset) -> dict[str, int]:
        """Nothing is known of it."""
        return {}

    @classmethod
    def notes_on(cls, config: Mapping[str, Any], dataset: Dataset) -> list[str]:
        """Which features of the data set such a file does not see."""
        left_out = [name for name in dataset.features if name not in ("visual", "textual")]
        absent = [name for name in ("visual", "textual") if name not in dataset.features]
        if not cls.needs_features or not (left_out or absent):
            return []
        attributes = {"visual": "v_feat", "textual": "t_feat"}
        said = [f"{attributes[name]} is None" for name in absent] + [f"{name} is left out" for name in left_out]
        return [
            f"{cls.__name__} on {dataset.name}: files written for MMRec know visual (v_feat) and textual (t_feat) features: "
            f"{', '.join(said)}; --modalities '{{visual: A.npy, textual: B.npy}}' says otherwise"
        ]

    def pre_epoch_processing(self) -> Any:
        """Called before each epoch."""

    def post_epoch_processing(self) -> Any:
        """Called after each epoch."""

    def calculate_loss(self, interaction: Tensor) -> Loss:
        """The loss of a batch int64 [3, B] of users, positives, negatives; [2, B] if `use_neg_sampling` is false."""
        raise UserError(f"{type(self).__name__} has no calculate_loss")

    def full_sort_predict(self, interaction: Sequence[Tensor]) -> Tensor:
        """Scores of all items [B, I] for the users interaction[0] [B]."""
        raise UserError(f"{type(self).__name__} has no full_sort_predict")

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
        return {
            place: _detached(value)
            for place, value in self._attributes()
            if (place not in before or not _same(before[place], _parts(value))) and _is_plain(value)
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Puts back what `get_extra_state` gave; what was as built then becomes so again."""
        before = self.__dict__.get("_built_with", {})
        for place, value in list(self._attributes()):
            if place in before and place not in state and _is_plain(value) and not _same(before[place], _parts(value)):
                self._put(place, before[place][0])
        now = dict(self._attributes())
        for place, value in state.items():
            self._put(place, _on_device(value, getattr(now.get(place), "device", self.device)))

    def _put(self, place: str, value: Any) -> None:
        module, _, name = place.rpartition(".")
        setattr(self.get_submodule(module), name, value)

    def load_state_dict(self, state_dict: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
        for place in state_dict.get("_extra_state", {}):  # a result in a parameter's place
            if place in self._parameters:
                del self._parameters[place]
        return super().load_state_dict(state_dict, *arguments, **options)


GeneralRecommender = AbstractRecommender = ForeignRecommender  # the names that files import

_OF_MODULES = {*vars(nn.Module()), "_built_with"}


def _parts(value: Any) -> tuple[Any, ...]:
    """The value, then what tells whether it is still the same: a tensor's version, the entries of a list or dict."""
    if isinstance(value, Tensor):
        return value, value._version
    if isinstance(value, list | tuple):
        return value, *value
    if isinstance(value, dict):
        return value, *value, *value.values()
    return (value,)


def _same(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    return len(before) == len(now) and all(
        a is b or (type(a) is type(b) and isinstance(a, int | float | str) and a == b)
        for a, b in zip(before, now, strict=True)
    )


def _is_plain(value: Any) -> bool:
    """Whether it is made of nothing but tensors and what a checkpoint can hold without running code."""
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(_is_plain, value))
    if isinstance(value, dict):
        return type(value) is dict and all(_is_plain(entry) for pair in value.items() for entry in pair)
    return value is None or type(value) in (Tensor, bool, int, float, str)


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        # A copy, or a slice would be written with all that it is a slice of.
        return value.detach().clone()
    if isinstance(value, list | tuple):
        return type(value)(map(_detached, value))
    return {key: _detached(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def _on_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)(_on_device(entry, device) for entry in value)
    return {key: _on_device(entry, device) for key, entry in value.items()} if isinstance(value, dict) else value
