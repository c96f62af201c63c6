# ruff: noqa  (in the manner of files written for MMRec)
import numpy as np
import scipy.sparse as sp
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch_scatter import scatter

from common.abstract_recommender import GeneralRecommender


class SLMREC(GeneralRecommender):
    def __init__(self, config, dataset):
        super(SLMREC, self).__init__(config, dataset)
        self.config = config
        self.infonce_criterion = nn.CrossEntropyLoss()
        self.__init_weight(dataset)

    def __init_weight(self, dataset):
        self.num_users, self.num_items = self.n_users, self.n_items
        self.latent_dim, self.n_layers = self.config["recdim"], self.config["layer_num"]
        self.create_u_embeding_i(dataset)
        self.g_i_iv = nn.Linear(self.latent_dim, self.latent_dim)
        self.embedding_item_after_GCN = nn.Linear(self.latent_dim * 2, self.latent_dim).cuda()
        self.embedding_user_after_GCN = nn.Linear(self.latent_dim * 2, self.latent_dim).cuda()
        nn.init.xavier_uniform_(self.g_i_iv.weight)

    def create_u_embeding_i(self, dataset):
        self.embedding_user = torch.nn.Embedding(self.num_users, self.latent_dim)
        self.embedding_item = torch.nn.Embedding(self.num_items, self.latent_dim)
        if self.config["init"] == "xavier":
            nn.init.xavier_uniform_(self.embedding_user.weight, gain=1)
            nn.init.xavier_uniform_(self.embedding_item.weight, gain=1)
        self.visual_feature = torch.nn.functional.normalize(torch.FloatTensor(self.v_feat.cpu().numpy()), dim=1).cuda()
        self.v_dense = nn.Linear(self.visual_feature.shape[1], self.latent_dim)
        inter = dataset.inter_matrix(form="csr")
        adj = sp.bmat([[None, inter], [inter.T, None]]).tocsr()
        rowsum = np.array(adj.sum(1)) + 1e-8
        d_mat = sp.diags(np.power(rowsum, -0.5).flatten())
        coo = d_mat.dot(adj).dot(d_mat).tocoo()
        index = torch.stack([torch.from_numpy(coo.row).long(), torch.from_numpy(coo.col).long()])
        self.norm_adj = torch.sparse.FloatTensor(index, torch.from_numpy(coo.data), torch.Size(coo.shape)).float()
        self.norm_adj = self.norm_adj.coalesce().cuda()
        self.f = nn.Sigmoid()

    def compute_graph(self, u_emb, i_emb):
        all_emb = torch.cat([u_emb, i_emb])
        embs = [all_emb]
        for _ in range(self.n_layers):
            all_emb = torch.sparse.mm(self.norm_adj, all_emb)
            embs.append(all_emb)
        return torch.mean(torch.stack(embs, dim=1), dim=1)

    def compute(self):
        users_emb = self.embedding_user.weight
        i_emb = self.compute_graph(users_emb, self.embedding_item.weight)
        self.i_emb_u, self.i_emb_i = torch.split(i_emb, [self.num_users, self.num_items])
        v_emb = self.compute_graph(users_emb, self.v_dense(self.visual_feature))
        self.v_emb_u, self.v_emb_i = torch.split(v_emb, [self.num_users, self.num_items])
        user = self.embedding_user_after_GCN(torch.cat([self.i_emb_u, self.v_emb_u], dim=1))
        item = self.embedding_item_after_GCN(torch.cat([self.i_emb_i, self.v_emb_i], dim=1))
        return user, item

    def calculate_loss(self, interaction):
        users, pos = interaction[0], interaction[1]
        self.all_users, self.all_items = self.compute()
        u = F.normalize(self.all_users[users.long()], dim=1)
        i = F.normalize(self.all_items[pos.long()], dim=1)
        logits = torch.mm(u, i.T) / self.config["temp"]
        labels = torch.tensor(list(range(users.shape[0]))).to("cuda")
        main = self.infonce_criterion(logits, labels)
        ssl = torch.mm(self.g_i_iv(self.i_emb_i[pos]), self.g_i_iv(self.v_emb_i[pos]).T) / self.config["ssl_temp"]
        return main + self.config["ssl_alpha"] * self.infonce_criterion(ssl, labels)

    def full_sort_predict(self, interaction, candidate_items=None):
        return self.f(torch.matmul(self.all_users[interaction[0].long()], self.all_items.t()))
