"""Every key of the harness itself: type, range, meaning. Values are in configs/overall.yaml and configs/dataset/."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.config.schema import setting

METRICS = ("recall", "ndcg", "map", "precision", "f1", "hit")
LEARNERS = ("adam", "adamw", "sgd", "adagrad", "rmsprop")
PROTOCOLS = ("mmrec", "strict")
GROUPINGS = ("user_activity", "item_popularity", "modalities", "cold_items", "signal")
MODALITY_INPUTS = ("real", "zero", "noise", "shuffle")
NAN_FEATURES = ("error", "missing")
ANALYSES = ("balance", "dot_products")
NEG_SAMPLINGS = ("uniform", "popularity")
TRACKERS = ("tensorboard", "wandb", "mlflow")
INITIALIZATIONS = ("xavier", "spectral")


@dataclass(frozen=True)
class RunSettings:
    """Where a run reads and writes, on which device, and its seed; see overall.yaml."""

    data_path: str | None = setting("folder that holds one folder per data set; null: $MMR_DATA_PATH, else data/")
    output_dir: str = setting("folder that run folders are made in", alias=("checkpoint_dir",))
    cache_dir: str | None = setting("folder of derived graphs and reduced features; null: .cache/ of the project")
    device: str = setting("auto (CUDA where there is one), cpu, cuda or cuda:N")
    threads: int | None = setting("CPU threads of PyTorch; null: as many as there are cores", low=1, high=1024)
    seed: int = setting("seed of every random stream of the run", low=0, high=2**32 - 1)
    deterministic: bool = setting("on CUDA, ask for deterministic kernels (a CPU run always is)")
    save_topk: bool = setting("write topk.tsv: the test users' best items", alias=("save_recommended_topk",))
    hyper_parameters: list[str] | None = setting("keys whose lists are a grid, expanded at once")
    save_per_item: bool = setting("write per_item.csv: recall and NDCG of each item at test", default=False)
    tracker: str | None = setting(
        "what the columns of history.csv are logged to as well; see docs/options.md", choices=TRACKERS, default=None
    )


@dataclass(frozen=True)
class DataSettings:
    """How a data set is laid out on disk; see dataset/*.yaml."""

    inter_file_name: str | None = setting("the interaction file; null: NAME.inter")
    field_separator: str = setting("what separates the columns of the interaction file")
    user_id_field: str = setting("column of user ids", alias=("USER_ID_FIELD",))
    item_id_field: str = setting("column of item ids", alias=("ITEM_ID_FIELD",))
    split_field: str = setting("column of the split: 0 train, 1 validation, 2 test", alias=("inter_splitting_label",))
    modalities: dict[str, str] | None = setting(
        "modality name to feature file (.npy, row = item id), of generated data to anything; null: every *_feat.npy of "
        "the folder, or all that is generated"
    )
    filter_out_cold_start_users: bool = setting(
        "leave out validation and test rows of users without a training row",
        alias=("filter_out_cod_start_users",),
    )
    data_checks: str = setting("what a doubtful data set does: a warning or an error", choices=("warn", "error"))
    source: str | None = setting("where the data set comes from, shown by --list")
    expected: dict[str, int] | None = setting("published counts, compared with what was read")
    synthetic: dict[str, Any] | None = setting("sizes and noise of a generated data set; see utils/data/synthetic.py")
    modality_input: dict[str, str] | None = setting(
        "modality name to what stands in for its features: real, zero, noise of their mean and deviation, shuffle of items",
        choices=MODALITY_INPUTS,
        default=None,
    )
    nan_features: str = setting(
        "what a feature row with NaN is: an error, or an item without that modality",
        choices=NAN_FEATURES,
        default="error",
    )
    missing_share: dict[str, float] | None = setting(
        "modality name to the share of items that lose it, drawn at random", low=0, high=0.999, default=None
    )


@dataclass(frozen=True)
class TrainSettings:
    """The training loop; see common/trainer.py."""

    epochs: int = setting("most epochs", low=1)
    stopping_step: int = setting("evaluations in a row without improvement that are let pass", low=0)
    eval_step: int = setting("epochs between two evaluations", low=1)
    train_batch_size: int = setting("rows per step: training interactions times negatives of each", low=1)
    training_neg_sample_num: int = setting("negatives per positive, of models that are trained on negatives", low=1)
    learner: str = setting("optimiser", choices=LEARNERS)
    learning_rate: float = setting("learning rate", above=0)
    learning_rate_scheduler: list[float] = setting("[g, s]: learning rate times g^(epoch/s)", above=0)
    weight_decay: float = setting("weight decay of the optimiser", low=0)
    clip_grad_norm: float | dict[str, float] | None = setting(
        "largest total norm of the gradient, or {max_norm: a, norm_type: p}; null: no clipping", above=0
    )
    weight_average: float = setting(
        "decay of a moving average of the weights, which is then evaluated and kept; 0: the weights themselves",
        low=0,
        high=0.99999,
    )
    valid_metric: str = setting(
        "metric of the validation split that picks epoch and grid point, as Recall@20 or '0.5*Recall@20 + 0.5*NDCG@20'"
    )
    valid_decimals: int | None = setting(
        "decimals kept when two validation scores are compared (MMRec: 4); null: all", low=1
    )
    amp: bool = setting(
        "train with dense products in bfloat16; weights, losses and evaluation stay float32", default=False
    )
    compile: bool = setting("compile a model's dense parts with torch.compile; evaluation goes without", default=False)
    mirror_gradient: dict[str, float] | None = setting(
        "{alpha1: a, alpha2: b, beta: n}: every n-th step descends by a, then climbs back by b; null: none does",
        default=None,
    )
    min_steps: int = setting("training steps before which no run is stopped early", low=0, default=0)
    initialization: str = setting(
        "of user and item tables: xavier, as the model draws them, or spectral, by the singular vectors of the interactions",
        choices=INITIALIZATIONS,
        default="xavier",
    )
    initialization_power: float = setting(
        "spectral: power of the singular values that weighs these vectors", low=0, default=1.0
    )
    neg_sampling: str = setting(
        "how negatives are drawn: uniform, or popularity, in proportion to an item's training interactions",
        choices=NEG_SAMPLINGS,
        default="uniform",
    )


@dataclass(frozen=True)
class EvalSettings:
    """Full-ranking evaluation; see utils/evaluation/topk_evaluator.py."""

    metrics: list[str] = setting("metrics to report", choices=METRICS)
    topk: list[int] = setting("cut-offs K", low=1)
    eval_batch_size: int = setting("users per evaluation batch", low=1)
    protocol: str = setting("mmrec: training items masked; strict: at test, validation items too", choices=PROTOCOLS)
    group_by: list[str] | None = setting("also report per group", choices=GROUPINGS)
    no_test: bool = setting("validation only: no test score is computed, printed or stored", default=False)
    refit: bool = setting(
        "test a model that is trained again on train and validation, for as many epochs as validation has picked",
        default=False,
    )
    beyond_accuracy: bool = setting(
        "also report coverage, novelty, Gini index and popularity of the test lists", default=False
    )
    analyses: list[str] | None = setting(
        "columns of history.csv, of models that tell their embeddings by modality", choices=ANALYSES, default=None
    )


@dataclass(frozen=True)
class ScorerSettings:
    """What is added to any model's scores at evaluation; see common/scorers.py."""

    popularity: float = setting(
        "weight of an item's log popularity in evaluation, in units of the spread of the user's scores; 0: off",
        low=0,
        default=0.0,
    )
    popularity_damping: float = setting(
        "power of a user's number of interactions that each of them is divided by in that popularity",
        low=0,
        default=0.0,
    )
    co_occurrence: float = setting(
        "weight of how often others took an item together with the user's items in evaluation, in the same units; 0: off",
        low=0,
        default=0.0,
    )
    co_occurrence_damping: float = setting(
        "power of an item's number of users that this co-occurrence is divided by", low=0, default=0.0
    )
    calibration: bool = setting(
        "after training, tune these weights and dampings on the validation split: of the scorers that are on, or of both",
        default=False,
    )


SETTINGS = (RunSettings, DataSettings, TrainSettings, EvalSettings, ScorerSettings)

# Settings that do not change what a run computes, and so are not part of its identity.
NOT_IDENTITY = {
    "data_path", "output_dir", "cache_dir", "device", "threads", "deterministic", "save_topk", "group_by", "source",
    "save_per_item", "expected", "hyper_parameters", "data_checks", "eval_batch_size", "plugin", "beyond_accuracy",
    "tracker", "analyses",
}  # fmt: skip

# Keys of earlier versions, and what says the same now; a file may still have them switched off.
REPLACED = {"tensorboard": "tracker: tensorboard"}

ANYTHING = type("Anything", (), {"__contains__": lambda self, value: True})()
_RAW = "of raw texts and images in a model, which is not offered: `prepare` encodes them beforehand"
_OTHER = "of some models of MMRec; this one has"

# Keys that MMRec knows and that have no counterpart here: what each is and what to do instead; and the values in a file
# that ask for what is done here anyway, or that MMRec passes over too. With another value, or on the command line, each is
# refused.
NOT_OFFERED: dict[str, tuple[str, Any]] = {
    "is_multimodal_model": ("whether features are read, which a model says itself; choose by --modalities", ANYTHING),
    "req_training": ("whether a model trains, which it says itself; leave it out", ANYTHING),
    "use_neg_sampling": ("whether batches hold negatives, which a model says itself; leave it out", ANYTHING),
    "use_full_sampling": ("batches of whole users, which a model asks for itself; leave it out", (False,)),
    "use_raw_features": (_RAW, (False,)),
    "end2end": (f"training {_RAW}", (False,)),
    "recommend_topk": ("a folder for recommendations; they are topk.tsv in the run folder, with --save_topk", ANYTHING),
    "NEG_PREFIX": ("a name for columns of negatives; batches have no column names, leave it out", ANYTHING),
    "TIME_FIELD": ("the column of timestamps, which no run reads; `prepare` splits by time", ANYTHING),
    "state": ("the level of logging, of which there is one; --quiet hides the bar", ANYTHING),
    "reproducibility": ("CPU runs always are; on CUDA --deterministic true", (True,)),
    "max_txt_len": (f"a length {_RAW}", ANYTHING),
    "max_img_size": (f"a size {_RAW}", ANYTHING),
    **dict.fromkeys(
        (
            "vocab_size", "type_vocab_size", "hidden_size", "pad_token_id", "max_position_embeddings", "layer_norm_eps",
            "hidden_dropout_prob",
        ),
        (f"a setting {_RAW}", ANYTHING),
    ),
    "user_graph_dict_file": ("a pickled user graph; models that use one compute it, or read --user_graph_file", ANYTHING),
    "item_graph_dict_file": ("a pickled item graph; item graphs are computed from the features", ANYTHING),
    "feat_embed_dim": (f"a width {_OTHER} none under that name: see its keys by -m MODEL --help", ANYTHING),
    "weight_size": (f"widths of layers {_OTHER} none under that name: see its keys by -m MODEL --help", ANYTHING),
    "lambda_coeff": (f"a weight {_OTHER} none under that name: see its keys by -m MODEL --help", ANYTHING),
    "cf_model": (f"an encoder {_OTHER} one only: leave it out", ANYTHING),
    "degree_ratio": ("read by some models of MMRec and used by none: leave it out", ANYTHING),
    "mg": ("the switch of mirror gradient: --mirror_gradient '{alpha1: a, alpha2: b, beta: n}'", (False,)),
    **dict.fromkeys(
        ("alpha1", "alpha2", "beta"), ("of mirror gradient: --mirror_gradient '{alpha1: a, alpha2: b, beta: n}'", ANYTHING)
    ),
    "n_layers": (f"a depth {_OTHER} none under that name: see its keys by -m MODEL --help", ANYTHING),
    "interModalDist": ("read by the released DGMRec and not used: leave it out", ANYTHING),
    "infer_adj_update": ("a switch for items of the test alone, which are not treated apart: leave it out", ANYTHING),
}  # fmt: skip


def not_offered(key: str) -> str:
    """The line that refuses a key of MMRec."""
    return f"{key} is a key of MMRec that is not offered here ({NOT_OFFERED[key][0]})"
