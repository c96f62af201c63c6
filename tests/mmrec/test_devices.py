"""`.cuda()` and the like in foreign files: the run's device, whatever it is."""

from __future__ import annotations

import os

import pytest
import torch
from plugin_tools import begun, built, write_plugin

from mmrec import running
from mmrec.libraries import proxy

META = torch.device("meta")  # a device that is neither the CPU nor CUDA


@pytest.fixture
def on_meta(tmp_path):
    run = begun(write_plugin(tmp_path))
    run.device = META
    yield run
    running.end(run.folder, os.getpid())


@pytest.mark.parametrize(
    "call",
    [
        "torch.zeros(2).cuda()",
        "torch.zeros(2).cuda(0)",
        "torch.zeros(2).cuda(non_blocking=True)",
        "torch.zeros(2).to('cuda')",
        "torch.zeros(2).to('cuda:1')",
        "torch.zeros(2).to(device='cuda')",
        "torch.zeros(2).to(torch.device('cuda'))",
        "torch.zeros(2).to(0)",
        "torch.zeros(2).to('cuda', torch.float64)",
        "torch.zeros(2, device='cuda')",
        "torch.zeros(2, device=torch.device('cuda:0'))",
        "torch.zeros(2).type(torch.cuda.FloatTensor)",
        "torch.zeros(2).type('torch.cuda.DoubleTensor')",
        "torch.nn.Linear(2, 2).cuda().weight",
        "torch.nn.Linear(2, 2).to(device='cuda').weight",
        "torch.nn.Linear(2, 2, device='cuda').weight",
        "torch.cuda.FloatTensor([1.0])",
        "torch.cuda.LongTensor(3)",
        "torch.cuda.FloatTensor(2, 3).fill_(1.0)",
    ],
)
def test_cuda_means_the_run_s_device(call, on_meta, tmp_path):
    from mmrec.plugin import load_class, read_model_file

    path = write_plugin(tmp_path, "MADE", tail=f"\ndef made():\n    return {call}\n")
    module = __import__("sys").modules[load_class(read_model_file(path)).__module__]
    assert module.made().device == META
    assert not hasattr(torch.Tensor.cuda, "__wrapped__")


@pytest.mark.parametrize("call", ["torch.zeros(2)", "torch.zeros(2).to('cpu')", "torch.zeros(2).to(torch.float64)"])
def test_what_is_not_meant_for_cuda_stays(call, on_meta, tmp_path):
    from mmrec.plugin import load_class, read_model_file

    path = write_plugin(tmp_path, "MADE", tail=f"\ndef made():\n    return {call}\n")
    module = __import__("sys").modules[load_class(read_model_file(path)).__module__]
    assert module.made().device.type == "cpu"


def test_a_whole_file_that_only_knows_cuda(tmp_path):
    init = """self.w = torch.nn.Linear(3, 3).cuda()
        self.device2 = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.cuda.set_device(0)
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
        torch.set_default_tensor_type(torch.cuda.FloatTensor)
        self.kept = torch.cuda.sparse.FloatTensor(torch.cuda.LongTensor([[0, 1], [1, 0]]), torch.ones(2).cuda(), (2, 2))
        assert isinstance(torch.zeros(2).cuda(), torch.cuda.FloatTensor)
        assert not isinstance(torch.zeros(2).long().cuda(), torch.cuda.FloatTensor)
        self.pinned = torch.zeros(2).pin_memory()
        with torch.cuda.device(0):
            self.made = torch.cuda.ByteTensor([1])"""
    model = built(write_plugin(tmp_path, init=init))
    assert model.kept.to_dense().tolist() == [[0, 1], [1, 0]]
    assert model.made.dtype == torch.uint8
    assert torch.zeros(1).dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32


def test_methods_of_other_things_are_called_as_they_are(tmp_path):
    tail = """
class Thing:
    A = "letter"

    def to(self, where, how=None):
        return where, how

    def type(self):
        return "kind"

    def cuda(self, n=1):
        return n

class Child(Thing):
    def to(self, where):
        return super().to(where, "child")

found = (Thing().to("x", how=2), Thing().type(), Thing().cuda(3), Child().to(1), Thing().A)
"""
    from mmrec.plugin import load_class, read_model_file

    module = __import__("sys").modules[load_class(read_model_file(write_plugin(tmp_path, tail=tail))).__module__]
    running._runs.clear()
    assert module.found[0] == ("x", 2)
    assert module.found[1:] == ("kind", 3, (1, "child"), "letter")


def test_lines_keep_their_numbers(tmp_path):
    from cli_tools import run_here

    path = write_plugin(tmp_path, init="x = torch.zeros(2).cuda().to('cuda'); raise KeyError('here')")
    line = (
        path.read_text().splitlines().index("        x = torch.zeros(2).cuda().to('cuda'); raise KeyError('here')") + 1
    )
    assert f"{path}, line {line}: KeyError: 'here'" in run_here("--plugin", path, "-d", "demo").err


def test_pytorch_stays_as_it_is():
    theirs = proxy(torch)
    assert theirs is not torch
    assert theirs.nn is torch.nn
    assert theirs.Tensor is torch.Tensor
    assert torch.load is not theirs.load
