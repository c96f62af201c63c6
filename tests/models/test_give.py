"""GIVE's loss and scores from their formulas, node by node, in float64."""

import naive
import numpy as np
import pytest
import torch
from naive import affine, dot, gate, plus, rows_of, times
from toys import BOTH, N_ITEMS, N_USERS, WIDTHS, all_scores, build, on_double, one_batch, total, toy_dataset, uneven

WEIGHTS = {"reg_weight": 0.3, "cl_weight": 0.7, "temperature": 0.25}
PARTS: dict[str, dict[str, float | bool]] = {
    "all": {},
    "no edge masking": {"edge_masking": False},
    "no gates": {"gates": False},
    "no item graph": {"knn_k": 0},
    "no own share": {"own_share": 0.0},
    "no preferences": {"preferences": False},
}


def standardized(data, modality):
    """Features at zero mean and unit mean square over the items that have them, zeros for the others."""
    present = data.present.get(modality, np.ones(N_ITEMS, dtype=bool))
    x = data.features[modality].astype(np.float64) * present[:, None]
    x[present] -= x[present].mean(axis=0)
    return x / np.sqrt(np.square(x[present]).mean())


def with_missing(data, seed=0):
    """The data where the items of the first user lack the first modality and others the second; their rows are junk."""
    random = np.random.default_rng(seed)
    of_first_user = data.train.items[data.train.users == 0]
    lacking = (of_first_user, [of_first_user[0], *range(3, N_ITEMS, 5)])
    data.present = {m: ~np.isin(np.arange(N_ITEMS), items) for m, items in zip(data.features, lacking, strict=False)}
    for m, present in data.present.items():
        data.features[m][~present] = 50 * random.standard_normal((int((~present).sum()), WIDTHS[m]))
    return data


def double_model(data, **options):
    """A model in float64 whose parameters are moved from their initial values, where some terms would vanish."""
    model = on_double(build("GIVE", data, **(WEIGHTS | options)))
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    return model


def views_by_formula(data, model, hidden=()):
    """h and the list of c_m of all nodes, users first, on the graph without the `hidden` pairs of user and item."""
    options = model.options
    edges = {*zip(data.train.users.tolist(), data.train.items.tolist(), strict=True)} - {*hidden}
    a = naive.dense_normalized(naive.dense_adjacency(*zip(*sorted(edges), strict=True), N_USERS, N_ITEMS))
    ids = rows_of(model.item_embedding)
    interaction = naive.mean_of_layers(a, rows_of(model.user_embedding) + ids, options.n_ui_layers)
    content = []
    for name in model.modalities:
        items = ids
        if options.gates:
            projected = [affine(row, model.projections[name]) for row in standardized(data, name).tolist()]
            items = [times(own, gate(row, model.gates[name])) for own, row in zip(ids, projected, strict=True)]
        if options.knn_k:
            present = data.present.get(name, np.ones(N_ITEMS, dtype=bool))
            raw = (data.features[name] * present[:, None]).tolist()
            smooth = naive.weighted_item_graph(raw, options.knn_k) @ np.array(items)
            items = ((1 - options.own_share) * smooth + options.own_share * np.array(items)).tolist()
        content.append((a[:N_USERS, N_USERS:] @ np.array(items)).tolist() + items)
    return interaction, content


def final_by_formula(model, interaction, content):
    """z of all nodes."""
    final = []
    for node, own in enumerate(interaction):
        sides = []
        for name, rows in zip(model.modalities, content, strict=True):
            weights = gate(own, model.preferences[name]) if model.options.preferences else [0.5] * len(own)
            sides.append([value / len(content) for value in times(weights, rows[node])])
        final.append(plus(own, *sides))
    return final


def loss_by_formula(data, model, batch):
    options = model.options
    of_users, of_pos, of_neg = batch.tolist()
    hidden = zip(of_users, of_pos, strict=True) if options.edge_masking else ()
    interaction, content = views_by_formula(data, model, hidden)
    final = final_by_formula(model, interaction, content)
    z_users, z_items = final[:N_USERS], final[N_USERS:]
    scores = [[dot(z_users[u], z_items[i]) for u, i in zip(of_users, of, strict=True)] for of in (of_pos, of_neg)]
    kinds = [sorted(set(of_users)), [N_USERS + i for i in sorted(set(of_pos))]]
    nodes = {*kinds[0], *(N_USERS + i for i in of_pos + of_neg)}
    length = sum(dot(interaction[n], interaction[n]) for n in nodes) / len(nodes)
    mean = [[sum(values) / len(content) for values in zip(*rows, strict=True)] for rows in zip(*content, strict=True)]
    contrasts = [
        naive.info_nce([interaction[n] for n in kind], [mean[n] for n in kind], 1 / options.temperature)
        for kind in kinds
    ]
    users, items = rows_of(model.user_embedding), rows_of(model.item_embedding)
    ego = [users[u] for u in of_users], [items[i] for i in of_pos], [items[j] for j in of_neg]
    return {
        "bpr": naive.bpr(*scores),
        "contrastive": options.cl_weight * length * sum(contrasts) / 2,
        "reg": options.reg_weight * naive.half_squared_l2_over_batch(*ego),
    }


def values(terms):
    return {name: term.item() for name, term in terms.items()}


@pytest.mark.parametrize("missing", [False, True], ids=["", "missing"])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("modalities", [BOTH, ("visual",), tuple(WIDTHS)], ids="+".join)
def test_loss_and_scores_are_those_of_the_formulas(modalities, part, missing):
    data = uneven(toy_dataset(modalities))
    data = with_missing(data) if missing else data
    model = double_model(data, **part)
    batch = one_batch(data, 12)
    assert len(batch[0].unique()) < 12, "some user is there twice, and is aligned once"
    # Graphs and features are float32 at heart.
    assert values(model.train().calculate_loss(batch)) == pytest.approx(loss_by_formula(data, model, batch), rel=1e-5)
    final = final_by_formula(model, *views_by_formula(data, model))
    users, items = final[:N_USERS], final[N_USERS:]
    scores = torch.tensor([[dot(u, i) for i in items] for u in users], dtype=torch.float64)
    torch.testing.assert_close(all_scores(model), scores, rtol=1e-5, atol=1e-5)


def test_rows_of_items_that_lack_a_modality_have_no_influence():
    found = []
    for junk, moved in ((0, False), (1, False), (0, True)):
        data = with_missing(toy_dataset(), junk)
        data.features["visual"][data.present["visual"].argmax()] += moved
        model = build("GIVE", data)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        torch.manual_seed(0)
        total(model.train().calculate_loss(one_batch(data, 60))).backward()
        optimizer.step()
        found.append(all_scores(model))
    assert torch.isfinite(found[0]).all()
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_an_item_that_lacks_a_modality_neither_gives_to_nor_takes_from_others_in_its_view():
    data = with_missing(toy_dataset())
    model = on_double(build("GIVE", data))
    lacking = int((~data.present["visual"]).argmax())
    before = model.item_view("visual").detach()
    with torch.no_grad():
        model.item_embedding[lacking] += 1
    changed = (model.item_view("visual").detach() != before).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [lacking]
    with torch.no_grad():
        model.item_embedding.add_(1)
        model.item_embedding[lacking] -= 2
    alone = model.item_embedding[lacking] * torch.sigmoid(model.gates["visual"](model.projections["visual"].bias))
    torch.testing.assert_close(model.item_view("visual")[lacking], alone)


def test_the_graph_of_a_step_lacks_the_batch_and_evaluation_has_it_again():
    data = toy_dataset()
    model = build("GIVE", data)
    before, graph = all_scores(model), model.graph.weights.clone()
    batch = one_batch(data, 10)
    seen = {}
    encode = model.encode
    model.encode = lambda used: seen.update(graph=used) or encode(used)
    model.train().calculate_loss(batch)
    weights = torch.eye(N_USERS + N_ITEMS)
    used = seen["graph"](weights)[:N_USERS, N_USERS:]
    train = {*zip(data.train.users.tolist(), data.train.items.tolist(), strict=True)}
    left = train - {*zip(*batch[:2].tolist(), strict=True)}
    assert {*map(tuple, used.nonzero().tolist())} == left
    assert torch.equal(model.graph.weights, graph)
    assert torch.equal(all_scores(model), before)


def test_many_nodes_are_aligned_by_a_draw_of_cl_batch_from_each_kind():
    data = toy_dataset()
    batch = one_batch(data, 40)
    model = double_model(data, cl_batch=4)
    torch.manual_seed(7)
    found = model.train().calculate_loss(batch)["contrastive"].item()
    torch.manual_seed(7)
    kinds = [side.unique() for side in batch[:2]]
    drawn = [kind[torch.randperm(len(kind))[:4]] for kind in kinds]
    assert all(len(kind) > 4 for kind in kinds)
    hidden = zip(*batch[:2].tolist(), strict=True)
    h, content = (np.array(x) for x in views_by_formula(data, model, hidden))
    mean = content.mean(axis=0)
    rows = [drawn[0].numpy(), N_USERS + drawn[1].numpy()]
    terms = [naive.info_nce(h[r].tolist(), mean[r].tolist(), 1 / 0.25) for r in rows]
    nodes = np.unique([*batch[0], *(N_USERS + batch[1]), *(N_USERS + batch[2])])
    assert found == pytest.approx(0.7 * np.square(h[nodes]).sum(axis=1).mean() * np.mean(terms), rel=1e-5)


def test_the_contrastive_loss_keeps_its_proportion_to_the_length_of_the_embeddings():
    data = toy_dataset()
    model = double_model(data, reg_weight=0.0, cl_weight=0.5)
    batch = one_batch(data, 20)
    first = model.train().calculate_loss(batch)["contrastive"].item()
    with torch.no_grad():  # views are linear in the id embeddings
        model.user_embedding.mul_(3)
        model.item_embedding.mul_(3)
    assert model.calculate_loss(batch)["contrastive"].item() == pytest.approx(9 * first)
    assert "contrastive" not in build("GIVE", data, cl_weight=0.0).calculate_loss(batch)


def test_modality_embeddings_are_the_views():
    data = toy_dataset()
    model = build("GIVE", data).eval()
    given = model.modality_embeddings()
    assert list(given) == ["id", "visual", "textual"]
    interaction, *content = (torch.cat(pair) for pair in given.values())
    users, items = model()
    torch.testing.assert_close(model.fuse(interaction, content), torch.cat([users, items]))


def test_without_content_views_it_is_lightgcn():
    data = toy_dataset()
    give, lightgcn = build("GIVE", data, n_ui_layers=2, knn_k=0, own_share=0.0), build("LightGCN", data, n_ui_layers=2)
    with torch.no_grad():
        for name in give.modalities:
            give.gates[name].weight.zero_()
            give.gates[name].bias.fill_(-1e4)  # closed
        lightgcn.user_embedding.copy_(give.user_embedding)
        lightgcn.item_embedding.copy_(give.item_embedding)
    torch.testing.assert_close(all_scores(give), all_scores(lightgcn))
