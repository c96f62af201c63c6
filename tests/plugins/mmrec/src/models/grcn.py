# ruff: noqa  (in the manner of files written for MMRec)
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.inits import uniform
from torch_geometric.utils import add_self_loops, dropout_adj, remove_self_loops, softmax

from common.abstract_recommender import GeneralRecommender


class SAGEConv(MessagePassing):
    def __init__(self, in_channels, out_channels, aggr="mean", **kwargs):
        super(SAGEConv, self).__init__(aggr=aggr, **kwargs)

    def forward(self, x, edge_index, weight_vector, size=None):
        self.weight_vector = weight_vector
        return self.propagate(edge_index, size=size, x=x)

    def message(self, x_j):
        return x_j * self.weight_vector

    def update(self, aggr_out):
        return aggr_out


class GATConv(MessagePassing):
    def __init__(self, in_channels, out_channels, self_loops=False):
        super(GATConv, self).__init__(aggr="add")
        self.self_loops = self_loops

    def forward(self, x, edge_index, size=None):
        edge_index, _ = remove_self_loops(edge_index)
        if self.self_loops:
            edge_index, _ = add_self_loops(edge_index, num_nodes=x.size(0))
        return self.propagate(edge_index, size=size, x=x)

    def message(self, x_i, x_j, size_i, edge_index_i):
        self.alpha = torch.mul(x_i, x_j).sum(dim=-1)
        self.alpha = softmax(self.alpha, edge_index_i, num_nodes=size_i)
        return x_j * self.alpha.view(-1, 1)

    def update(self, aggr_out):
        return aggr_out


class GRCN(GeneralRecommender):
    def __init__(self, config, dataset):
        super(GRCN, self).__init__(config, dataset)
        dim, dim_c, self.reg_weight = config["embedding_size"], config["latent_embedding"], config["reg_weight"]
        self.dropout = 0
        inter = dataset.inter_matrix(form="coo").astype(np.float32)
        edges = torch.tensor(np.column_stack((inter.row, inter.col + self.n_users)), dtype=torch.long)
        self.edge_index = edges.t().contiguous().to(self.device)
        self.id_embedding = nn.Parameter(torch.rand((self.n_users + self.n_items, dim)))
        uniform(dim, self.id_embedding)
        self.preference = nn.Parameter(nn.init.xavier_normal_(torch.rand((self.n_users, dim_c))))
        self.MLP = nn.Linear(self.v_feat.size(1), dim_c)
        self.conv_embed_1, self.gat = SAGEConv(dim_c, dim_c), GATConv(dim_c, dim_c)
        self.model_specific_conf = nn.Parameter(nn.init.xavier_normal_(torch.rand((self.n_users + self.n_items, 1))))
        self.result = nn.init.xavier_normal_(torch.rand((self.n_users + self.n_items, dim))).to(self.device)

    def forward(self):
        features = F.normalize(F.leaky_relu(self.MLP(self.v_feat)))
        preference = F.normalize(self.preference)
        n = self.n_users + self.n_items
        for _ in range(2):
            x = torch.cat((preference, features), dim=0)
            preference = F.normalize(preference + self.gat(x, self.edge_index.flip(0), size=(n, n))[: self.n_users])
        both = torch.cat((self.edge_index, self.edge_index[[1, 0]]), dim=1)
        edge_index, _ = dropout_adj(both, p=self.dropout)
        x = torch.cat((preference, features), dim=0)
        x_hat = x + self.gat(x, edge_index)
        weight = F.relu(self.gat.alpha).view(-1, 1) * self.model_specific_conf[edge_index[1]]
        id_rep = F.normalize(self.id_embedding)
        h = self.conv_embed_1(id_rep, edge_index, torch.sigmoid(weight))
        self.result = torch.cat((id_rep + h, x_hat), dim=1)
        return self.result

    def calculate_loss(self, interaction):
        out = self.forward()
        u, p, n = out[interaction[0]], out[interaction[1] + self.n_users], out[interaction[2] + self.n_users]
        loss = -torch.mean(torch.log(torch.sigmoid((u * p).sum(1) - (u * n).sum(1))))
        return loss + self.reg_weight * (self.preference**2).mean()

    def full_sort_predict(self, interaction):
        users, items = self.result[: self.n_users], self.result[self.n_users :]
        return torch.matmul(users[interaction[0]], items.t())
