"""Fits one library on the folds of a task: python benchmarks/peer_fits.py METHOD TASK RESULT

Run by benchmarks/peers.py, once per method and in the method's own interpreter. TASK is a folder
with `task.npz` and `task.json`; RESULT becomes a file with the scores of all test people of every
fold, the seconds of each fit and the peak memory. Nothing of pairmatch is imported for the other
libraries, so that they run in environments without it.

Every neural method trains the same head on the same pairs in batches of 48, for at most 30 epochs,
and keeps the epoch with the best MRR on the same validation pairs. What differs is the loss, the
batches and the loop that the library's documentation recommends for pairs.
"""

import importlib.metadata
import json
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

EPOCHS = 30
BATCH = 48
TEMPERATURE = 0.2
WIDTH = 512
LEARNING_RATE = 5e-5  # the recipe's, and the default of sentence-transformers' trainer
LEARNING_RATES = (5e-5, 5e-4, 5e-3)
WEIGHT_DECAY = 1e-3
PATIENCE = 5


class Fold:
    """What a method may see of one fold, and whom it has to score."""

    def __init__(self, arrays, description, number):
        self.a = arrays["a"]  # [N, D] float32, all people of side a
        self.b = arrays["b"]
        self.train = arrays[f"train_{number}"]  # [P, 2] rows of a and b
        self.validation = arrays[f"validation_{number}"]
        self.groups = arrays[f"groups_{number}"].tolist()  # of train, then validation pairs
        self.test = arrays[f"test_a_{number}"], arrays[f"test_b_{number}"]  # rows of people
        self.texts = description.get("texts")  # lists of all people, by side
        self.encoder = description.get("encoder")
        self.seed = description["seed"]


def peak_mib():
    """Peak resident memory of this process; `getrusage` would count the parent's as well."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def mean_reciprocal_rank(scores, pairs):
    """Both ways, over people with a partner; other partners of a person do not count."""
    partners = np.zeros(scores.shape, bool)
    partners[pairs[:, 0], pairs[:, 1]] = True
    ranks = []
    for table, known in ((scores, partners), (scores.T, partners.T)):
        best = np.where(known, table, -np.inf).max(1)[:, None]
        others = np.where(known, -np.inf, table)
        rank = 1 + (others > best).sum(1) + (others == best).sum(1) / 2
        ranks.append(1 / rank[known.any(1)])
    return float(np.concatenate(ranks).mean())


def validation_mrr(fold, score):
    """MRR on the validation pairs.

    Args:
        fold: The fold.
        score: Function of rows of a and rows of b that returns their scores.
    """
    rows = [np.unique(side) for side in fold.validation.T]
    local = np.stack([np.searchsorted(rows[i], fold.validation[:, i]) for i in (0, 1)], axis=1)
    return mean_reciprocal_rank(score(*rows), local)


# pairmatch


def paired(fold, pairs, groups):
    from pairmatch import PairedFeatures

    rows = [np.unique(side) for side in pairs.T]
    local = np.stack([np.searchsorted(rows[i], pairs[:, i]) for i in (0, 1)], axis=1)
    return PairedFeatures.of(fold.a[rows[0]], fold.b[rows[1]], matches=local, groups=groups)


def pairmatch(name):
    def fit(fold):
        from pairmatch.core import registry

        learner = registry.create("learners", name)
        size = len(fold.train)
        if learner.uses_validation:
            train = paired(fold, fold.train, fold.groups[:size])
            validation = paired(fold, fold.validation, fold.groups[size:])
        else:
            train = paired(fold, np.concatenate([fold.train, fold.validation]), fold.groups)
            validation = None
        head = learner.fit(train, validation, seed=fold.seed).head
        return lambda a, b: head.embed(fold.a[a], "a") @ head.embed(fold.b[b], "b").T

    return fit


# Losses of pytorch-metric-learning and OML in the plain PyTorch loop that both document


def recipe_head(dim):
    from torch import nn

    return nn.Sequential(
        nn.Linear(dim, dim, bias=False),
        nn.BatchNorm1d(dim),
        nn.ReLU(),
        nn.Linear(dim, WIDTH, bias=False),
    )


def train_head(fold, epoch_losses, make_optimizer):
    """Scores by the head at its best epoch, and its validation MRR.

    Args:
        fold: The fold.
        epoch_losses: Function of the head that yields the loss of each batch of an epoch.
        make_optimizer: Function of the head's parameters.
    """
    import torch

    torch.manual_seed(fold.seed)
    np.random.seed(fold.seed)
    random.seed(fold.seed)
    head = recipe_head(fold.a.shape[1])
    optimizer = make_optimizer(head.parameters())

    def embed(rows, side):
        head.eval()
        with torch.inference_mode():
            return unit(head(torch.from_numpy(side[rows])).numpy())

    def score(a, b):
        return embed(a, fold.a) @ embed(b, fold.b).T

    best = -1.0
    for epoch in range(EPOCHS):
        head.train()
        for loss in epoch_losses(head):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        mrr = validation_mrr(fold, score)
        if mrr > best:
            best = mrr
            best_epoch = epoch
            weights = {name: value.clone() for name, value in head.state_dict().items()}
        if epoch - best_epoch >= PATIENCE:
            break
    head.load_state_dict(weights)
    return score, best


def best_rate(fold, losses, optimizer_class, rates, **options):
    """Scores at the learning rate with the best validation MRR."""
    fits = [
        train_head(fold, losses, lambda p, rate=rate: optimizer_class(p, lr=rate, **options))
        for rate in rates
    ]
    return max(fits, key=lambda fit: fit[1])[0]


def metric_learning(rates, symmetric):
    """`SelfSupervisedLoss` over `NTXentLoss`, as its documentation recommends for pairs."""

    def fit(fold):
        import torch
        from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

        criterion = SelfSupervisedLoss(NTXentLoss(temperature=TEMPERATURE), symmetric=symmetric)
        pairs = torch.from_numpy(fold.train)
        loader = torch.utils.data.DataLoader(pairs, batch_size=BATCH, shuffle=True)
        a, b = torch.from_numpy(fold.a), torch.from_numpy(fold.b)

        def losses(head):
            for batch in loader:
                if len(batch) > 1:
                    both = head(torch.cat([a[batch[:, 0]], b[batch[:, 1]]]))
                    yield criterion(both[: len(batch)], both[len(batch) :])

        return best_rate(fold, losses, torch.optim.AdamW, rates, weight_decay=WEIGHT_DECAY)

    return fit


def oml(fold):
    """`TripletLossWithMiner` over batches of `BalanceSampler`, as in OML's examples."""
    import torch
    from oml.losses import TripletLossWithMiner
    from oml.miners import AllTripletsMiner
    from oml.samplers import BalanceSampler

    criterion = TripletLossWithMiner(0.1, AllTripletsMiner())
    people = torch.from_numpy(np.concatenate([fold.a[fold.train[:, 0]], fold.b[fold.train[:, 1]]]))
    labels = np.tile(np.arange(len(fold.train)), 2)  # a label per pair, with two instances
    sampler = BalanceSampler(labels.tolist(), n_labels=BATCH, n_instances=2)

    def losses(head):
        for rows in sampler:
            embeddings = torch.nn.functional.normalize(head(people[rows]), dim=1)
            yield criterion(embeddings, torch.from_numpy(labels[rows]))

    return best_rate(fold, losses, torch.optim.Adam, LEARNING_RATES)


# scikit-learn: the option with the best validation MRR, refitted on training and validation pairs


def chosen(fold, fit, options):
    best = max(options, key=lambda option: validation_mrr(fold, fit(fold.train, option)))
    return fit(np.concatenate([fold.train, fold.validation]), best)


def sklearn_ridge(fold):
    """The features of b predicted from those of a; scores are cosines to the prediction."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pairs = np.concatenate([fold.train, fold.validation])
    a, b = unit(fold.a), unit(fold.b)
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
    model.fit(a[pairs[:, 0]], b[pairs[:, 1]])
    mean = b[pairs[:, 1]].mean(0)
    return lambda rows_a, rows_b: unit(model.predict(a[rows_a]) - mean) @ unit(b[rows_b] - mean).T


def sklearn_pls(fold):
    """Cosine in the space of `PLSCanonical`, which has more features than pairs in mind."""
    from sklearn.cross_decomposition import PLSCanonical

    a, b = unit(fold.a), unit(fold.b)

    def fit(pairs, components):
        model = PLSCanonical(components, max_iter=2000, tol=1e-4)
        model.fit(a[pairs[:, 0]], b[pairs[:, 1]])

        def score(rows_a, rows_b):
            return unit(model.transform(a[rows_a])) @ unit(model.transform(a[:1], b[rows_b])[1]).T

        return score

    return chosen(fold, fit, [4, 8, 16, 32, 64])


def sklearn_logistic(fold):
    """Match or not from |a − b| and a · b, with ten random strangers per match."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    a, b = unit(fold.a), unit(fold.b)

    def describe(rows_a, rows_b):
        return np.concatenate([np.abs(a[rows_a] - b[rows_b]), a[rows_a] * b[rows_b]], axis=1)

    def fit(pairs, strength):
        rng = np.random.default_rng(fold.seed)
        first = np.repeat(pairs[:, 0], 10)
        second = rng.permutation(np.tile(pairs[:, 1], 10))
        known = {tuple(pair) for pair in pairs.tolist()}
        kept = [pair not in known for pair in zip(first.tolist(), second.tolist(), strict=True)]
        rows = np.concatenate([pairs, np.stack([first, second], axis=1)[kept]])
        answers = np.arange(len(rows)) < len(pairs)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        model.fit(describe(*rows.T), answers)

        def score(rows_a, rows_b):
            return np.stack(
                [
                    model.decision_function(describe(np.full(len(rows_b), row), rows_b))
                    for row in rows_a
                ]
            )

        return score

    return chosen(fold, fit, [1e-4, 1e-3, 1e-2])


# sentence-transformers: its trainer, on texts


def sentence_transformers(frozen):
    """`MultipleNegativesRankingLoss` without duplicates in a batch, as its documentation says.

    Args:
        frozen: Whether only a head is trained, of two `Dense` modules on a frozen encoder;
            otherwise all weights, at the learning rate and temperature of the documentation.
    """

    def fit(fold):
        import torch
        from sentence_transformers import SentenceTransformer

        best = -1.0
        for rate in LEARNING_RATES if frozen else [2e-5]:
            torch.manual_seed(fold.seed)
            model = SentenceTransformer(fold.encoder, device="cpu")
            if frozen:
                model = with_head(model)
            with tempfile.TemporaryDirectory() as folder:
                fit_sentences(fold, model, Path(folder), frozen, rate)
            embed = partial(embed_sentences, model, fold.texts)
            mrr = validation_mrr(fold, lambda a, b, embed=embed: embed(a, 0) @ embed(b, 1).T)
            if mrr > best:
                best = mrr
                chosen = embed
        return lambda a, b: chosen(a, 0) @ chosen(b, 1).T

    return fit


def with_head(model):
    """The frozen encoder with a head of the recipe's widths; there is no module for BatchNorm."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense
    from torch import nn

    for weight in model.parameters():
        weight.requires_grad = False
    dim = model.get_embedding_dimension()
    hidden = Dense(dim, dim, activation_function=nn.ReLU())
    output = Dense(dim, WIDTH, bias=False, activation_function=nn.Identity())
    return SentenceTransformer(modules=[*model, hidden, output], device="cpu")


def embed_sentences(model, texts, rows, side):
    texts = [texts[side][row] for row in rows]
    return unit(model.encode(texts, batch_size=BATCH, show_progress_bar=False))


def fit_sentences(fold, model, folder, frozen, rate):
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.training_args import BatchSamplers
    from transformers import EarlyStoppingCallback

    texts = fold.texts
    train = Dataset.from_dict(
        {
            "anchor": [texts[0][row] for row in fold.train[:, 0]],
            "positive": [texts[1][row] for row in fold.train[:, 1]],
        }
    )
    partners = {}
    for a, b in fold.validation.tolist():
        partners.setdefault(f"a{a}", set()).add(f"b{b}")
    evaluator = InformationRetrievalEvaluator(
        {f"a{row}": texts[0][row] for row in np.unique(fold.validation[:, 0])},
        {f"b{row}": texts[1][row] for row in np.unique(fold.validation[:, 1])},
        partners,
        mrr_at_k=[100],
        name="validation",
        write_csv=False,
    )
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=rate,
        weight_decay=WEIGHT_DECAY if frozen else 0.0,
        warmup_steps=0.1,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="eval_validation_cosine_mrr@100",
        use_cpu=True,
        seed=fold.seed,
        report_to="none",
        disable_tqdm=True,
    )
    scale = 1 / TEMPERATURE if frozen else 20.0
    SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=train,
        loss=MultipleNegativesRankingLoss(model, scale=scale),
        evaluator=evaluator,
        callbacks=[EarlyStoppingCallback(PATIENCE)],
    ).train()


METHODS = {
    "pairmatch frozen": (pairmatch("frozen"), "pairmatch"),
    "pairmatch recipe": (pairmatch("contrastive"), "pairmatch"),
    "pairmatch best": (pairmatch("best"), "pairmatch"),
    "sentence-transformers head": (sentence_transformers(True), "sentence-transformers"),
    "sentence-transformers all": (sentence_transformers(False), "sentence-transformers"),
    "pytorch-metric-learning": (metric_learning(LEARNING_RATES, True), "pytorch-metric-learning"),
    "pytorch-metric-learning one-way": (
        metric_learning([LEARNING_RATE], False),
        "pytorch-metric-learning",
    ),
    "open-metric-learning": (oml, "open-metric-learning"),
    "scikit-learn ridge": (sklearn_ridge, "scikit-learn"),
    "scikit-learn PLS": (sklearn_pls, "scikit-learn"),
    "scikit-learn logistic": (sklearn_logistic, "scikit-learn"),
}


def main(method, task, result):
    fit, distribution = METHODS[method]
    arrays = dict(np.load(task / "task.npz"))
    description = json.loads((task / "task.json").read_text(encoding="utf-8"))
    scores = {}
    seconds = []
    for number in range(description["folds"]):
        fold = Fold(arrays, description, number)
        start = time.process_time()
        score = fit(fold)
        scores[f"scores_{number}"] = np.asarray(score(*fold.test), np.float32)
        seconds.append(time.process_time() - start)
        print(f"{method}, fold {number}: {seconds[-1]:.1f} s of CPU", file=sys.stderr, flush=True)
    version = f"{distribution} {importlib.metadata.version(distribution)}"
    part = result.with_suffix(".part.npz")
    np.savez(part, seconds=seconds, peak_mib=peak_mib(), version=version, **scores)
    part.rename(result)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
