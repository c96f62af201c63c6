# ruff: noqa  (in the manner of files written for MMRec)
"""CONTENTGRAPH: item graphs out of both modalities, one kept beside the data; names that newer NumPy lacks."""

import os

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch_scatter import scatter_add

from common.abstract_recommender import GeneralRecommender
from common.loss import BPRLoss
from utils.utils import (
    build_knn_neighbourhood,
    build_knn_normalized_graph,
    build_sim,
    compute_normalized_laplacian,
)


class CONTENTGRAPH(GeneralRecommender):
    def __init__(self, config, dataset):
        super(CONTENTGRAPH, self).__init__(config, dataset)
        self.knn_k = config["knn_k"]
        self.cf_model = config["cf_model"]
        dim = config["feat_embed_dim"]
        folder = os.path.abspath(config["data_path"] + config["dataset"])
        kept = os.path.join(folder, "item_graph_{}.pt".format(self.knn_k))
        self.image_embedding = nn.Embedding.from_pretrained(self.v_feat, freeze=False)
        self.image_trs = nn.Linear(self.v_feat.shape[1], dim)
        self.user_embedding = nn.Embedding(self.n_users, dim)
        if os.path.exists(kept):
            self.image_adj = torch.load(kept)
        else:
            sim = build_sim(self.image_embedding.weight.detach())
            self.image_adj = build_knn_normalized_graph(sim, topk=self.knn_k, is_sparse=True, norm_type="sym")
            torch.save(self.image_adj, kept)
        if self.t_feat is not None:
            self.text_trs = nn.Linear(self.t_feat.shape[1], dim)
            near = build_knn_neighbourhood(build_sim(self.t_feat), self.knn_k)
            self.text_adj = compute_normalized_laplacian(near)
        rows = dataset.dataset.df[config["ITEM_ID_FIELD"]].tolist()
        counts = scatter_add(torch.ones(len(rows)), torch.LongTensor(rows), dim=0, dim_size=self.n_items)
        self.popularity = torch.FloatTensor(np.log1p(counts.numpy()).astype(np.float)).to(self.device)
        self.loss = BPRLoss()

    def forward(self):
        items = torch.sparse.mm(self.image_adj, self.image_trs(self.image_embedding.weight))
        if self.t_feat is not None:
            items = items + torch.mm(self.text_adj, self.text_trs(self.t_feat))
        return F.normalize(self.user_embedding.weight), items

    def calculate_loss(self, interaction):
        users, items = self.forward()
        user = users[interaction[0]]
        pos = (user * items[interaction[1]]).sum(dim=1) + self.popularity[interaction[1]]
        neg = (user * items[interaction[2]]).sum(dim=1) + self.popularity[interaction[2]]
        return self.loss(pos, neg)

    def full_sort_predict(self, interaction):
        users, items = self.forward()
        return users[interaction[0]] @ items.t() + self.popularity
