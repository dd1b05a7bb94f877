"""Leakage between splits: brute force, re-encoded photos and photos of several people."""

import io
import re
from collections import Counter
from itertools import combinations

import imagehash
import numpy as np
import pytest
from conftest import shared
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pairmatch import Pair, Pairs, Profile, leakage
from pairmatch.core.errors import ImageError
from pairmatch.io.images import load_image


def split(photos):
    """Builds a split of people with photos, each paired with a person without photos."""
    people = [Profile(person, tuple(images)) for person, images in photos.items()]
    partners = [Profile(f"partner of {person}") for person in photos]
    pairs = [Pair(person.id, partner.id) for person, partner in zip(people, partners, strict=True)]
    return Pairs.of([*people, *partners], pairs)


def encoded(image, form="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def scenery(seed, size=(200, 160)):
    """Draws smooth colors with a layout that depends on the seed."""
    noise = np.random.default_rng(seed).integers(0, 255, (7, 9, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def on_white(shape, box, gray):
    image = Image.new("RGB", (256, 256), "white")
    getattr(ImageDraw.Draw(image), shape)(box, fill=(gray, gray, gray))
    return image


people_and_photos = st.dictionaries(
    st.sampled_from("stuvwxyz"),
    st.lists(st.sampled_from([b"1", b"2", b"3"]), max_size=3),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(parts=st.lists(people_and_photos, min_size=2, max_size=4))
def test_identical_photos_match_brute_force(parts):
    expected = {
        (photo, p, q)
        for (p, first_part), (q, second_part) in combinations(enumerate(parts, 1), 2)
        for first, first_photos in first_part.items()
        for second, second_photos in second_part.items()
        for photo in first_photos
        if first != second and photo in second_photos
    }
    sentences = leakage(*map(split, parts), near_duplicate_bits=-1).photos
    reported = [
        re.match(r"'(.)' of split (\d) and '(.)' of split (\d) have the same photo", sentence)
        for sentence in sentences
    ]
    assert Counter((int(m[2]), int(m[4])) for m in reported) == Counter(
        (p, q) for _, p, q in expected
    )
    for first, p, second, q in (m.groups() for m in reported):
        assert first != second
        assert set(parts[int(p) - 1][first]) & set(parts[int(q) - 1][second])


@pytest.mark.parametrize("bits", [0, 2, 4, 12])
def test_near_duplicates_differ_by_at_most_the_given_bits(bits):
    forms = {
        "jpeg": lambda image: encoded(image, quality=15),
        "small": lambda image: encoded(image.resize((60, 48)), quality=60),
        "webp": lambda image: encoded(image, "WEBP", quality=20),
    }
    originals = {f"o{seed}": [encoded(scenery(seed), "PNG")] for seed in range(10)}
    copies = {
        f"{name}{seed}": [form(scenery(seed))] for seed in range(10) for name, form in forms.items()
    }
    expected = {}
    for original, (photo,) in originals.items():
        for copy, (content,) in copies.items():
            hashes = [imagehash.phash(Image.open(io.BytesIO(data))) for data in (photo, content)]
            if hashes[0] - hashes[1] <= bits:
                assert original[-1] == copy[-1]
                expected[original, copy] = str(hashes[0] - hashes[1])
    assert expected
    report = leakage(split(originals), split(copies), near_duplicate_bits=bits)
    sentence = (
        r"'(\w+)' of split 1 and '(\w+)' of split 2 have nearly the same photo \((\d+) of 64 "
        r"bits differ\)"
    )
    matches = [re.fullmatch(sentence, text).groups() for text in report.near_duplicates]
    assert {(original, copy): differing for original, copy, differing in matches} == expected
    assert len(matches) == len(expected)
    assert not report.photos


def test_objects_on_a_white_background_are_distinguished():
    plate = on_white("ellipse", (50, 116, 206, 140), 200)
    shelf = on_white("rectangle", (50, 120, 206, 136), 150)
    assert imagehash.phash(plate) - imagehash.phash(shelf) <= 4  # near-duplicates by the hash alone
    assert not leakage(split({"p": [plate]}), split({"s": [shelf]}))
    copies = [encoded(plate, quality=50), encoded(plate.resize((120, 120)), quality=80)]
    report = leakage(
        split({"p": [plate]}), split({"q": copies, "s": [shelf]}), near_duplicate_bits=16
    )
    assert len(report.near_duplicates) == 2
    assert all("'q'" in sentence for sentence in report.near_duplicates)


def test_colors_distinguish_photos_of_the_same_layout():
    photo = scenery(0)
    tinted = Image.merge("RGB", (photo.getchannel("R").point(lambda v: v // 2), *photo.split()[1:]))
    report = leakage(split({"p": [photo]}), split({"q": [tinted]}), near_duplicate_bits=64)
    assert not report


def test_a_photo_of_many_people_is_reported_once():
    # A placeholder portrait: one sentence per pair of owners would be quadratic
    avatar = encoded(scenery(1))
    reencoded = encoded(scenery(1), quality=30)
    parts = [
        split({f"{part}.{i}": [reencoded if part == 2 else avatar] for i in range(300)})
        for part in range(3)
    ]
    report = leakage(*parts)
    assert report.photos == (
        "'0.0' of split 1 and '1.0' of split 2 have the same photo, like 598 others",
    )
    assert [sentence.split(" have ")[0] for sentence in report.near_duplicates] == [
        "'0.0' of split 1 and '2.0' of split 3",
        "'1.0' of split 2 and '2.0' of split 3",
    ]
    three = leakage(split({"x": [b"1"], "y": [b"1"]}), split({"z": [b"1"]}), near_duplicate_bits=-1)
    assert three.photos == ("'x' of split 1 and 'z' of split 2 have the same photo, like 1 other",)


def test_a_shared_person_does_not_hide_other_owners_of_a_photo():
    photo = encoded(scenery(2))
    reencoded = encoded(scenery(2), quality=40)
    report = leakage(split({"p": [photo]}), split({"p": [photo, reencoded]}))
    assert report.people
    assert not report.photos
    assert not report.near_duplicates
    # The second owner of the photo is reported for any order of people and splits
    for order in (("p", "q"), ("q", "p")):
        crowd = split({person: [photo] for person in order})
        for parts in ((split({"p": [photo]}), crowd), (crowd, split({"p": [photo]}))):
            (sentence,) = leakage(*parts).photos
            assert "'p'" in sentence
            assert "'q'" in sentence


def test_unreadable_photos_are_compared_by_their_bytes(tmp_path):
    (tmp_path / "damaged.jpg").write_bytes(encoded(scenery(3))[:400])
    damaged = split({"p": [tmp_path / "damaged.jpg"]})
    assert not leakage(damaged, split({"q": [scenery(3)]}))
    # Equal bytes are reported without decoding
    assert leakage(damaged, split({"q": [tmp_path / "damaged.jpg"]})).photos
    with pytest.raises(ImageError, match=r"gone\.jpg: No such file"):
        leakage(damaged, split({"q": [tmp_path / "gone.jpg"]}))


def test_reencoded_real_photos_are_detected():
    pairs = Pairs.read(shared("furniture/pairs.csv"), check_images=False)
    train, validation, test = pairs.split(seed=0)
    before = leakage(train, validation, test)
    copied = [person for person in train.people if person.images][::12]
    copies = {}
    for number, person in enumerate(copied):
        image = load_image(person.images[0])
        half = image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)
        copies[f"copy of {person.id}"] = [
            encoded(half, quality=80) if number % 2 else encoded(image, quality=60)
        ]
    report = leakage(train, split(copies)).near_duplicates
    recovered = {
        m[1]
        for sentence in report
        for m in re.finditer(r"'(\S+)' \S+ of split 1 and 'copy of \1'", sentence)
    }
    assert len(recovered) >= 0.95 * len(copied)
    # Recolored products; photos of different products are not near-duplicates
    assert len(before.near_duplicates) <= 5
