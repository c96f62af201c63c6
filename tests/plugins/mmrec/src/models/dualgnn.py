# ruff: noqa  (in the manner of files written for MMRec)
import os

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch_geometric
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.utils import add_self_loops, degree, dropout_adj, remove_self_loops

from common.abstract_recommender import GeneralRecommender
from common.init import xavier_uniform_initialization
from common.loss import BPRLoss, EmbLoss


class DUALGNN(GeneralRecommender):
    def __init__(self, config, dataset):
        super(DUALGNN, self).__init__(config, dataset)
        dim, self.k = config["embedding_size"], 40
        self.aggr_mode, self.user_aggr_mode = config["aggr_mode"], config["user_aggr_mode"]
        self.reg_weight = config["reg_weight"]
        dataset_path = os.path.abspath(config["data_path"] + config["dataset"])
        self.user_graph_dict = np.load(
            os.path.join(dataset_path, config["user_graph_dict_file"]), allow_pickle=True
        ).item()
        inter = dataset.inter_matrix(form="coo").astype(np.float32)
        edges = np.column_stack((inter.row, inter.col + self.n_users))
        edge_index = torch.tensor(edges, dtype=torch.long).t().contiguous().to(self.device)
        self.edge_index = torch.cat((edge_index, edge_index[[1, 0]]), dim=1)
        weight = nn.Parameter(
            nn.init.xavier_normal_(torch.tensor(np.random.randn(self.n_users, 2, 1), dtype=torch.float32))
        )
        self.weight_u = weight
        self.weight_u.data = F.softmax(self.weight_u, dim=1)
        self.v_gcn = GCN(self.n_users, self.v_feat, dim, self.aggr_mode, self.device)
        self.t_gcn = GCN(self.n_users, self.t_feat, dim, self.aggr_mode, self.device)
        self.user_graph = User_Graph_sample(self.n_users, "add", dim)
        self.result_embed = nn.Parameter(
            nn.init.xavier_normal_(torch.tensor(np.random.randn(self.n_users + self.n_items, dim)))
        ).to(self.device)

    def pre_epoch_processing(self):
        self.epoch_user_graph, self.user_weight_matrix = self.topk_sample(self.k)
        self.user_weight_matrix = self.user_weight_matrix.to(self.device)

    def topk_sample(self, k):
        user_graph_index = []
        user_weight_matrix = torch.zeros(len(self.user_graph_dict), k)
        tasike = [0] * k
        for i in range(len(self.user_graph_dict)):
            if len(self.user_graph_dict[i][0]) == 0:
                user_graph_index.append(tasike)
                continue
            sample = self.user_graph_dict[i][0][:k]
            weight = self.user_graph_dict[i][1][:k]
            while len(sample) < k:
                j = np.random.randint(0, len(sample))
                sample.append(sample[j])
                weight.append(weight[j])
            user_graph_index.append(sample)
            user_weight_matrix[i] = F.softmax(torch.tensor(weight), dim=0)
        return user_graph_index, user_weight_matrix

    def forward(self, interaction):
        user, pos, neg = interaction[0], interaction[1] + self.n_users, interaction[2] + self.n_users
        v_rep, self.v_preference = self.v_gcn(self.edge_index)
        t_rep, self.t_preference = self.t_gcn(self.edge_index)
        representation = v_rep + t_rep
        stacked = torch.cat((v_rep[: self.n_users].unsqueeze(2), t_rep[: self.n_users].unsqueeze(2)), dim=2)
        user_rep = torch.matmul(stacked, self.weight_u).squeeze()
        h = self.user_graph(user_rep, self.epoch_user_graph, self.user_weight_matrix)
        self.result_embed = torch.cat((user_rep + h, representation[self.n_users :]), dim=0)
        u, p, n = self.result_embed[user], self.result_embed[pos], self.result_embed[neg]
        return torch.sum(u * p, dim=1), torch.sum(u * n, dim=1)

    def calculate_loss(self, interaction):
        pos_scores, neg_scores = self.forward(interaction)
        loss = -torch.mean(torch.log2(torch.sigmoid(pos_scores - neg_scores)))
        reg = (self.v_preference[interaction[0].to(self.device)] ** 2).mean()
        return loss + self.reg_weight * (reg + (self.weight_u**2).mean())

    def full_sort_predict(self, interaction):
        users, items = self.result_embed[: self.n_users], self.result_embed[self.n_users :]
        return torch.matmul(users[interaction[0], :], items.t())


class User_Graph_sample(torch.nn.Module):
    def __init__(self, num_user, aggr_mode, dim_latent):
        super(User_Graph_sample, self).__init__()

    def forward(self, features, user_graph, user_matrix):
        u_features = features[user_graph]
        return torch.matmul(user_matrix.unsqueeze(1), u_features).squeeze()


class GCN(torch.nn.Module):
    def __init__(self, num_user, features, dim, aggr_mode, device):
        super(GCN, self).__init__()
        self.features, self.device = features, device
        self.preference = nn.Parameter(
            nn.init.xavier_normal_(
                torch.tensor(np.random.randn(num_user, dim), dtype=torch.float32, requires_grad=True)
            )
        ).to(self.device)
        self.MLP, self.MLP_1 = nn.Linear(features.size(1), 4 * dim), nn.Linear(4 * dim, dim)
        self.conv = Base_gcn(dim, dim, aggr=aggr_mode)

    def forward(self, edge_index):
        temp = self.MLP_1(F.leaky_relu(self.MLP(self.features)))
        x = F.normalize(torch.cat((self.preference, temp), dim=0)).to(self.device)
        h = self.conv(x, edge_index)
        return x + h + self.conv(h, edge_index), self.preference


class Base_gcn(MessagePassing):
    def __init__(self, in_channels, out_channels, normalize=True, bias=True, aggr="add", **kwargs):
        super(Base_gcn, self).__init__(aggr=aggr, **kwargs)
        self.aggr, self.in_channels, self.out_channels = aggr, in_channels, out_channels

    def forward(self, x, edge_index, size=None):
        if size is None:
            edge_index, _ = remove_self_loops(edge_index)
        x = x.unsqueeze(-1) if x.dim() == 1 else x
        return self.propagate(edge_index, size=(x.size(0), x.size(0)), x=x)

    def message(self, x_j, edge_index, size):
        if self.aggr == "add":
            row, col = edge_index
            deg = degree(row, size[0], dtype=x_j.dtype)
            deg_inv_sqrt = deg.pow(-0.5)
            return (deg_inv_sqrt[row] * deg_inv_sqrt[col]).view(-1, 1) * x_j
        return x_j

    def update(self, aggr_out):
        return aggr_out

    def __repr__(self):
        return "{}({},{})".format(self.__class__.__name__, self.in_channels, self.out_channels)
