# ruff: noqa  (in the manner of files written for MMRec)
import torch.nn as nn

from ...common.init import xavier_normal_initialization


class CrossModal(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, out), nn.Tanh())
        self.apply(xavier_normal_initialization)

    def forward(self, x):
        return self.net(x)
