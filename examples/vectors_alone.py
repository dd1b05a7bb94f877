"""Trainer and Evaluator on your own vectors, without a matcher: python examples/vectors_alone.py

The features are synthetic: partners are a fixed rotation of each other plus noise, so cosine cannot
tell who belongs to whom, but a small head can learn it.
"""

import numpy as np

from pairmatch import Evaluator, PairedFeatures, Trainer, TrainingConfig

WIDTH = 64


def couples(count: int, seed: int) -> PairedFeatures:
    """Features of `count` couples; row i of side a matches row i of side b."""
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0]
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(count, WIDTH)).astype(np.float32)
    b = a @ rotation + rng.normal(size=(count, WIDTH))
    return PairedFeatures.of(a, b)


def main() -> None:
    train = couples(346, seed=1)
    validation = couples(74, seed=2)
    test = couples(75, seed=3)
    trainer = Trainer(
        ("mlp", {"width": 128, "shared": False}),  # the two sides differ: one head for each
        ("infonce", {"directions": "both"}),
        TrainingConfig(learning_rate=1e-3),
    )
    result = trainer.fit(train, validation)
    print(f"best epoch {result.best_epoch}, validation MRR {result.validation_mrr:.3f}")
    print(Evaluator().evaluate(test, result.head))


if __name__ == "__main__":
    main()
