"""A method of one's own: each text pools a video's frames by how well they match, a = softmax_j(10 <t, v_j>)."""

import torch
from torch import nn

from rushes.losses import info_nce, scale_of
from rushes.methods.base import Method
from rushes.similarity import dot, fp32, masked_mean, unit
from rushes.types import Tokens


class SoftPool(Method):
    def __init__(self, dim, config=None):
        super().__init__(dim, config)
        self.text, self.video = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.log_scale = nn.Parameter(torch.tensor(3.0))

    def encode_text(self, words):
        return Tokens(unit(self.text(words.sentence))[:, None], torch.ones_like(words.mask[:, :1]))

    def encode_video(self, frames):
        return Tokens(unit(self.video(frames.vectors)), frames.mask, frames.spans)

    def score(self, text, video):
        sentence, frames = fp32(text.vectors[:, 0]), fp32(video.vectors)
        products = torch.einsum("td,vfd->tvf", sentence, frames)
        wanted = (10 * products).masked_fill(~video.mask, -torch.inf).softmax(dim=2)
        return torch.einsum("td,tvd->tv", sentence, unit(torch.einsum("tvf,vfd->tvd", wanted, frames)))

    def summary(self, tokens):
        return unit(masked_mean(fp32(tokens.vectors), tokens.mask))

    def loss(self, text, video, positives):
        scale, summaries = scale_of(self.log_scale), dot(self.summary(text), self.summary(video))
        nce = info_nce(self.score(text, video), positives, scale)
        return {"nce": nce, "summary": 0.5 * info_nce(summaries, positives, scale)}
