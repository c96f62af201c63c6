"""The settings of a run as MMRec gives them to a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmrec.running import Run, feature_file
from utils.config.configuration import Config

# Values that MMRec's own files give to keys that the harness here does not have.
MMREC_VALUES: dict[str, Any] = {
    "embedding_size": 64,
    "NEG_PREFIX": "neg_",
    "TIME_FIELD": "timestamp",
    "is_multimodal_model": True,
    "use_neg_sampling": True,
    "use_full_sampling": False,
    "use_neighborhood_loss": False,
    "use_raw_features": False,
    "end2end": False,
    "req_training": True,
    "recommend_topk": "recommend_topk/",
    "user_graph_dict_file": "user_graph_dict.npy",
    "item_graph_dict_file": "item_graph_dict.npy",
    "state": "INFO",
    "reproducibility": True,
    "max_txt_len": 32,
    "max_img_size": 256,
    "vocab_size": 30522,
    "type_vocab_size": 2,
    "hidden_size": 4,
    "pad_token_id": 0,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
}
# What the run knows, under MMRec's names.
FEATURE_KEYS = {"vision_feature_file": "visual", "text_feature_file": "textual", "audio_feature_file": "acoustic"}
OF_THE_RUN = ("device", "use_gpu", "gpu_id", "inter_file_name", "data_path", *FEATURE_KEYS)


def is_set(config: Config, key: str) -> bool:
    """Whether some file or the command line sets a key, or MMRec has a value for it; null sets nothing."""
    return key in (*MMREC_VALUES, *OF_THE_RUN, "model", "dataset") or config[key] is not None


class ForeignConfig(Mapping[str, Any]):
    """`config[key]` is None for a key that nobody sets, `config.get(key, default)` its default, `key in config` False.

    `device` is a torch.device; `data_path`, which such files join with the data set's name, ends with a slash and is a
    folder of links to the user's files, so that what a model writes there does not land among them.
    """

    def __init__(self, run: Run) -> None:
        self._config = config = run.config
        files = config["modalities"] or run.dataset.feature_files
        self._values: dict[str, Any] = {
            "device": run.device,
            "use_gpu": run.device.type == "cuda",
            "gpu_id": run.device.index or 0,
            "inter_file_name": config["inter_file_name"] or f"{config.dataset}.inter",
            "data_path": f"{run.data}/",
        }
        self._values |= {key: files.get(name) or feature_file(name) for key, name in FEATURE_KEYS.items()}

    def __getitem__(self, key: str) -> Any:
        if key in self._values:
            return self._values[key]
        value = self._config[key]
        return MMREC_VALUES.get(key) if value is None else value

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value

    def __contains__(self, key: object) -> bool:
        return key in self._values or is_set(self._config, str(key))

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or `default` where nobody sets it."""
        return self[key] if key in self else default  # noqa: SIM401 (this is what it would call)

    def __iter__(self) -> Iterator[str]:
        names = dict.fromkeys(["model", "dataset", *self._config, *self._values, *MMREC_VALUES])
        return (name for name in names if name in self)

    def __len__(self) -> int:
        return len(list(iter(self)))

    @property
    def final_config_dict(self) -> dict[str, Any]:
        """All keys that are set."""
        return {key: self[key] for key in self}
