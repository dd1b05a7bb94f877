"""Measures one experiment of one library: python benchmarks/peer_costs.py LIBRARY JOB

Run by benchmarks/peers.py in the library's own interpreter. JOB is a JSON file with the folder of
the people, the kind of their inputs (`photos` or `texts`), the encoder, the number of epochs, and
the number of the experiment. Prints JSON: seconds without imports, those of each epoch where the
library runs the encoder in it, and the peak memory of the process.
"""

import csv
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import peer_fits


class Clock:
    """Seconds of the experiment, and of each of its epochs."""

    def __init__(self):
        self.start = time.perf_counter()
        self.epochs = []
        self.last = None

    def begin_epoch(self):
        self.last = time.perf_counter()

    def end_epoch(self):
        self.epochs.append(time.perf_counter() - self.last)


def preload(*modules):
    """Imports what the experiment would import, because imports are not counted."""
    for module in modules:
        importlib.import_module(module)


def inputs(job):
    """Paths of the photos or texts of both sides, and the numbers of training and test pairs."""
    folder = Path(job["folder"])
    with (folder / "pairs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if job["kind"] == "photos":
        sides = [[str(folder / row[f"image_{side}"]) for row in rows] for side in "ab"]
    else:
        sides = [[row[f"text_{side}"] for row in rows] for side in "ab"]
    size = len(rows)
    train = range(int(0.7 * size))
    return sides, train, range(len(train), int(0.85 * size)), range(int(0.85 * size), size)


def pairmatch(job):
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer  # noqa: F401

    from pairmatch import Matcher, Pairs, TrainingConfig

    preload("torch._dynamo", "scipy.stats", "sklearn.isotonic", "sklearn.linear_model")
    preload("pairmatch.backbones.hf_text", "pairmatch.backbones.hf_vision")
    preload("pairmatch.learning.contrastive", "pairmatch.evaluation.evaluator")
    clock = Clock()
    folder = Path(job["folder"])
    pairs = Pairs.read(folder / "pairs.csv", images=folder)
    train, validation, test = pairs.split(0.70, 0.15, seed=0)
    name = "hf-vision" if job["kind"] == "photos" else "hf-text"
    epochs = job["epochs"]
    matcher = Matcher(
        backbone=(name, {"model": job["encoder"], "dtype": "float32"}),
        metadata=None,
        store=folder / "store.sqlite",
        loss=("infonce", {"temperature": 0.2 + 0.01 * job["experiment"]}),
        training=TrainingConfig(epochs=epochs, patience=epochs),
    )
    matcher.fit(train, validation)
    matcher.evaluate(test)
    return clock


def by_hand(method):
    """A script that saves the vectors itself, and a head or model of another library on them."""

    def run(job):
        preload("torch._dynamo", "transformers", "PIL.Image")
        preload("pytorch_metric_learning.losses", "sklearn.linear_model", "sklearn.pipeline")
        fit, _ = peer_fits.METHODS[method]
        sides, train, validation, test = inputs(job)
        clock = Clock()
        saved = Path(job["folder"]) / f"{method}.npz"
        if not saved.exists():
            np.savez(saved, **{side: encode(job, sides[i]) for i, side in enumerate("ab")})
        arrays = np.load(saved)
        peer_fits.EPOCHS = peer_fits.PATIENCE = job["epochs"]
        fold = SimpleNamespace(
            **{side: arrays[side] for side in "ab"},
            train=np.tile(np.array(train)[:, None], 2),
            validation=np.tile(np.array(validation)[:, None], 2),
            seed=job["experiment"],
        )
        rows = np.array(test)
        scores = fit(fold)(rows, rows)
        peer_fits.mean_reciprocal_rank(scores, np.tile(np.arange(len(rows))[:, None], 2))
        return clock

    return run


def encode(job, items):
    """[items, D] pooled outputs of the encoder, 32 at a time."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(job["encoder"]).eval()
    if job["kind"] == "photos":
        processor = AutoImageProcessor.from_pretrained(job["encoder"])
    else:
        processor = AutoTokenizer.from_pretrained(job["encoder"])
    vectors = []
    for start in range(0, len(items), 32):
        chunk = items[start : start + 32]
        if job["kind"] == "photos":
            batch = processor([Image.open(path).convert("RGB") for path in chunk])
            batch = {"pixel_values": torch.as_tensor(np.stack(batch["pixel_values"]))}
            mask = None
        else:
            batch = processor(chunk, padding=True, truncation=True, return_tensors="pt")
            mask = batch["attention_mask"][:, :, None]
        with torch.inference_mode():
            states = model(**batch).last_hidden_state
        mask = torch.ones_like(states[:, :, :1]) if mask is None else mask
        vectors.append(((states * mask).sum(1) / mask.sum(1)).numpy())
    return np.concatenate(vectors)


def sentence_transformers(job):
    """Its trainer with a frozen encoder; only the test pairs are evaluated, after training."""
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from sentence_transformers.training_args import BatchSamplers
    from transformers import TrainerCallback

    sides, train, _, test = inputs(job)
    preload("torch._dynamo")
    clock = Clock()
    torch.manual_seed(job["experiment"])
    encoder = Transformer(job["encoder"])
    pooling = Pooling(encoder.get_embedding_dimension())
    model = peer_fits.with_head(SentenceTransformer(modules=[encoder, pooling], device="cpu"))

    class Epochs(TrainerCallback):
        def on_epoch_begin(self, *_, **__):
            clock.begin_epoch()

        def on_epoch_end(self, *_, **__):
            clock.end_epoch()

    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=job["epochs"],
            per_device_train_batch_size=peer_fits.BATCH,
            learning_rate=peer_fits.LEARNING_RATE,
            weight_decay=peer_fits.WEIGHT_DECAY,
            warmup_steps=0.1,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            save_strategy="no",
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        )
        columns = {
            name: [side[row] for row in train]
            for name, side in zip(("anchor", "positive"), sides, strict=True)
        }
        SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(columns),
            loss=MultipleNegativesRankingLoss(model, scale=1 / peer_fits.TEMPERATURE),
            callbacks=[Epochs()],
        ).train()
    InformationRetrievalEvaluator(
        {f"a{row}": sides[0][row] for row in test},
        {f"b{row}": sides[1][row] for row in test},
        {f"a{row}": {f"b{row}"} for row in test},
        write_csv=False,
    )(model)
    return clock


def open_metric_learning(job):
    """A frozen extractor with an MLP, from photos, as in OML's examples."""
    import pandas
    import torch
    from oml import datasets
    from oml.inference import inference
    from oml.losses import TripletLossWithMiner
    from oml.metrics import calc_retrieval_metrics_rr
    from oml.miners import AllTripletsMiner
    from oml.models import ExtractorWithMLP, ViTCLIPExtractor
    from oml.registry import get_transforms_for_pretrained
    from oml.retrieval import RetrievalResults
    from oml.samplers import BalanceSampler

    sides, train, _, test = inputs(job)
    preload("torch._dynamo")
    clock = Clock()
    torch.manual_seed(job["experiment"])
    extractor = ViTCLIPExtractor(None, "vitb32_224", normalise_features=False)
    model = ExtractorWithMLP(extractor, [extractor.feat_dim, peer_fits.WIDTH]).train()
    transform, _ = get_transforms_for_pretrained("openai_vitb32_224")

    def table(rows, **columns):
        paths = [side[row] for side in sides for row in rows]
        return pandas.DataFrame({"path": paths, "label": [*rows, *rows], **columns})

    training = datasets.ImageLabeledDataset(table(train), transform=transform)
    sampler = BalanceSampler(training.get_labels(), n_labels=peer_fits.BATCH, n_instances=2)
    loader = torch.utils.data.DataLoader(training, batch_sampler=sampler)
    criterion = TripletLossWithMiner(0.1, AllTripletsMiner())
    optimizer = torch.optim.Adam(model.projection.parameters(), lr=1e-4)
    for _ in range(job["epochs"]):
        clock.begin_epoch()
        for batch in loader:
            loss = criterion(model(batch["input_tensors"]), batch["labels"])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        clock.end_epoch()
    first = [True] * len(test) + [False] * len(test)
    queries = table(test, is_query=first, is_gallery=[not query for query in first])
    testing = datasets.ImageQueryGalleryLabeledDataset(queries, transform=transform)
    vectors = inference(model, testing, batch_size=32, num_workers=0, verbose=False)
    retrieved = RetrievalResults.from_embeddings(vectors, testing, n_items=10)
    calc_retrieval_metrics_rr(retrieved, cmc_top_k=(10,))
    return clock


LIBRARIES = {
    "pairmatch": pairmatch,
    "sentence-transformers": sentence_transformers,
    "open-metric-learning": open_metric_learning,
    "pytorch-metric-learning": by_hand("pytorch-metric-learning one-way"),
    "scikit-learn": by_hand("scikit-learn ridge"),
}


def main(library, file):
    job = json.loads(Path(file).read_text(encoding="utf-8"))
    clock = LIBRARIES[library](job)
    measured = {
        "seconds": time.perf_counter() - clock.start,
        "epochs": clock.epochs,
        "peak_mib": peer_fits.peak_mib(),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
