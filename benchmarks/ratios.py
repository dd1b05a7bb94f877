"""Speed as ratios, each measured side by side in one run: python benchmarks/ratios.py

Training and evaluation against the bare matrix products that they consist of, and a second fit
against the first.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.nn.functional import normalize

from pairmatch import Evaluator, Matcher, Pairs, Trainer, TrainingConfig
from pairmatch.backbones.descriptor import DescriptorBackbone
from pairmatch.experiments.demo import draw_people


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def side_by_side(ours, bare, repeats=5):
    """Medians of alternating runs, and of their ratios, after one run of each to warm up."""
    ours(), bare()
    pairs = [(seconds(ours), seconds(bare)) for _ in range(repeats)]
    return median(o for o, _ in pairs), median(b for _, b in pairs), median(o / b for o, b in pairs)


def training():
    """346 pairs × 2048 for 30 epochs, 74 validation pairs, against the matrix products of those passes alone."""
    generator = torch.Generator().manual_seed(0)
    a, b, v_a, v_b = (torch.randn(n, 2048, generator=generator).numpy() for n in (346, 346, 74, 74))
    config = TrainingConfig(patience=30)  # all 30 epochs
    w1, w2 = torch.randn(2048, 2048), torch.randn(512, 2048)
    held = torch.randn(148, 2048)
    batches = [torch.randn(2 * n, 2048) for n in [48] * 7 + [10]]

    def bare():
        for _ in range(30):
            for h in batches:
                hidden = h @ w1.T
                z = hidden @ w2.T
                similarity = z[: len(z) // 2] @ z[len(z) // 2 :].T
                gradient = similarity @ z[len(z) // 2 :]  # of one side; the other follows
                other = similarity.T @ z[: len(z) // 2]
                gradient = torch.cat([gradient, other])
                gradient.T @ hidden, (gradient @ w2).T @ h
            (held @ w1.T) @ w2.T

    return side_by_side(
        lambda: Trainer(config=config).fit(a, b, validation_a=v_a, validation_b=v_b),
        bare,
    )


def evaluation():
    """10,000 × 10,000 × 512, both directions, ties, and 1,000 resamples, against one product of the two matrices."""
    generator = torch.Generator().manual_seed(0)
    a = normalize(torch.randn(10_000, 512, generator=generator), dim=1)
    b = normalize(torch.randn(10_000, 512, generator=generator) + 8 * a, dim=1)
    return side_by_side(lambda: Evaluator().evaluate(a, b), lambda: a @ b.T)


class Counting(DescriptorBackbone):
    """Counts the people that it is run on."""

    people = 0

    def forward(self, batch):
        Counting.people += len(batch)
        return super().forward(batch)


def second_fit():
    """Fitting twice on the same 300 photos.

    Backbone calls and seconds of the first and the second time.
    """
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs.read(draw_people(folder, pairs=150))
        train, validation, _ = pairs.split()

        def fit():
            Counting.people = 0
            config = TrainingConfig(epochs=1)
            took = seconds(
                lambda: Matcher(
                    backbone=Counting(), store=Path(folder) / "s.sqlite", training=config
                ).fit(train, validation)
            )
            return Counting.people, took

        return fit(), fit()


def main():
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, numpy {np.__version__}")
    for name, measure, limit in (("training", training, 2.0), ("evaluation", evaluation, 1.5)):
        ours, bare, ratio = measure()
        print(
            f"{name}: {ours:.2f} s, bare matrix products {bare:.2f} s, ratio {ratio:.2f} (wanted: at most {limit})"
        )
    (first, took), (second, again) = second_fit()
    print(
        f"fit: {first} people through the backbone in {took:.2f} s; second fit: {second} people in {again:.2f} s"
    )


if __name__ == "__main__":
    main()
