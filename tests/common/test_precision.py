"""What stays in single precision where autocast is on, and that nothing changes where it is off."""

import pytest
import scipy.sparse as sp
import torch
from torch import nn
from toys import CPU, toy_dataset

from common.graph import normalized_interaction_graph
from common.losses import bpr_loss, info_nce, total_correlation
from common.neighbours import nearest_neighbours
from common.precision import mixed_precision, single_precision
from common.sparse import EdgePattern, SparseMatrix
from mmrec.stand_ins.encoders import LightGCN_Encoder
from utils.errors import UserError

WIDTH = 8


@pytest.mark.parametrize("enabled", [False, True])
def test_dense_products_are_in_bfloat16_where_it_is_enabled_and_only_there(enabled):
    layer, x = nn.Linear(4, 3), torch.randn(5, 4)
    with mixed_precision(CPU, enabled):
        inside = layer(x)
    assert inside.dtype == (torch.bfloat16 if enabled else torch.float32)
    assert layer(x).dtype == torch.float32
    inside.sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_a_gpu_without_bfloat16_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    with pytest.raises(UserError, match="amp: Old GPU has no bfloat16; use --amp false"):
        mixed_precision(torch.device("cuda:0"), True)


def test_half_precision_arguments_are_widened_under_autocast_wherever_they_stand():
    half, single = torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.float64)

    @single_precision
    def seen(x, views, named):
        return x.dtype, [view.dtype for view in views], named.dtype, torch.is_autocast_enabled("cpu")

    assert seen(half, [half, single], named=half) == (half.dtype, [half.dtype, single.dtype], half.dtype, False)
    with mixed_precision(CPU, True):
        assert seen(half, [half, single], named=half) == (
            torch.float32,
            [torch.float32, single.dtype],
            torch.float32,
            False,
        )
        assert torch.is_autocast_enabled("cpu"), "it is on again afterwards"


# Each takes x [N, D] of all nodes, or of one kind of them.
GRAPH = normalized_interaction_graph(toy_dataset())
N = len(GRAPH.offsets) - 1
RING = EdgePattern(torch.arange(N), torch.arange(N).roll(1), (N, N))
SINGLE = {
    "product": GRAPH,
    "to_first": lambda x: GRAPH.to_first(x[GRAPH.split :]),
    "to_second": lambda x: GRAPH.to_second(x[: GRAPH.split]),
    "propagate_mean": lambda x: GRAPH.propagate_mean(x, 2),
    "propagate_mean_from": lambda x: GRAPH.propagate_mean_from(x[: GRAPH.split], 2, True)[1],
    "matrix": SparseMatrix(sp.eye(N, k=1)),
    "pattern": lambda x: RING(torch.linspace(0, 1, N), x),
    "dots": lambda x: RING.dots(x, x.flip(0)),
    "neighbours": lambda x: nearest_neighbours(x.detach(), 3)[0] * x.float().sum(),
    "bpr_loss": lambda x: bpr_loss(x[:, 0], x[:, 1]),
    "info_nce": lambda x: info_nce(x, x.flip(0), torch.tensor(5.0)),
    "total_correlation": lambda x: total_correlation(
        [x, x.flip(0), x.flip(1)], torch.tensor(5.0), torch.Generator().manual_seed(0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_sparse_products_and_losses_are_those_of_single_precision(name):
    values = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = []
    for enabled in (False, True):
        x = (values if enabled else values.float()).requires_grad_()
        with mixed_precision(CPU, enabled):
            y = SINGLE[name](x)
        y.square().sum().backward()
        found.append((y, x.grad))
        x.grad = None
    (plain, gradient), (mixed, mixed_gradient) = found
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)
    torch.testing.assert_close(mixed_gradient.float(), gradient, rtol=2**-7, atol=2**-7 * gradient.abs().max().item())


def test_the_encoder_for_mmrec_s_files_propagates_in_single_precision():
    encoder = LightGCN_Encoder({"embedding_size": WIDTH, "n_layers": 2}, toy_dataset())
    with mixed_precision(CPU, True):
        found = encoder.get_embedding()
    for mixed, plain in zip(found, encoder.get_embedding(), strict=True):
        assert torch.equal(mixed, plain)
