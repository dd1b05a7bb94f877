"""Callbacks report what the work measures and change nothing; trackers record it, and no person.

What was recorded is read with each tracker's own classes.
"""

import json
import struct
import sys

import numpy as np
import pytest
import torch

from pairmatch import Callback, Matcher, PairedFeatures, Pairs, Trainer, TrainingConfig
from pairmatch.cli.tracking import tracked
from pairmatch.core import registry
from pairmatch.core.callbacks import Callbacks, ProgressBar
from pairmatch.core.errors import ConfigurationError
from pairmatch.evaluation.crossvalidation import cross_validate
from pairmatch.finetuning.config import FinetuneConfig
from pairmatch.learning.contrastive import Contrastive
from pairmatch.tracking import Tracker, run_parameters

CONFIG = TrainingConfig(epochs=4, batch_size=8, learning_rate=1e-2, patience=2)
SECRETS = ("Xanthippe-id", "a text about Xanthippe", "Xanthippetown")


class Recorder(Callback):
    """Keeps every call."""

    def __init__(self):
        self.calls = []

    def on_epoch(self, row, epochs):
        self.calls.append(("epoch", row, epochs))

    def on_evaluation(self, name, metrics):
        self.calls.append((name, metrics))

    def on_end(self):
        self.calls.append(("end",))


def features(n=24, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, 6)).astype(np.float32)
    return PairedFeatures.of(a, a[:, ::-1] + 0.3 * rng.normal(size=(n, 6)).astype(np.float32))


def written_pairs(folder, n=24):
    """A pairs file whose ids, texts and attributes must not be recorded."""
    rng = np.random.default_rng(0)
    lines = ["id_a,text_a,town_a,age_a,id_b,text_b,town_b,age_b"]
    for row in range(n):
        age = rng.integers(20, 60)
        lines.append(
            f"{SECRETS[0]}{row},{SECRETS[1]} {row},{SECRETS[2]},{age},b{row},b {row},B,{age + 1}"
        )
    path = folder / "pairs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def matcher(folder, **options):
    return Matcher(backbone="attributes", store=folder / "store.sqlite", **options)


# The interface


def test_a_trainer_reports_the_history_and_one_end():
    seen = Recorder()
    result = Trainer(config=CONFIG, callbacks=[seen]).fit(features(), features(seed=1))
    assert seen.calls == [*(("epoch", row, 4) for row in result.history), ("end",)]
    assert "validation_mrr" in seen.calls[0][1]


def test_callbacks_do_not_change_the_head():
    class Rude(Recorder):
        def on_epoch(self, row, epochs):
            row.clear()
            np.random.rand(3)

    plain = Trainer(config=CONFIG).fit(features())
    watched = Trainer(config=CONFIG, callbacks=[Rude(), ProgressBar()]).fit(features())
    assert watched.history == plain.history
    for name, weight in plain.head.state_dict().items():
        assert torch.equal(weight, watched.head.state_dict()[name])


def test_the_end_is_reported_after_an_error_too():
    seen = Recorder()
    diverging = TrainingConfig(learning_rate=1e30, batch_size=2)
    with pytest.raises(ConfigurationError, match="diverged"):
        Trainer("linear", config=diverging, callbacks=[seen]).fit(features())
    assert seen.calls[-1] == ("end",)


def test_the_progress_bar_counts_epochs_and_vanishes(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    bar = ProgressBar()
    for _ in range(2):  # it can be used for several trainings
        bar.on_epoch({"epoch": 3.0, "train_loss": 1.0}, 8)
        assert (bar._bar.tasks[0].completed, bar._bar.tasks[0].total) == (3, 8)
        assert len(bar._bar.tasks) == 1
        live = bar._bar.live
        bar.on_end()
        assert not live.is_started
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "3/8" in shown.err
    assert shown.err.rstrip("\r").endswith("\x1b[2K")  # the line is erased


def test_a_matcher_reports_epochs_of_fit_and_metrics_of_evaluate(tmp_path):
    train, validation, test = Pairs.read(written_pairs(tmp_path)).split(0.6, 0.2, seed=0)
    seen = Recorder()
    fitted = matcher(tmp_path, training={"epochs": 3}, callbacks=[seen]).fit(train, validation)
    assert [call[1] for call in seen.calls[:-1]] == fitted.history
    assert seen.calls[-1] == ("end",)
    seen.calls.clear()
    evaluation = fitted.evaluate(test)
    (name, metrics), end = seen.calls
    assert (name, end) == ("test", ("end",))
    both = evaluation.to_dict()["both"]
    assert metrics["mrr"] == both["mrr"]
    assert [metrics["mrr_low"], metrics["mrr_high"]] == both["intervals"]["mrr"]
    assert metrics["recall_at_5"] == both["recall"]["5"]
    assert metrics["chance_mrr"] == evaluation.chance.mrr
    assert metrics["frozen_median_rank"] == evaluation.frozen.both.median_rank
    assert metrics["queries"] == evaluation.queries
    seen.calls.clear()
    fitted.cross_validate(Pairs.read(tmp_path / "pairs.csv"), ["frozen"], repeats=1, folds=2)
    assert not seen.calls  # fits inside a test are not the matcher's own training


def test_a_loaded_matcher_reports_too(tmp_path):
    train, _, test = Pairs.read(written_pairs(tmp_path)).split(0.6, 0.2, seed=0)
    matcher(tmp_path, training={"epochs": 1}).fit(train).save(tmp_path / "saved")
    seen = Recorder()
    loaded = Matcher.load(tmp_path / "saved", store=tmp_path / "store.sqlite", callbacks=[seen])
    loaded.evaluate(test)
    assert [call[0] for call in seen.calls] == ["test", "end"]


def test_cross_validation_reports_each_learner():
    seen = Recorder()
    result = cross_validate(
        features(), ["frozen", "ridge"], repeats=1, folds=2, ks=[2], callbacks=[seen]
    )
    assert [call[0] for call in seen.calls] == ["frozen", "ridge", "end"]
    for name, metrics in seen.calls[:-1]:
        assert metrics["mrr"] == pytest.approx(result.mean_mrr()[name])
        assert metrics["recall_at_2"] == pytest.approx(result.metrics(name).recall[2])


def test_the_learner_tuned_reports_its_last_fit_only():
    seen = Recorder()
    space = {"training.learning_rate": [1e-3, 1e-2]}
    tuned = ("tuned", {"space": space, "trials": 2, "folds": 2, "training": {"epochs": 2}})
    learner = registry.create("learners", tuned)
    learner.callbacks = [seen]
    fitted = learner.fit(features())
    assert [call[1] for call in seen.calls[:-1]] == list(fitted.history)
    assert len([call for call in seen.calls if call == ("end",)]) == 1


def test_callbacks_as_one_reach_all():
    one, two = Recorder(), Recorder()
    with Callbacks([one, two]) as both:
        both.on_epoch({"epoch": 1.0}, 2)
        both.on_evaluation("test", {"mrr": 0.5})
    assert (
        one.calls == two.calls == [("epoch", {"epoch": 1.0}, 2), ("test", {"mrr": 0.5}), ("end",)]
    )
    assert not Contrastive().callbacks


class Failing(Recorder):
    """Raises in one of its methods."""

    def __init__(self, method):
        super().__init__()
        setattr(self, method, self._fail)

    def _fail(self, *values):
        raise OSError("the disk is full")


@pytest.mark.parametrize("method", ["on_epoch", "on_evaluation", "on_phase"])
def test_an_error_of_a_callback_names_it_and_others_are_told_the_end(method):
    before, after = Recorder(), Recorder()
    values = {"on_epoch": ({"epoch": 1.0}, 2), "on_evaluation": ("test", {}), "on_phase": ("fit",)}
    callbacks = Callbacks([before, Failing(method), after])
    with pytest.raises(OSError, match="disk is full") as error, callbacks:
        getattr(callbacks, method)(*values[method])
    assert error.value.__notes__ == [f"Raised by the callback Failing, in {method}."]
    assert before.calls[-1] == after.calls[-1] == ("end",)


def test_a_callback_that_fails_at_the_end_costs_no_result(caplog):
    seen = Recorder()
    result = Trainer(config=CONFIG, callbacks=[Failing("on_end"), seen]).fit(features())
    assert seen.calls[-1] == ("end",)
    assert len(result.history) == CONFIG.epochs
    assert "callback Failing failed at the end of the work (OSError: the disk is full)" in (
        caplog.text
    )


# Trackers, in their local or offline modes


def report(tracker):
    """What a training of two epochs and an evaluation report."""
    tracker.on_epoch({"epoch": 1.0, "train_loss": 3.0, "validation_mrr": 0.25}, 2)
    tracker.on_epoch({"epoch": 2.0, "train_loss": 2.5, "validation_mrr": 0.5}, 2)
    tracker.on_end()
    tracker.on_evaluation("test", {"mrr": 0.125, "recall_at_5": 0.75})
    tracker.on_end()


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    curves = {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }
    (text,) = events.Tensors("parameters/text_summary")
    return curves, text.tensor_proto.string_val[0].decode()


CURVES = {
    "train_loss": [(1, 3.0), (2, 2.5)],
    "validation_mrr": [(1, 0.25), (2, 0.5)],
    "test/mrr": [(2, 0.125)],
    "test/recall_at_5": [(2, 0.75)],
}


def test_tensorboard_reads_what_was_recorded(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `track` is not installed")
    for _ in range(2):  # two runs in one second get two folders
        with Tracker(f"tensorboard:{tmp_path}", {"learner": "ridge", "seed": 3}) as tracker:
            report(tracker)
            (latest,) = [f for f in tmp_path.iterdir() if read_events(f)[0] == CURVES]
            latest.rename(tmp_path.parent / f"{latest.name}-{_}")
    curves, text = read_events(tmp_path.parent / f"{latest.name}-1")
    assert curves == CURVES
    assert "| learner | ridge |" in text
    assert "| seed | 3 |" in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_reads_what_was_recorded(tmp_path):
    pytest.importorskip("mlflow", reason="the extra `track` is not installed")
    from mlflow.tracking import MlflowClient

    database = tmp_path / "runs.db"
    with Tracker(f"mlflow:{database}", {"learner": "ridge", "odd(é)": "x" * 900}) as tracker:
        report(tracker)
    failing = Tracker(f"mlflow:{database}")
    with pytest.raises(KeyError), failing:
        raise KeyError
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("pairmatch")
    failed, run = client.search_runs([experiment.experiment_id])
    assert (failed.info.status, run.info.status) == ("FAILED", "FINISHED")
    assert run.data.params == {"learner": "ridge", "odd_é_": "x" * 500}
    for name, points in CURVES.items():
        history = client.get_metric_history(run.info.run_id, name)
        assert [(metric.step, metric.value) for metric in history] == points
    assert not run.data.tags.keys() & {
        "mlflow.user",
        "mlflow.source.name",
        "mlflow.source.git.commit",
    }


def wandb_records(path):
    """Records of an offline run: W&B's messages in LevelDB's log format, blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, parts = 7, []
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:  # no header fits: the block is padded
            position += left
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        parts.append(content[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def test_wandb_reads_what_was_recorded_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="the extra `track` is not installed")
    monkeypatch.setenv("WANDB_MODE", "online")  # only the tracker's own `online` sends anything
    with Tracker(f"wandb:{tmp_path}", {"learner": "ridge"}) as tracker:
        report(tracker)
    wandb.teardown()  # waits for its process, which writes on after the end of a run
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    curves, config = {}, {}
    for record in wandb_records(file):
        for item in record.config.update:
            config[name_of(item)] = json.loads(item.value_json)
        row = {name_of(item): json.loads(item.value_json) for item in record.history.item}
        for name in row.keys() & CURVES.keys():
            curves.setdefault(name, []).append((row["epoch"], row[name]))
    assert config["learner"] == "ridge"
    assert curves == CURVES
    assert not list(file.parent.glob("files/*"))  # no list of packages, no command line, no code


def name_of(item):
    return "/".join(item.nested_key) or item.key


# What is recorded, and what happens if that fails


def test_parameters_name_parts_counts_and_digests_and_no_person(tmp_path):
    train, validation, test = Pairs.read(written_pairs(tmp_path)).split(0.6, 0.2, seed=0)
    fitted = matcher(tmp_path, training={"epochs": 2, "learning_rate": 1e-3}, seed=5)
    fitted.fit(train, validation)
    parameters = run_parameters(fitted, {"train": train, "test": test})
    assert parameters["backbone"] == "attributes"
    assert parameters["learner"] == "contrastive"
    assert parameters["learner.head"] == "mlp"
    assert parameters["learner.training.learning_rate"] == 1e-3
    assert parameters["seed"] == 5
    assert parameters["data.train.matches"] == len(train.matches)
    assert parameters["data.test.people"] == len(test.people)
    assert len(parameters["data.photos"]) == 64
    words = repr(parameters)
    assert not any(secret in words for secret in (*SECRETS, str(tmp_path), "b 3"))
    tuning = FinetuneConfig(rank=3, targets=("query", "value"))
    tuned = run_parameters(fitted, {"train": train}, tuning)
    assert (tuned["finetune.rank"], tuned["finetune.epochs"]) == (3, 10)
    assert tuned["finetune.targets"] == '["query", "value"]'
    other = run_parameters(fitted, {"train": train, "test": validation})
    assert other["data.people"] != parameters["data.people"]


def test_a_tracked_matcher_records_nothing_of_any_person(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra `track` is not installed")
    parts = Pairs.read(written_pairs(tmp_path)).split(0.6, 0.2, seed=0)
    fitted = matcher(tmp_path, training={"epochs": 2})
    with tracked([f"tensorboard:{tmp_path / 'events'}"], fitted, parts):
        fitted.fit(parts[0], parts[1])
        evaluation = fitted.evaluate(parts[2])
    assert not fitted.callbacks
    (run,) = (tmp_path / "events").iterdir()
    curves, text = read_events(run)
    assert [step for step, _ in curves["train_loss"]] == [1, 2]
    assert curves["test/mrr"] == [(2, pytest.approx(evaluation.both.mrr))]
    assert f"| data.train.matches | {len(parts[0].matches)} |" in text
    content = b"".join(path.read_bytes() for path in run.iterdir()).decode(errors="replace")
    assert not any(secret in content for secret in (*SECRETS, str(tmp_path)))


def test_a_tracker_that_fails_does_not_stop_the_work(tmp_path, caplog, monkeypatch):
    pytest.importorskip("tensorboard", reason="the extra `track` is not installed")
    tracker = Tracker(f"tensorboard:{tmp_path}")
    monkeypatch.setattr(tracker._run, "log", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    plain = Trainer(config=CONFIG).fit(features())
    watched = Trainer(config=CONFIG, callbacks=[tracker]).fit(features())
    assert watched.history == plain.history
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "takes no more numbers (OSError: disk full)" in warning
    tracker.close()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("mlflw", "Unknown tracker 'mlflw'. Did you mean 'mlflow'?"),
        ("tensorboard:{file}", "No run can be created in 'tensorboard:{file}'"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_refused_at_once(tmp_path, target, message):
    pytest.importorskip("tensorboard", reason="the extra `track` is not installed")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigurationError) as error:
        Tracker(target.format(file=file))
    assert message.format(file=file) in str(error.value)


def test_a_place_where_mlflow_has_no_database_is_refused_at_once(tmp_path):
    pytest.importorskip("mlflow", reason="the extra `track` is not installed")
    (tmp_path / "diary.txt").write_text("of another program")
    places = {
        tmp_path: "is a folder",
        tmp_path / "diary.txt": "something else than runs of MLflow",
        tmp_path / "diary.txt" / "runs.db": "is not a folder",
    }
    for place, message in places.items():
        with pytest.raises(ConfigurationError, match=message):
            Tracker(f"mlflow:{place}")
    assert (tmp_path / "diary.txt").read_text() == "of another program"


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"pip install 'pairmatch\[track\]'"):
        Tracker("wandb")
