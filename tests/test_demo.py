"""The demo's people: drawn alike from equal seeds, readable, and with the taste that the text promises."""

import colorsys

import numpy as np
from PIL import Image

from pairmatch import Pairs
from pairmatch.data import read_profiles
from pairmatch.demo import draw_people


def test_equal_seeds_draw_equal_files(tmp_path):
    one, two, other = (
        draw_people(tmp_path / n, pairs=4, seed=s, size_px=48).parent for n, s in (("x", 1), ("y", 1), ("z", 2))
    )
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 10
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)
    assert any((one / file).read_bytes() != (other / file).read_bytes() for file in files)


def test_the_files_are_what_the_library_reads(tmp_path):
    path = draw_people(tmp_path, pairs=6, size_px=48)
    pairs = Pairs.read(path)
    assert len(pairs) == 6
    assert set(pairs.profiles["a0000"].attributes) == {"age", "region"}
    assert isinstance(pairs.profiles["a0000"].attributes["age"], int)
    candidates = read_profiles(path.parent / "candidates.csv")
    assert [c.id for c in candidates] == list(pairs.ids_b)
    assert candidates[0] == pairs.profiles["b0000"]


def hue(image, y, x):
    red, green, blue = (np.asarray(image)[y, x].reshape(-1, 3).mean(0)) / 255
    return 360 * colorsys.rgb_to_hsv(red, green, blue)[0]


def test_the_taste_is_planted(tmp_path):
    pairs = Pairs.read(draw_people(tmp_path, pairs=60, seed=3, size_px=64))
    gaps = []
    for pair in pairs.pairs:
        a, b = (Image.open(pairs.profiles[person].images[0]) for person in (pair.a, pair.b))
        clothes = hue(a, slice(58, 63), slice(20, 44))
        backdrop = hue(b, slice(1, 8), slice(2, 62))
        gaps.append((backdrop - clothes - 120 + 180) % 360 - 180)
    assert np.median(np.abs(gaps)) < 20  # a third of the circle further on, within noise
    assert np.mean(np.abs(gaps) < 45) > 0.8  # one pair in ten follows no taste
