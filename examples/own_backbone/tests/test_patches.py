"""The conformance check, and the backbone in a matcher, by name."""

import pytest
from pairmatch_patches import PatchesBackbone

from pairmatch import Matcher, Pairs
from pairmatch.experiments.demo import draw_people
from pairmatch.testing import check_backbone


@pytest.mark.parametrize("patch_px", [16, 32])
def test_conformance(patch_px):
    check_backbone(PatchesBackbone(patch_px=patch_px))


def test_patches_must_fill_the_square():
    with pytest.raises(ValueError, match="patch_px must divide size_px"):
        PatchesBackbone(patch_px=7)


def test_backbone_is_created_by_name_and_restored_from_a_saved_matcher(tmp_path):
    pairs = Pairs.read(draw_people(tmp_path / "people", pairs=20, size_px=32))
    store = tmp_path / "store.sqlite"
    matcher = Matcher(backbone=("patches", {"width": 16}), metadata=None, store=store).fit(pairs)
    matcher.save(tmp_path / "saved")
    loaded = Matcher.load(tmp_path / "saved", store=store)
    assert type(loaded.backbones[0]) is PatchesBackbone
    assert (loaded.embed(pairs.people) == matcher.embed(pairs.people)).all()
    matcher.store.close()
    loaded.store.close()
