# ruff: noqa  (in the manner of files written for MMRec)
import os

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from common.abstract_recommender import GeneralRecommender


class DAMRS(GeneralRecommender):
    def __init__(self, config, dataset):
        super(DAMRS, self).__init__(config, dataset)
        folder = os.path.abspath(os.path.join(config["data_path"], config["dataset"]))
        self.item_graph_dict = np.load(os.path.join(folder, "item_graph_dict_2.npy"), allow_pickle=True).item()
        _, self.session_adj = self.get_session_adj()
        self.user_embedding = nn.Embedding(self.n_users, config["embedding_size"])
        self.item_embedding = nn.Embedding(self.n_items, config["embedding_size"])
        self.trs = nn.Linear(self.t_feat.shape[1], config["embedding_size"])

    def get_session_adj(self):
        index_x, index_y, values = [], [], []
        for i in range(self.n_items):
            index_x.append(i)
            index_y.append(i)
            values.append(1)
            if i in self.item_graph_dict.keys():
                item_graph_sample = self.item_graph_dict[i][0]
                for j in range(min(2, len(item_graph_sample))):
                    index_x.append(i)
                    index_y.append(item_graph_sample[j])
                    values.append(1)
        index = torch.LongTensor([index_x, index_y])
        adj = torch.sparse.FloatTensor(index, torch.FloatTensor(values), torch.Size((self.n_items, self.n_items)))
        return index, adj.to(self.device)

    def forward(self):
        items = torch.sparse.mm(self.session_adj, self.item_embedding.weight) + self.trs(self.t_feat)
        return self.user_embedding.weight, items

    def calculate_loss(self, interaction):
        u_g, i_g = self.forward()
        u = u_g[interaction[0]]
        x = (u * i_g[interaction[1]]).sum(1) - (u * i_g[interaction[2]]).sum(1)
        return -F.logsigmoid(x).mean()

    def full_sort_predict(self, interaction):
        u_g, i_g = self.forward()
        return torch.matmul(u_g[interaction[0]], i_g.transpose(0, 1))
