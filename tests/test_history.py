"""The table of dated figures: one row per run, appended, and never to a file of others."""

import csv
import datetime
import json

import numpy as np
import pytest
from test_cli import run

from pairmatch import Evaluator, Matcher, PairedFeatures
from pairmatch.core.decisions import Decisions
from pairmatch.core.errors import ConfigurationError
from pairmatch.report import append_figures


@pytest.fixture
def matcher(hash_backbone, small_pairs, tmp_path):
    matcher = Matcher(
        backbone=hash_backbone, metadata=None, learner="whitened", store=tmp_path / "store.sqlite"
    )
    return matcher.fit(small_pairs(12))


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_run_is_one_row(matcher, tmp_path):
    rng = np.random.default_rng(0)
    data = PairedFeatures.of(rng.normal(size=(30, 4)), rng.normal(size=(30, 4)))
    evaluation = Evaluator().evaluate(data)
    short = Evaluator(resamples=0).evaluate(data.take(data.part(data.components[:6])))
    path = tmp_path / "figures.csv"
    day = datetime.datetime(2026, 3, 1, 4, tzinfo=datetime.UTC)
    append_figures(path, matcher, evaluation, time=day)
    append_figures(path, matcher, short)
    yes = np.ones(30, int)
    liked = PairedFeatures.of(data.a, data.b, decisions=Decisions.of(data.matches, yes, yes))
    append_figures(path, matcher, Evaluator(resamples=0).evaluate(liked, target="a_likes"))
    first, second, third = rows_of(path)
    assert [row["target"] for row in (first, second, third)] == ["match", "match", "a_likes"]
    assert first["time"] == "2026-03-01T04:00:00+00:00"
    assert float(first["mrr"]) == pytest.approx(evaluation.both.mrr, abs=1e-4)
    assert float(first["r_at_10_high"]) == pytest.approx(
        evaluation.both.recall_interval[10][1], abs=1e-4
    )
    assert (first["train_matches"], first["train_people"], first["queries"]) == ("12", "24", "60")
    assert second["r_at_10"] == second["mrr_low"] == ""
    assert first["matcher"] == second["matcher"]
    assert len(first["matcher"]) == 12


def test_files_of_others_stay_as_they_are(matcher, tmp_path):
    data = PairedFeatures.of(np.eye(4), np.eye(4))
    for content in ("id,mrr\n", "time"):
        path = tmp_path / "other.csv"
        path.write_text(content)
        with pytest.raises(ConfigurationError, match="no table of figures that pairmatch wrote"):
            append_figures(path, matcher, Evaluator(resamples=0).evaluate(data))
        assert path.read_text() == content


def test_commands_append_to_it(small_pairs, tmp_path):
    pairs = small_pairs(24)
    table = tmp_path / "pairs.csv"
    rows = ["id_a,image_a,id_b,image_b"]
    rows += [f"{p.a},photos/{p.a}.png,{p.b},photos/{p.b}.png" for p in pairs.pairs]
    table.write_text("\n".join(rows))
    figures, output = tmp_path / "figures.csv", tmp_path / "matcher"
    common = f"--images {tmp_path} --store {tmp_path / 's.sqlite'} --quiet --history {figures}"
    fit = f"fit {table} --output {output} --backbone descriptor --learner whitened {common}"
    run(f"{fit} --no-learning-curve --metadata none")
    run(f"evaluate {output} {table} {common}")
    fitted, evaluated = rows_of(figures)
    saved = json.loads((output / "matcher.json").read_text())
    assert float(fitted["mrr"]) == pytest.approx(saved["metrics"]["both"]["mrr"], abs=1e-4)
    assert evaluated["train_matches"] == fitted["train_matches"]
    assert evaluated["queries"] == "48"
    (tmp_path / "notes.csv").write_text("my notes\n")
    text = run(f"evaluate {output} {table} --history {tmp_path / 'notes.csv'}", code=2)
    assert "notes.csv is no table of figures" in text
