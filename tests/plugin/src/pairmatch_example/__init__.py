"""The smallest plugin: a backbone of mean colors, and a loss."""

import numpy as np
import torch

from pairmatch import Backbone, ContrastiveLoss, TokenStates
from pairmatch.io.images import load_image


class MeanColorBackbone(Backbone):
    """Mean colors of a grid of cells."""

    default_pooler = "native"

    def __init__(self, *, cells: int = 4):
        self.cells = cells

    @property
    def dim(self):
        return 3 * self.cells**2

    def prepare(self, items):
        size = (self.cells, self.cells)
        rows = [
            np.mean([np.asarray(load_image(image).resize(size)) for image in item.images], axis=0)
            for item in items
        ]
        return torch.from_numpy(np.stack(rows).reshape(len(rows), -1).astype(np.float32) / 255)

    def forward(self, batch):
        return TokenStates(pooled=batch)

    def fingerprint(self):
        return {"backbone": "mean-color", "cells": self.cells}


class CosineGapLoss(ContrastiveLoss):
    """Mean cosine of non-matches minus mean cosine of matches."""

    def __init__(self, *, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def loss(self, e_a, e_b, positives, unknown):
        similarity = e_a @ e_b.T
        negatives = ~(positives | unknown)
        matches = (similarity * positives).sum() / positives.sum().clamp(min=1)
        others = (similarity * negatives).sum() / negatives.sum().clamp(min=1)
        return self.weight * (others - matches)
