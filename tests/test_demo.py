"""The synthetic people of the demo: reproducible, readable, and with the documented taste."""

import json
import re

import numpy as np
import pytest
from skimage.color import rgb2lab
from test_cli import run, unwrapped

from pairmatch import Matcher, Pairs
from pairmatch.core.errors import ConfigurationError
from pairmatch.data import read_profiles
from pairmatch.experiments.demo import draw_people
from pairmatch.io.images import image_size, load_image


def test_equal_seeds_write_equal_files(tmp_path):
    first = draw_people(tmp_path / "first", pairs=4, seed=1, size_px=48).parent
    second = draw_people(tmp_path / "second", pairs=4, seed=1, size_px=48).parent
    different = draw_people(tmp_path / "different", pairs=4, seed=2, size_px=48).parent
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 10
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    assert all((first / file).read_bytes() != (different / file).read_bytes() for file in files)


def test_the_files_can_be_read(tmp_path):
    path = draw_people(tmp_path, pairs=6, size_px=48)
    pairs = Pairs.read(path)
    assert len(pairs) == 6
    assert set(pairs.profiles["a0000"].attributes) == {"age", "region"}
    assert isinstance(pairs.profiles["a0000"].attributes["age"], int)
    candidates = read_profiles(path.parent / "candidates.csv")
    assert [c.id for c in candidates] == list(pairs.ids_b)
    assert candidates[0] == pairs.profiles["b0000"]


def test_photos_have_the_requested_size_and_all_differ(tmp_path):
    path = draw_people(tmp_path, pairs=10, seed=5, size_px=72)
    photos = sorted((path.parent / "images").iterdir())
    assert {image_size(photo) for photo in photos} == {(72, 72)}
    assert len({photo.read_bytes() for photo in photos}) == 20


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"size_px": 8}])
def test_arguments_are_checked_before_writing(tmp_path, wrong):
    with pytest.raises(
        ConfigurationError,
        match=r"pairs must be at least 1 and size_px at least 16, got \d+ and \d+",
    ):
        draw_people(tmp_path / "people", **wrong)
    assert not (tmp_path / "people").exists()


def hue(lab):
    """Hue of the mean color, in degrees of the CIE Lab hue circle."""
    a, b = lab[..., 1].mean(), lab[..., 2].mean()
    return np.degrees(np.arctan2(b, a))


def test_the_taste_is_planted(tmp_path):
    pairs = Pairs.read(draw_people(tmp_path, pairs=120, seed=3, size_px=64))
    gaps: list[float] = []
    backdrops: list[float] = []
    clothes: list[float] = []
    for pair in pairs.pairs:
        a, b = (
            rgb2lab(np.asarray(load_image(pairs.profiles[p].images[0]))) for p in (pair.a, pair.b)
        )
        for person, partner in ((a, b), (b, a)):
            gap = hue(partner[1:8, 2:62]) - hue(person[58:63, 20:44]) - 120
            gaps.append((gap + 180) % 360 - 180)
        backdrops.append((hue(a[1:8, 2:62]) - hue(b[1:8, 2:62]) + 180) % 360 - 180)
        clothes.append((hue(a[58:63, 20:44]) - hue(b[58:63, 20:44]) + 180) % 360 - 180)
    within = [
        np.mean(np.abs(values) < 60) for values in (gaps[::2], gaps[1::2], backdrops, clothes)
    ]
    # Backdrops lie a third of the circle beyond the partner's clothes, from either side.
    assert min(within[:2]) > 0.7
    # Partners do not have similar colors: the share is close to chance, a third.
    assert max(within[2:]) < 0.45


def test_the_taste_is_learnable_but_barely_visible_in_frozen_features(tmp_path):
    pairs = Pairs.read(draw_people(tmp_path / "people", pairs=300, size_px=96))
    train, validation, test = pairs.split(0.6, 0.1, seed=0)
    matcher = Matcher(backbone="descriptor", metadata=None, store=tmp_path / "store.sqlite").fit(
        train, validation
    )
    evaluation = matcher.evaluate(test, resamples=0)
    chance = evaluation.chance.recall[10]
    frozen = evaluation.frozen.both.recall[10]
    trained = evaluation.both.recall[10]
    assert trained > 1.8 * chance
    assert trained > 1.5 * frozen
    assert frozen < 1.8 * chance
    assert trained < 0.9  # a demo that is always right would not be realistic


@pytest.mark.slow
def test_the_demo_of_a_log_runs_the_whole_job(tmp_path):
    output = run(f"demo --log --pairs 250 --seed 2 --output {tmp_path / 'demo'} --quiet")
    assert "5,000 rows" in output
    assert "Split by time at 2026-03-02" in output
    assert "People who were seen in training:" in output
    saved = json.loads((tmp_path / "demo" / "matcher.json").read_text())["metrics"]
    assert saved["both"]["mrr"] > 1.5 * saved["chance"]["mrr"]
    best = float(re.search(r"the best MRR of new people is (0\.\d+)", output)[1])
    assert saved["both"]["mrr"] < best < 1
    command = next(line for line in output.splitlines() if line.startswith("  pairmatch fit"))
    words = command.replace(f"--output {tmp_path / 'demo'}", f"--output {tmp_path / 'again'}")
    run(f"{words.removeprefix('  pairmatch ')} --store {tmp_path / 's.sqlite'} --no-learning-curve")
    again = json.loads((tmp_path / "again" / "matcher.json").read_text())["metrics"]
    assert again["both"] == saved["both"]
    text = run(f"demo --log --pairs 100 --output {tmp_path / 'small'}", code=2)
    assert "--log needs --pairs 250 or more" in unwrapped(text)
    assert not (tmp_path / "small").exists()
