"""The smallest plugin: a backbone that sees colours, and a loss."""

import numpy as np
import torch

from pairmatch import Backbone, ContrastiveLoss, TokenStates
from pairmatch.io.images import load_image


class MeanColourBackbone(Backbone):
    """Mean colours of a grid of cells."""

    default_pooler = "native"

    def __init__(self, *, cells: int = 4):
        self.cells = cells

    @property
    def dim(self):
        return 3 * self.cells**2

    def prepare(self, items):
        rows = [
            np.mean(
                [
                    np.asarray(load_image(image).resize((self.cells, self.cells)))
                    for image in item.images
                ],
                axis=0,
            )
            for item in items
        ]
        return torch.from_numpy(np.stack(rows).reshape(len(rows), -1).astype(np.float32) / 255)

    def forward(self, batch):
        return TokenStates(pooled=batch)

    def fingerprint(self):
        return {"backbone": "mean-colour", "cells": self.cells}


class CosineGapLoss(ContrastiveLoss):
    """Mean cosine of strangers minus mean cosine of matches."""

    def __init__(self, *, weight: float = 1.0):
        super().__init__()
        self.weight = weight

    def loss(self, e_a, e_b, positives):
        similarity = e_a @ e_b.T
        matches = (similarity * positives).sum() / positives.sum().clamp(min=1)
        strangers = (similarity * ~positives).sum() / (~positives).sum().clamp(min=1)
        return self.weight * (strangers - matches)
