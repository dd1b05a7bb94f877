"""Speed ratios, measured side by side in one run: python benchmarks/ratios.py

Compares training and evaluation with the bare matrix products that they consist of, and a second
fit with the first.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.nn.functional import normalize

from pairmatch import Evaluator, Matcher, PairedFeatures, Pairs, Trainer, TrainingConfig
from pairmatch.backbones.descriptor import DescriptorBackbone
from pairmatch.experiments.demo import draw_people


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def side_by_side(ours, bare, repeats=5):
    """Medians of alternating runs and of their ratios, after one warm-up run of each."""
    ours()
    bare()
    pairs = [(seconds(ours), seconds(bare)) for _ in range(repeats)]
    return median(o for o, _ in pairs), median(b for _, b in pairs), median(o / b for o, b in pairs)


def training():
    """30 epochs on 346 pairs × 2048 with 74 validation pairs, against the same matrix products."""
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        return torch.randn(count, 2048, generator=generator).numpy()

    a = draw(346)
    b = draw(346)
    validation_a = draw(74)
    validation_b = draw(74)
    config = TrainingConfig(patience=30)  # all 30 epochs
    w1 = torch.randn(2048, 2048)
    w2 = torch.randn(512, 2048)
    validation = torch.randn(148, 2048)
    batches = [torch.randn(2 * n, 2048) for n in [48] * 7 + [10]]

    def bare():
        for _ in range(30):
            for h in batches:
                hidden = h @ w1.T
                z = hidden @ w2.T
                similarity = z[: len(z) // 2] @ z[len(z) // 2 :].T
                gradient_a = similarity @ z[len(z) // 2 :]
                gradient_b = similarity.T @ z[: len(z) // 2]
                gradient = torch.cat([gradient_a, gradient_b])
                gradient.T @ hidden, (gradient @ w2).T @ h
            (validation @ w1.T) @ w2.T

    return side_by_side(
        lambda: Trainer(config=config).fit(
            PairedFeatures.of(a, b), PairedFeatures.of(validation_a, validation_b)
        ),
        bare,
    )


def evaluation():
    """10,000 × 10,000 × 512 in both directions with 1,000 resamples, against one matrix product."""
    generator = torch.Generator().manual_seed(0)
    a = normalize(torch.randn(10_000, 512, generator=generator), dim=1)
    b = normalize(torch.randn(10_000, 512, generator=generator) + 8 * a, dim=1)
    return side_by_side(lambda: Evaluator().evaluate_arrays(a, b), lambda: a @ b.T)


class CountingBackbone(DescriptorBackbone):
    """Counts the people it runs on."""

    people = 0

    def forward(self, batch):
        CountingBackbone.people += len(batch)
        return super().forward(batch)


def second_fit():
    """People through the backbone and seconds, for each of two fits on the same 300 photos."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs.read(draw_people(folder, pairs=150))
        train, validation, _ = pairs.split()

        def fit():
            CountingBackbone.people = 0
            config = TrainingConfig(epochs=1)
            duration = seconds(
                lambda: Matcher(
                    backbone=CountingBackbone(), store=Path(folder) / "s.sqlite", training=config
                ).fit(train, validation)
            )
            return CountingBackbone.people, duration

        return fit(), fit()


def main():
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, numpy {np.__version__}")
    for name, measure, limit in (("training", training, 2.0), ("evaluation", evaluation, 1.5)):
        ours, bare, ratio = measure()
        print(
            f"{name}: {ours:.2f} s, bare matrix products {bare:.2f} s, ratio {ratio:.2f} "
            f"(target: at most {limit})"
        )
    (first_people, first_seconds), (second_people, second_seconds) = second_fit()
    print(
        f"fit: {first_people} people through the backbone in {first_seconds:.2f} s; "
        f"second fit: {second_people} people in {second_seconds:.2f} s"
    )


if __name__ == "__main__":
    main()
