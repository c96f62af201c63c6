# ruff: noqa  (in the manner of files written for MMRec)
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.utils import add_self_loops, degree, remove_self_loops

from common.abstract_recommender import GeneralRecommender


class MMGCN(GeneralRecommender):
    def __init__(self, config, dataset):
        super(MMGCN, self).__init__(config, dataset)
        self.num_user, self.num_item = self.n_users, self.n_items
        dim_x = config["embedding_size"]
        self.aggr_mode, self.concate, self.reg_weight = "mean", "False", config["reg_weight"]
        train = dataset.inter_matrix(form="coo").astype(np.float32)
        edge_index = torch.tensor(np.column_stack((train.row, train.col + self.n_users)), dtype=torch.long)
        self.edge_index = edge_index.t().contiguous().cuda()
        self.edge_index = torch.cat((self.edge_index, self.edge_index[[1, 0]]), dim=1)
        self.num_modal = 0
        if self.v_feat is not None:
            self.v_gcn = GCN(self.edge_index, self.num_user, self.v_feat.size(1), dim_x, device=self.device)
            self.num_modal += 1
        if self.t_feat is not None:
            self.t_gcn = GCN(self.edge_index, self.num_user, self.t_feat.size(1), dim_x, device=self.device)
            self.num_modal += 1
        n = self.num_user + self.num_item
        self.id_embedding = nn.init.xavier_normal_(torch.rand((n, dim_x), requires_grad=True)).cuda()
        self.result = nn.init.xavier_normal_(torch.rand((n, dim_x))).cuda()

    def forward(self):
        representation = None
        if self.v_feat is not None:
            representation = self.v_gcn(self.v_feat, self.id_embedding)
        if self.t_feat is not None:
            t = self.t_gcn(self.t_feat, self.id_embedding)
            representation = t if representation is None else representation + t
        representation /= self.num_modal
        self.result = representation
        return representation

    def calculate_loss(self, interaction):
        pos_items, neg_items = interaction[1] + self.n_users, interaction[2] + self.n_users
        user_tensor = interaction[0].repeat_interleave(2)
        item_tensor = torch.stack((pos_items, neg_items)).t().contiguous().view(-1)
        out = self.forward()
        score = torch.sum(out[user_tensor] * out[item_tensor], dim=1).view(-1, 2)
        weight = torch.tensor([[1.0], [-1.0]]).cuda()
        loss = -torch.mean(torch.log(torch.sigmoid(torch.matmul(score, weight))))
        reg = (self.id_embedding[user_tensor] ** 2 + self.id_embedding[item_tensor] ** 2).mean()
        return loss + self.reg_weight * reg

    def full_sort_predict(self, interaction):
        user_tensor, item_tensor = self.result[: self.n_users], self.result[self.n_users :]
        return torch.matmul(user_tensor[interaction[0], :], item_tensor.t())


class GCN(torch.nn.Module):
    def __init__(self, edge_index, num_user, dim_feat, dim_id, device=None):
        super(GCN, self).__init__()
        self.edge_index, self.device = edge_index, device
        self.preference = nn.init.xavier_normal_(torch.rand((num_user, dim_feat), requires_grad=True)).to(self.device)
        self.conv = BaseModel(dim_feat, dim_feat, aggr="mean")
        nn.init.xavier_normal_(self.conv.weight)
        self.linear_layer, self.g_layer = nn.Linear(dim_feat, dim_id), nn.Linear(dim_feat + dim_id, dim_id)

    def forward(self, features, id_embedding):
        x = F.normalize(torch.cat((self.preference, features), dim=0))
        h = F.leaky_relu(self.conv(x, self.edge_index))
        x_hat = F.leaky_relu(self.linear_layer(x)) + id_embedding
        return F.leaky_relu(self.g_layer(torch.cat((h, x_hat), dim=1)))


class BaseModel(MessagePassing):
    def __init__(self, in_channels, out_channels, normalize=True, bias=True, aggr="add", **kwargs):
        super(BaseModel, self).__init__(aggr=aggr, **kwargs)
        self.weight = nn.Parameter(torch.Tensor(in_channels, out_channels))
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.uniform_(self.weight, -0.1, 0.1)

    def forward(self, x, edge_index, size=None):
        x = torch.matmul(x, self.weight)
        return self.propagate(edge_index, size=(x.size(0), x.size(0)), x=x)

    def message(self, x_j, edge_index, size):
        return x_j

    def update(self, aggr_out):
        return aggr_out
