"""Trainer and Evaluator on features that you already have, without the facade: python examples/vectors_alone.py

The features are made here: partners are a fixed rotation of one another plus noise, so that cosine
does not see who belongs to whom, and a small head can learn it.
"""

import numpy as np

from pairmatch import Evaluator, Trainer, TrainingConfig
from pairmatch.learning.heads import embed

WIDTH = 64


def couples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of both sides, [count, WIDTH] each; row i matches row i."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0]
    a = rng.normal(size=(count, WIDTH)).astype(np.float32)
    return a, (a @ turn + rng.normal(size=(count, WIDTH))).astype(np.float32)


def main() -> None:
    train, validation, test = couples(346, 1), couples(74, 2), couples(75, 3)
    trainer = Trainer(
        ("mlp", {"width": 128, "shared": False}),  # the two sides differ: a head for each
        ("infonce", {"directions": "both"}),
        TrainingConfig(learning_rate=1e-3),
    )
    result = trainer.fit(*train, validation_a=validation[0], validation_b=validation[1])
    print(f"best epoch {result.best_epoch}, validation MRR {result.validation_mrr:.3f}")
    evaluation = Evaluator().evaluate(
        embed(result.head, test[0], "a"),
        embed(result.head, test[1], "b"),
        frozen_a=test[0],
        frozen_b=test[1],
    )
    print(evaluation)


if __name__ == "__main__":
    main()
