# ruff: noqa  (in the manner of files written for MMRec)
import torch
import torch.nn as nn

from common.abstract_recommender import GeneralRecommender
from common.loss import BPRLoss


class SOUND(GeneralRecommender):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.user_embedding = nn.Embedding(self.n_users, config.get("embedding_size", 16))
        self.feats = {}
        for name in ("visual", "textual", "audio"):
            if hasattr(self, f"{name}_feat") and getattr(self, f"{name}_feat") is not None:
                self.feats[name] = getattr(self, f"{name}_feat")
        assert "audio" in self.feats and self.a_feat is not None and self.audio_feat.shape == self.a_feat.shape
        self.proj = nn.ModuleDict({k: nn.Linear(f.shape[1], config["embedding_size"]) for k, f in self.feats.items()})
        self.loss, self.scale = BPRLoss(), config.get("scale", 1.0) if "scale" in config else 0.5

    def forward(self):
        return self.user_embedding.weight, sum(self.proj[k](f) for k, f in self.feats.items()) * self.scale

    def calculate_loss(self, interaction):
        users, items = self.forward()
        u = users[interaction[0]]
        return self.loss((u * items[interaction[1]]).sum(1), (u * items[interaction[2]]).sum(1))

    def full_sort_predict(self, interaction):
        users, items = self.forward()
        return users[interaction[0]] @ items.T
