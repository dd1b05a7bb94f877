"""Checkpoints of fine-tuning: another run, a changed file or a foreign folder is refused."""

import json

import pytest
from test_finetuning import FAST, bert, text_backbone, text_pairs  # noqa: F401

from pairmatch import Pair, Pairs
from pairmatch.backbones.hf_text import HFTextBackbone
from pairmatch.core.callbacks import Callback
from pairmatch.core.errors import ConfigurationError
from pairmatch.finetuning.checkpoints import RECORD, WEIGHTS
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.finetuning.finetuner import Finetuner

pytest.importorskip("peft")
resource = pytest.importorskip("resource", reason="no limits of files on this system")
CONFIG = FinetuneConfig(**{**FAST, "epochs": 1})


def with_pools(pairs):
    """The same pairs, each in one of two pools."""
    pooled = [Pair(pair.a, pair.b, pool=str(row % 2)) for row, pair in enumerate(pairs.pairs)]
    return Pairs.of(pairs.people, pooled)


def test_a_run_of_other_options_does_not_resume(text_backbone, tmp_path):  # noqa: F811
    """No option below changes a weight that a run starts with, and each changes its result."""
    train, validation = text_pairs(8), text_pairs(6, start=8)
    head, loss = ("mlp", {"width": 8, "dropout": 0.1}), ("infonce", {"directions": "both"})

    def fit(validation=validation, pooler="mean", head=head, loss=loss, **options):
        config = FinetuneConfig(**{**FAST, "epochs": 1, **options})
        tuner = Finetuner(text_backbone, pooler, head, loss, config)
        return tuner.fit(train, validation, checkpoints=tmp_path / "run")

    whole = fit()
    others = {
        "head": {"head": ("mlp", {"width": 8, "dropout": 0.5})},
        "loss": {"loss": ("infonce", {"directions": "a_to_b"})},
        "pooler.pooler": {"pooler": "eos"},
        "data": {"validation": with_pools(validation)},
        "config.hard_negatives": {"hard_negatives": 1},
    }
    for name, change in others.items():
        with pytest.raises(ConfigurationError, match=rf"another run \(it differs in {name}"):
            fit(**change)
    assert fit(checkpoint_steps=3, gradient_checkpointing=True).adapter == whole.adapter


def test_a_changed_or_damaged_checkpoint_is_refused(text_backbone, tmp_path):  # noqa: F811
    folder = tmp_path / "run"
    pairs = text_pairs(4)

    def fit():
        return Finetuner(text_backbone, config=CONFIG).fit(pairs, checkpoints=folder)

    adapter = fit().adapter
    record, weights = (folder / RECORD).read_bytes(), (folder / WEIGHTS).read_bytes()
    moved = json.loads(record)
    moved["position"] |= {"epoch": "1", "is_done": False}
    damages = {
        RECORD: (
            b"",
            b"[]",
            b"{}",
            b"\xff",
            record[: len(record) // 2],
            json.dumps(moved).encode(),
        ),
        WEIGHTS: (b"", weights[:-1], weights[: len(weights) // 2], weights[:-1] + b"\x01"),
    }
    for name, contents in damages.items():
        kept = (folder / name).read_bytes()
        for content in contents:
            (folder / name).write_bytes(content)
            with pytest.raises(ConfigurationError, match=rf"cannot be read \(.*: delete {RECORD}"):
                fit()
        (folder / name).write_bytes(kept)
    assert fit().adapter == adapter


def test_a_folder_that_cannot_hold_checkpoints_is_refused_before_the_model_loads(tmp_path):
    missing = HFTextBackbone(model=str(tmp_path / "no model"), device="cpu")
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / WEIGHTS).write_bytes(b"of another program")
    (tmp_path / "file").touch()
    places = {
        "diary": "files that pairmatch did not write",
        "file": "is a file, and a folder is needed",
        "file/inside": "cannot be written",
    }
    for name, message in places.items():
        with pytest.raises(ConfigurationError, match=message):
            Finetuner(missing, config=CONFIG).fit(text_pairs(4), checkpoints=tmp_path / name)
    assert (tmp_path / "diary" / WEIGHTS).read_bytes() == b"of another program"


class LimitsFiles(Callback):
    """No file may grow beyond 20 kB after the first epoch, as on a full disk."""

    def on_epoch(self, row, epochs):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    def on_end(self):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_failed_write_keeps_the_earlier_checkpoint(text_backbone, tmp_path):  # noqa: F811
    folder = tmp_path / "run"
    config = FinetuneConfig(**{**FAST, "epochs": 3})
    train = text_pairs(8)
    whole = Finetuner(text_backbone, config=config).fit(train)
    with pytest.raises(ConfigurationError, match="checkpoint cannot be written to"):
        Finetuner(text_backbone, config=config, callbacks=[LimitsFiles()]).fit(
            train, checkpoints=folder
        )
    assert (folder / WEIGHTS).stat().st_size > 20_000
    assert json.loads((folder / RECORD).read_text())["position"]["epoch"] == 2
    resumed = Finetuner(text_backbone, config=config).fit(train, checkpoints=folder)
    assert resumed.history == whole.history
    assert resumed.adapter == whole.adapter
