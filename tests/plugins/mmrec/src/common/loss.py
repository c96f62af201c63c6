# ruff: noqa  (in the manner of files written for MMRec)
import torch.nn as nn
import torch.nn.functional as F


class BPRLoss(nn.Module):
    def forward(self, *_):
        raise AssertionError("ours goes before")


class MarginLoss(nn.Module):
    def forward(self, pos, neg):
        return F.relu(1 - pos + neg).mean()
