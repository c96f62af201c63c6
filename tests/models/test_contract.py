"""What every registered model must do, whatever it is; a model that cannot is named here with the reason."""

import copy
import itertools
from functools import cache
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import (
    BOTH,
    CPU,
    N_ITEMS,
    N_USERS,
    WIDTHS,
    all_scores,
    build,
    checkerboard,
    make_config,
    on_double,
    one_batch,
    relabelled,
    total,
    toy_dataset,
    train_loader,
)

from common.abstract_recommender import GeneralRecommender
from common.precision import mixed_precision
from common.trainer import loss_terms, make_optimizer
from runner.registry import available_models, model_class
from utils.config.schema import keys_of

MODELS = list(available_models())
TRAINED = [name for name in MODELS if model_class(name).needs_training]
WITH_FEATURES = [name for name in MODELS if model_class(name).needs_features]
# These score by `full_sort_predict` alone, not by embeddings.
WITHOUT_EMBEDDINGS = {"EASE", "ItemKNN", "ItemKNNCBF"}
WITHOUT_TASTE = {"MostPop"}  # ranks alike for every user
# These know a planted pattern untrained, by graphs that carry ids or content to users: first they are taught the opposite.
KNOWS_UNTRAINED = {"DAMRS", "DGMRec", "DiffMM", "GIVE", "GRCN", "GUME", "LGMRec", "MMSSL", "MSCA", "PGL"}
# These know it whatever the tables' sizes, since rows are brought to unit length: their users start turned around.
STARTS_TURNED = {"DRAGON": "modality_weights", "MENTOR": "modality_weights", "DualGNN": "fusion_weights"}
# Scores of these are read from id embeddings, which content shapes in training alone.
CONTENT_IN_TRAINING_ONLY = {"BM3"}

# What draws per node cannot draw the same for a node of another id; these settings draw nothing. Where equal numbers
# of common users are cut, the smaller id decides: these settings cut none.
RELABELLED_WITH = {
    "COHESION": {"user_graph_padding": "none"},
    "DRAGON": {"user_graph_padding": "none"},
    "DualGNN": {"user_graph_padding": "none"},
    "LGMRec": {"evaluation_noise": "none"},
    "DiffMM": {"keep_rate": 1.0},
    "DAMRS": {"behaviour_knn_k": N_ITEMS},
    "MSCA": {"knn_k": N_ITEMS},
}

# (model, settings) to the parameters that get no gradient there, and why.
WITHOUT_GRADIENT: dict[tuple[str, str], dict[str, str]] = {
    ("FREEDOM", "as published"): {
        "projections.visual.bias": "it cancels in every difference of scores",
        "projections.textual.bias": "it cancels in every difference of scores",
    },
    ("FREEDOM", "reg_weight 0"): dict.fromkeys(
        [
            *("features_visual", "projections.visual.weight", "projections.visual.bias"),
            *("features_textual", "projections.textual.weight", "projections.textual.bias"),
        ],
        "reg_weight weighs the losses on features and nothing else",
    ),
    ("MMGCF", "as published"): dict.fromkeys(
        ["projections.visual.bias", "projections.textual.bias"], "it cancels in every difference of scores"
    ),
    ("MMGCF", "reg_weight 0"): dict.fromkeys(
        ["projections.visual.bias", "projections.textual.bias"], "it cancels in every difference of scores"
    ),
    ("SLMRec", "as published"): dict.fromkeys(
        ["heads.visual.bias", "heads.textual.bias"], "it adds the same to all logits of a row of the softmax"
    ),
    ("VBPR", "reg_weight 0"): {"projection.bias": "it cancels in every difference of scores"},
}
SETTINGS = {"as published": {}, "reg_weight 0": {"reg_weight": 0.0}}

every_model = pytest.mark.parametrize("name", MODELS)
every_trained_model = pytest.mark.parametrize("name", TRAINED)


def loss_of(model, batch):
    return total(loss_terms(model.calculate_loss(batch)))


def train(model, dataset, epochs, learning_rate=0.01, batch_size=64, swapped=False):
    """A plain training loop with the project's own optimiser; `swapped` takes negatives for positives."""
    if not model.needs_training:
        return model
    optimizer = make_optimizer(make_config("BPR", learning_rate=learning_rate), model)
    loader = train_loader(dataset, batch_size, negatives=model.needs_negatives, by_user=model.batches_by_user)
    model.train()
    for _ in range(epochs):
        model.pre_epoch_processing()
        for batch in loader.epoch():
            rows = batch[[0, 2, 1]] if swapped else batch
            model.pre_step_processing(rows)
            loss = loss_of(model, rows)
            optimizer.zero_grad(set_to_none=not model.keeps_zero_gradients)
            loss.backward()
            optimizer.step()
        model.post_epoch_processing()
    return model


@cache
def trained(name):
    """The model after two epochs on the toy data, made once; nobody changes it."""
    data = toy_dataset()
    return train(build(name, data), data, epochs=2)


def test_there_are_models():
    assert {"BPR", "LightGCN", "VBPR", "GTC"} <= set(MODELS)
    assert {"VBPR", "GTC"} <= set(WITH_FEATURES)


def own_keys(name: str) -> set[str]:
    return set(keys_of(model_class(name).settings))


# Parameters


@pytest.mark.parametrize(
    ("name", "setting"),
    [(name, setting) for name in TRAINED for setting in SETTINGS if set(SETTINGS[setting]) <= own_keys(name)],
)
def test_every_parameter_gets_a_gradient_and_moves_and_none_is_hidden(name, setting):
    data = toy_dataset()
    model = build(name, data, **SETTINGS[setting])
    assert hidden_from_parameters(model) == []
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    loss_of(model.train(), one_batch(data)).backward()
    excused = WITHOUT_GRADIENT.get((name, setting), {})
    assert set(excused) <= set(before)
    largest = max(parameter.grad.abs().max() for parameter in model.parameters() if parameter.grad is not None)
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{key} has no gradient"
        assert torch.isfinite(parameter.grad).all(), f"the gradient of {key} is not finite"
        strength = parameter.grad.abs().max() / largest
        if key in excused:
            assert strength < 1e-6, f"{key} has a gradient after all"
        else:
            assert strength > 1e-6, f"the gradient of {key} is zero"
    train(model, data, epochs=1)
    for key, parameter in model.named_parameters():
        if key not in excused:
            assert not torch.equal(parameter, before[key]), f"{key} does not move"
            assert torch.isfinite(parameter).all(), key
    assert hidden_from_parameters(model) == [], "left over from training"
    all_scores(model)
    assert hidden_from_parameters(model) == [], "left over from an evaluation"


def trainable_tensors(root: object) -> dict[int, str]:
    """Every float tensor that requires a gradient and can be reached from an object's attributes: id to path."""
    found: dict[int, str] = {}
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("model", root)]
    while waiting:
        path, thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType | str | bytes | int | float | np.ndarray):
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            if thing.requires_grad:
                found[id(thing)] = path
        elif isinstance(thing, dict):
            waiting += [(f"{path}[{key!r}]", value) for key, value in thing.items()]
        elif isinstance(thing, list | tuple | set | frozenset):
            waiting += [(f"{path}[{number}]", value) for number, value in enumerate(thing)]
        else:
            waiting += [(f"{path}.{key}", value) for key, value in getattr(thing, "__dict__", {}).items()]
            if closure := getattr(thing, "__closure__", None):
                waiting += [(f"{path} (closure)", cell.cell_contents) for cell in closure]
    return found


def hidden_from_parameters(model: nn.Module) -> list[str]:
    known = {id(parameter) for parameter in model.parameters()}
    return sorted(path for key, path in trainable_tensors(model).items() if key not in known)


def closing_over(thing):
    return lambda: thing


@pytest.mark.parametrize(
    "hide",
    [
        lambda layer: [layer],
        lambda layer: {"a": ({"b": layer},)},
        lambda layer: SimpleNamespace(inner=SimpleNamespace(net=layer)),
        lambda layer: layer.weight,
        lambda layer: layer.weight * 2,
        closing_over,
    ],
    ids=["list", "dict", "object", "view", "leftover", "closure"],
)
def test_the_search_for_hidden_parameters_finds_them(hide):
    model = nn.Module()
    model.known = nn.Linear(2, 2)
    object.__setattr__(model, "same", [model.known])
    assert hidden_from_parameters(model) == []
    object.__setattr__(model, "hidden", hide(nn.Linear(2, 2)))
    assert hidden_from_parameters(model)


@every_trained_model
def test_the_state_dict_is_the_whole_model(name):
    model, other = trained(name), build(name, toy_dataset(), seed=5)
    assert not torch.equal(all_scores(other), all_scores(model))
    other.load_state_dict({key: tensor.clone() for key, tensor in model.state_dict().items()})
    assert torch.equal(all_scores(other), all_scores(model))


# Losses


@every_trained_model
def test_a_batch_is_left_unchanged_may_be_short_a_view_and_without_negatives_that_nobody_needs(name):
    data = toy_dataset()
    model = build(name, data).train()
    whole = one_batch(data)
    before, one = whole.clone(), whole[:, 5:6]
    loss_of(model, whole).backward()
    assert torch.equal(whole, before)
    losses = []
    for batch in (one, one.clone(), *([] if model.needs_negatives else [one[:2]])):
        torch.manual_seed(0)
        losses.append(loss_of(model, batch))
    assert torch.isfinite(losses[0])
    assert all(torch.equal(loss, losses[0]) for loss in losses)


@every_trained_model
def test_mixed_precision_comes_near_and_all_that_lasts_is_single(name):
    data = toy_dataset()
    losses, gradients = [], []
    for amp in (False, True):
        model = build(name, data).train()
        model.pre_epoch_processing()
        torch.manual_seed(0)
        with mixed_precision(CPU, amp):
            terms = loss_terms(model.calculate_loss(one_batch(data)))
        assert all(term.dtype == torch.float32 for term in terms.values())
        optimizer = make_optimizer(make_config(name), model)
        total(terms).backward()
        optimizer.step()
        lasting = [*model.parameters(), *(tensor for state in optimizer.state.values() for tensor in state.values())]
        assert all(tensor.dtype == torch.float32 for tensor in lasting)
        losses.append({key: term.item() for key, term in terms.items()})
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02, abs=1e-6)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


# Scores


@every_model
def test_scores_are_finite_dot_products_even_for_users_and_items_without_interactions(name):
    model = trained(name).eval()
    scores = all_scores(model)
    assert scores.shape == (N_USERS, N_ITEMS)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    if name in WITHOUT_EMBEDDINGS:
        return
    with torch.no_grad():
        single, double = model(), on_double(model)()
    torch.testing.assert_close(scores, single[0] @ single[1].T)
    for one, other in zip(single, double, strict=True):  # single precision is precise enough
        assert other.dtype == torch.float64
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4 * other.std().item())


@every_model
def test_evaluation_is_deterministic_leaves_nothing_behind_and_scores_each_user_alone(name):
    model = copy.deepcopy(trained(name))
    before, state = all_scores(model), torch.get_rng_state()
    torch.rand(10)
    np.random.rand(3)  # noqa: NPY002 (the stream that a model could draw from)
    assert torch.equal(all_scores(model), before), "scores depend on the random stream"
    torch.set_rng_state(state)
    all_scores(model)
    assert torch.equal(torch.get_rng_state(), state), "an evaluation draws from the stream that training uses"
    if model.needs_training:
        model.train()
        loss_of(model, one_batch(toy_dataset(), seed=1))
        assert torch.equal(all_scores(model), before), "scores depend on the last training batch"
    order = torch.randperm(N_USERS, generator=torch.Generator().manual_seed(0))
    for size in (1, 7):
        with model.scoring():
            for users in order.split(size):
                assert torch.equal(model.full_sort_predict((users,)), before[users]), size
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.full_sort_predict((order[:3],)), before[order[:3]]), "outside an evaluation"


def copy_relabelled(source: nn.Module, target: nn.Module, orders: dict[int, Tensor]) -> None:
    """Copies the state; along a dimension of as many entries as there are users or items, to their new places.

    State called `user_ids` or `item_ids` holds ids, -1 for none, and these are called by their new names.
    """
    state = source.state_dict()
    for key, value in state.items():
        for word, size in (("user_ids", N_USERS), ("item_ids", N_ITEMS)):
            if key.endswith(word) and value.dtype == torch.int64:
                state[key] = torch.where(value < 0, value, orders[size][value])
        for dim, size in enumerate(value.shape):
            if size in orders:
                state[key] = state[key].index_select(dim, orders[size].argsort())
    target.load_state_dict(state)


@every_model
def test_relabelling_users_and_items_relabels_scores(name):
    data = toy_dataset()
    random = np.random.default_rng(3)
    users, items = random.permutation(N_USERS), random.permutation(N_ITEMS)
    settings = RELABELLED_WITH.get(name, {})
    model = train(build(name, data, **settings), data, epochs=2) if settings else trained(name)
    other = build(name, relabelled(data, users, items), seed=5, **settings)
    new_users, new_items = torch.from_numpy(users), torch.from_numpy(items)
    everything = torch.cat([new_users, new_items + N_USERS])
    copy_relabelled(model, other, {N_USERS: new_users, N_ITEMS: new_items, N_USERS + N_ITEMS: everything})
    scores = all_scores(model)
    assert scores.std() > 1e-3, "there is something to compare"
    found = all_scores(other)[new_users][:, new_items]
    torch.testing.assert_close(found, scores, rtol=1e-3, atol=1e-4 * scores.std().item())


# Modalities


@pytest.mark.parametrize("modalities", [["visual"], ["textual"], ["acoustic"], list(WIDTHS)], ids="+".join)
@pytest.mark.parametrize("name", WITH_FEATURES)
def test_any_modalities_work(name, modalities):
    data = toy_dataset(modalities)
    model = train(build(name, data), data, epochs=1)
    assert torch.isfinite(all_scores(model)).all()
    for parameter in model.parameters():
        assert torch.isfinite(parameter).all()
    check_modality_embeddings(model)


def check_modality_embeddings(model: GeneralRecommender) -> None:
    model.eval()
    state = torch.get_rng_state()
    with torch.no_grad():
        given = model.modality_embeddings()
        again = model.modality_embeddings()
    assert torch.equal(torch.get_rng_state(), state), "analyses of a run would change it"
    assert set(given) <= {"id", *model.modalities}
    for name, pair in given.items():
        users, items = pair
        assert users.shape == (N_USERS, users.shape[1]), name
        assert items.shape == (N_ITEMS, users.shape[1]), name
        for one, other in zip(pair, again[name], strict=True):
            assert torch.isfinite(one).all(), name
            assert torch.equal(one, other), f"{name} is not deterministic"
    for first, second in itertools.combinations(given, 2):
        assert not torch.equal(given[first][1], given[second][1]), f"{first} and {second} are the same"


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WITH_FEATURES])
def test_a_model_without_features_needs_none(name):
    without, given = (all_scores(build(name, data)) for data in (toy_dataset([]), toy_dataset(BOTH)))
    assert torch.equal(without, given)


@pytest.mark.parametrize("modality", BOTH)
@pytest.mark.parametrize("name", WITH_FEATURES)
def test_every_modality_has_a_say(name, modality):
    model, changed = trained(name), toy_dataset()
    features = changed.features[modality]
    changed.features[modality] = features[np.random.default_rng(0).permutation(len(features))]
    other = build(name, changed)
    if name in CONTENT_IN_TRAINING_ONLY:
        train(other, changed, epochs=2)
    else:
        other.load_state_dict(model.state_dict())
    difference = (all_scores(other) - all_scores(model)).abs().max()
    assert difference > 1e-3 * all_scores(model).std()


# Learning


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WITHOUT_TASTE])
def test_a_planted_checkerboard_is_recovered(name):
    data = checkerboard()
    held_out = np.zeros((data.n_users, data.n_items), dtype=bool)
    held_out[data.splits["test"].users, data.splits["test"].items] = True
    own = (np.arange(data.n_users)[:, None] // 10) == (np.arange(data.n_items)[None] // 10)

    def share_in_order(model):
        """Share of (user, held-out item of the own block, item of another block) that are ranked as they should be."""
        scores = all_scores(model).numpy()
        return np.mean([
            (row[hidden][:, None] > row[~inside][None]).mean()
            for row, hidden, inside in zip(scores, held_out, own, strict=True)
        ])  # fmt: skip

    model = build(name, data)
    if name in KNOWS_UNTRAINED:
        train(model, data, epochs=10, learning_rate=0.02, batch_size=32, swapped=True)
    if name in STARTS_TURNED:
        with torch.no_grad():
            model.get_parameter(STARTS_TURNED[name]).neg_()
    if model.needs_training:
        assert share_in_order(model) < 0.8, "an untrained model does not know"
    assert share_in_order(train(model, data, epochs=24, learning_rate=0.03, batch_size=32)) > 0.97


# Keys


TRAINS_FEATURES = [name for name in TRAINED if "train_features" in own_keys(name)]


@pytest.mark.parametrize("name", TRAINS_FEATURES)
def test_raw_features_are_trained_only_where_asked_for_and_the_data_set_stays(name):
    data, untouched = toy_dataset(), toy_dataset()
    for asked in (False, True):
        model = build(name, data, train_features=asked).train()
        loss_of(model, one_batch(data)).backward()
        for modality in BOTH:
            assert isinstance(model.features(modality), nn.Parameter) == asked
            assert not asked or model.features(modality).grad.abs().max() > 0
            assert np.array_equal(data.features[modality], untouched.features[modality])


# What configurations published for MMRec, or by the authors, call our keys.
PUBLISHED = {
    "BM3": "n_layers=n_ui_layers dropout=embedding_dropout cl_loss=cl_weight",
    "COHESION": "num_layer=n_ui_layers user_graph_dict_file=user_graph_file dropout=edge_dropout",
    "DGMRec": (
        "interModal=inter_weight interModalTemp=inter_temperature intraModal=intra_weight "
        "intraModalTemp=intra_temperature alignBM=behaviour_weight alignBMTemp=behaviour_temperature "
        "sampler=club_weight recon=reconstruction_weight additive=generation_weight avg_lambda=graph_blend "
        "reg=content_reg_weight"
    ),
    "DiffMM": (
        "gnn_layer=n_ui_layers ris_adj_lambda=generated_weight ris_lambda=norm_weight keepRate=keep_rate "
        "ssl_reg=cl_weight temp=temperature reg=reg_weight e_loss=content_weight steps=noise_steps"
    ),
    "DRAGON": "user_graph_dict_file=user_graph_file",
    "DualGNN": "user_graph_dict_file=user_graph_file",
    "FREEDOM": "dropout=edge_dropout",
    "GRCN": "n_layers=n_routing_layers",
    "GTC": "n_layers=n_ui_layers",
    "GUME": (
        "n_layers=n_mm_layers bm_loss=behaviour_weight bm_temp=behaviour_temperature um_loss=user_weight "
        "um_temp=user_temperature vt_loss=moment_weight reg_weight_1=reg_weight "
        "reg_weight_2=extended_reg_weight"
    ),
    "LATTICE": "n_layers=n_mm_layers",
    "LayerGCN": "n_layers=n_ui_layers dropout=edge_dropout",
    "LGMRec": "cl_loss=cl_weight",
    "LightGCN": "n_layers=n_ui_layers",
    "MENTOR": "mask_weight_g=cl_weight temp=temperature mask_weight_f=masking_weight dropout=feature_dropout",
    "MGCN": "n_layers=n_mm_layers cl_loss=cl_weight",
    "MMGCF": "n_layers=n_ui_layers dropout=edge_dropout",
    "MMSSL": (
        "id_cat_rate=id_weight model_cat_rate=content_share feat_reg_decay=content_weight cl_rate=cl_weight "
        "tau=temperature G_rate=critic_weight D_lr=critic_learning_rate real_data_tau=noise_temperature "
        "T=graph_period m_topk_rate=graph_share"
    ),
    "MSCA": "n_layers=n_ui_layers fusion_coeff=fusion_weight cl_loss=cl_weight tau=temperature",
    "MVGAE": "n_layers=n_ui_layers beta=kl_weight",
    "PGL": "dropout=embedding_dropout",
    "SelfCF": "n_layers=n_ui_layers dropout=embedding_dropout",
    "SLMRec": (
        "recdim=embedding_size n_layers=n_ui_layers layer_num=n_ui_layers temp=temperature "
        "ssl_temp=cl_temperature cl_loss=cl_weight ssl_alpha=cl_weight"
    ),
    "SMORE": "n_layers=n_mm_layers dropout_rate=gate_dropout cl_loss=cl_weight",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_of_keys_are_understood(name):
    for pair in PUBLISHED[name].split():
        published, key = pair.split("=")
        value = {int: 2, float: 0.5}.get(type(make_config(name)[key]), "a.npz")
        assert make_config(name, **{published: value})[key] == value, published
