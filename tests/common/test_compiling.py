"""Dense methods compiled in training: the same numbers, one graph for all sizes, evaluation as it was."""

import functools

import pytest
import torch
from cli_tools import run_here
from toys import CPU, all_scores, build, one_batch, total, toy_dataset

from common.compiling import compile_dense_methods

pytestmark = pytest.mark.filterwarnings("ignore")  # of PyTorch's own making

CASES = {
    "default": ("GTC", {}),
    "denoised items": ("GTC", {"denoising": "items"}),
    "DRAGON": ("DRAGON", {}),
}


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that torch.compile captures; they run as they are, since not every machine has a compiler."""
    captured = []

    def keep(graph, inputs):
        captured.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=keep, fullgraph=True))
    yield captured
    torch._dynamo.reset()


def loss_and_gradients(model, batch):
    torch.manual_seed(0)
    model.train()
    model.pre_epoch_processing()
    loss = total(model.calculate_loss(batch))
    model.zero_grad()
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


@pytest.mark.parametrize("case", CASES)
def test_compiled_training_computes_the_same_with_one_graph_for_all_sizes(case, graphs):
    name, settings = CASES[case]
    data = toy_dataset()
    plain, compiled = build(name, data, **settings), build(name, data, **settings)
    compile_dense_methods(compiled, CPU)
    assert len(graphs) == 1, "the trial of the compiler"
    counts = set()
    for size in (64, 50, 33):
        batch = one_batch(data, size)
        for one, other in zip(loss_and_gradients(plain, batch), loss_and_gradients(compiled, batch), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        counts.add(len(graphs))
    assert len(counts) == 1
    assert min(counts) > 1, "something is compiled"
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(all_scores(compiled), all_scores(plain))
    assert counts == {len(graphs)}, "an evaluation goes without"


def test_a_run_is_compiled_where_the_key_says_so(graphs, tmp_path):
    words = ("-m", "GTC", "-d", "demo", "--epochs", "1", "--output_dir", tmp_path, "--quiet", "--device", "cpu")
    for value, expected in (("false", 0), ("true", 3)):
        assert run_here(*words, "--compile", value).code == 0
        assert len(graphs) == expected


def test_a_model_without_dense_parts_says_so(tmp_path):
    outcome = run_here("-m", "LightGCN", "-d", "demo", "--compile", "true", "--output_dir", tmp_path, "--quiet")
    assert outcome.code == 2
    assert "compile: LightGCN has no dense part to compile; use --compile false" in outcome.err


def test_what_torch_compile_lacks_is_said_in_one_line(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("Compiler: c++ is not found.\nA long story")

    monkeypatch.setattr(torch, "compile", fails)
    outcome = run_here("-m", "GTC", "-d", "demo", "--compile", "true", "--output_dir", tmp_path, "--quiet")
    assert outcome.code == 2
    assert "compile: torch.compile does not work here (Compiler: c++ is not found.); it needs a C++" in outcome.err
    assert "A long story" not in outcome.err
