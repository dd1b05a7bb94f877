"""Blocks of features: where they come from, that they are kept, and what `best` makes of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import HashBackbone

from pairmatch import Matcher, PairedFeatures
from pairmatch.cli.options import parts_of
from pairmatch.core import registry
from pairmatch.core.errors import ConfigurationError
from pairmatch.core.feature_blocks import FeatureBlock, feature_blocks
from pairmatch.core.joining import join_features
from pairmatch.core.types import TokenStates
from pairmatch.evaluation.query_table import embed_sides
from pairmatch.evaluation.targets import aim_at
from pairmatch.experiments.rows import digest_features
from pairmatch.learning.best import Best, fit_bases
from pairmatch.learning.block_bases import block_shares, linear_bases, telling_blocks
from pairmatch.learning.heads import build_head, describe_head
from pairmatch.learning.stacking import StackedHead
from pairmatch.matcher.building import build_backbones
from pairmatch.testing import check_head

LOAD = registry.load

BLOCKS = feature_blocks(["photo", "text", "noise"], [12, 8, 40])


def couples(pairs=150, *, noise=0.8, seed=0):
    """Photo and text show two tastes each, which partners share; 40 columns show nothing."""
    rng = np.random.default_rng(seed)
    looks = rng.standard_normal((2, 2, 12)), rng.standard_normal((2, 2, 8))
    taste = rng.standard_normal((2, pairs, 2))
    sides = []
    for _ in range(2):
        columns = [
            taste[kind] @ looks[kind][0] + noise * rng.standard_normal((pairs, width))
            for kind, width in ((0, 12), (1, 8))
        ]
        columns.append(rng.standard_normal((pairs, 40)))
        sides.append(
            np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True) for x in columns], axis=1)
        )
    return PairedFeatures.of(*sides, blocks=BLOCKS)


def test_blocks_are_kept_with_people_and_dropped_with_columns():
    data = couples(30)
    part = data.part(data.components[:10])
    whole, _ = join_features([data.take(part), data.take(data.part(data.components[10:]))])
    for kept in (
        data.take(part),
        whole,
        data.with_units(np.arange(60) // 2),
        aim_at(data, "match"),
        data.with_features(data.a, data.b, BLOCKS),
    ):
        assert kept.blocks == BLOCKS
    assert data.with_features(data.a, data.b).blocks == (FeatureBlock("features", 0, 60),)
    chosen = data.of_blocks([BLOCKS[0], BLOCKS[2]])
    assert np.array_equal(chosen.b, np.delete(data.b, np.arange(12, 20), axis=1))
    assert chosen.blocks == (FeatureBlock("photo", 0, 12), FeatureBlock("noise", 12, 52))
    one_sided = PairedFeatures.of(data.a, matches=[(0, 1)], blocks=BLOCKS)
    assert one_sided.of_blocks(BLOCKS[2:]).b is None


def test_equal_names_are_numbered():
    names = [block.name for block in feature_blocks(["clip/native", "a", "clip/native"], [1, 2, 3])]
    assert names == ["clip/native", "a", "clip/native 2"]


@pytest.mark.parametrize(
    ("blocks", "reason"),
    [
        ([FeatureBlock("a", 0, 4), FeatureBlock("a", 4, 6)], "'a' is used twice"),
        ([FeatureBlock("", 0, 6)], "a block has no name"),
        ([FeatureBlock("a", 0, 4), FeatureBlock("b", 3, 6)], "'b' starts at column 3 and"),
        ([FeatureBlock("a", 0, 4), FeatureBlock("b", 5, 6)], "'b' starts at column 5 and"),
        ([FeatureBlock("a", 1, 6)], "'a' starts at column 1 instead of 0"),
        ([FeatureBlock("a", 0, 5)], "'a' stops at column 5 of 6"),
        ([FeatureBlock("a", 0, 0), FeatureBlock("b", 0, 6)], "'a' has no columns"),
    ],
)
def test_bad_blocks(blocks, reason):
    with pytest.raises(ConfigurationError, match=reason):
        PairedFeatures.of(np.ones((3, 6)), np.ones((3, 6)), blocks=blocks)


def test_every_problem_of_blocks_is_named():
    blocks = [FeatureBlock("a", 1, 4), FeatureBlock("a", 5, 9)]
    with pytest.raises(ConfigurationError) as error:
        PairedFeatures.of(np.ones((3, 6)), np.ones((3, 6)), blocks=blocks)
    for part in ("used twice", "instead of 0", "column 5 and", "column 9 of 6", "feature_blocks("):
        assert part in str(error.value)


def test_features_of_different_sources_are_not_joined():
    data = couples(10)
    other = data.with_features(data.a, data.b)
    with pytest.raises(ConfigurationError, match=r"photo \(12\), text \(8\).* and features \(60\)"):
        join_features([data, other])


def test_stored_rows_depend_on_the_borders_of_blocks_alone():
    data = couples(10)
    renamed = replace(data, blocks=feature_blocks(["x", "y", "z"], [12, 8, 40]))
    moved = replace(data, blocks=feature_blocks(["photo", "text", "noise"], [10, 10, 40]))
    assert digest_features(data) == digest_features(renamed)
    plain = data.with_features(data.a, data.b)
    assert len({digest_features(one) for one in (data, moved, plain)}) == 3


def test_one_block_changes_nothing():
    data = couples(60)
    plain = data.with_features(data.a, data.b)
    named = replace(plain, blocks=feature_blocks(["clip/native"], [60]))
    assert telling_blocks(named) == named.blocks
    assert block_shares(named, None) == {}
    heads = [Best(recipe=False).fit(one).head for one in (plain, named)]
    assert heads[0].block_shares == heads[1].block_shares == {}
    assert heads[0].parts.keys() == heads[1].parts.keys()
    for left, right in zip(*(head.state_dict().values() for head in heads), strict=True):
        assert left.equal(right)


def test_bases_of_some_blocks_ignore_the_other_columns():
    data = couples(60)
    heads = fit_bases(data, blocks=BLOCKS[:2])
    shuffled = data.a.copy()
    shuffled[:, 20:] = -3
    for label in ("whitened", "cca 32", "photo: metric 0.1", "text: ridge 1"):
        assert np.array_equal(heads[label].embed(shuffled, "a"), heads[label].embed(data.a, "a"))
    assert block_shares(data, heads["text: ridge 1"]) == {"photo": 0, "text": 1, "noise": 0}
    assert set(block_shares(data, heads["ridge 1"])) == {"photo", "text", "noise"}
    assert block_shares(data, heads["ridge 1"])["noise"] == 0
    assert not any(label.startswith("noise") for label in heads)
    # What the joined bases learn is what they learn without the other columns
    alone = fit_bases(data.of_blocks(BLOCKS[:2]))["cca 32"].embed(data.a[:, :20], "a")
    assert np.allclose(heads["cca 32"].embed(data.a, "a"), alone, atol=1e-6)


@pytest.mark.parametrize("one_sided", [False, True])
def test_blocks_that_tell_nothing_are_found(one_sided):
    found = []
    for seed in range(20):
        data = couples(80, seed=seed)
        if one_sided:
            matches = np.stack([np.arange(80), 80 + np.arange(80)], axis=1)
            both = np.concatenate([data.a, data.b])
            data = PairedFeatures.of(both, matches=matches, blocks=BLOCKS)
        found.append({block.name for block in telling_blocks(data)})
    assert all({"photo", "text"} <= names for names in found)
    assert sum("noise" in names for names in found) <= 3  # 5 % of 20, and chance


def test_partners_of_one_person_do_not_make_noise_tell():
    """A person stands in several pairs, and partners of one person are alike in their photos."""
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(20):
        liked = rng.standard_normal((20, 12))
        b = np.concatenate(
            [
                np.repeat(liked, 6, axis=0) + 0.3 * rng.standard_normal((120, 12)),
                rng.standard_normal((120, 20)),
            ],
            axis=1,
        )
        a = np.concatenate([liked, rng.standard_normal((20, 20))], axis=1)
        matches = np.stack([np.repeat(np.arange(20), 6), np.arange(120)], axis=1)
        blocks = feature_blocks(["photo", "noise"], [12, 20])
        data = PairedFeatures.of(a, b, matches=matches, blocks=blocks)
        names = [block.name for block in telling_blocks(data)]
        assert "photo" in names
        told += "noise" in names
    assert told <= 3


def test_a_block_that_only_the_other_block_answers_tells():
    """What a person writes decides how partners look, and photos of side a say nothing."""
    rng = np.random.default_rng(0)
    taste, noise = rng.standard_normal((2, 100, 6))
    looks = taste @ np.linalg.qr(rng.standard_normal((6, 6)))[0]
    a, b = np.concatenate([noise, taste], axis=1), np.concatenate([looks, noise[::-1]], axis=1)
    data = PairedFeatures.of(a, b, blocks=feature_blocks(["photo", "text"], [6, 6]))
    assert [block.name for block in telling_blocks(data)] == ["photo", "text"]
    assert Best(recipe=False).fit(data).head.shares


def test_if_no_block_tells_anything_all_are_read():
    rng = np.random.default_rng(3)
    data = PairedFeatures.of(*rng.standard_normal((2, 60, 9)), blocks=feature_blocks("ab", [4, 5]))
    assert telling_blocks(data) == data.blocks


def test_weights_follow_what_blocks_tell_and_noise_gets_none():
    data = couples()
    head = Best(recipe=False).fit(data).head
    assert head.block_shares.keys() == {"photo", "text", "noise"}
    assert sum(head.block_shares.values()) == pytest.approx(1)
    assert head.block_shares["noise"] < 0.01
    assert min(head.block_shares["photo"], head.block_shares["text"]) > 0.2
    assert sum(head.shares.values()) == pytest.approx(1)
    restored = build_head(describe_head(head), dim=data.dim).eval()
    restored.load_state_dict(head.state_dict())
    assert restored.block_shares == head.block_shares
    for before, after in zip(embed_sides(data, head), embed_sides(data, restored), strict=True):
        assert np.array_equal(before, after)


def test_head_of_columns_conforms():
    parts = {"a": ("metric", {"rank": 2}), "b": ("partner-map", {})}
    check_head(lambda dim: StackedHead(dim=dim, parts=parts, columns=[(1, 2), (3, 5)]))
    for columns in ([(2, 2)], [(0, 1), (-1, 3)], [(0, 7)]):
        with pytest.raises(ConfigurationError, match="ranges ascend from 0 to dim"):
            StackedHead(dim=6, parts=parts, columns=columns)


class Layers(HashBackbone):
    """Returns a pooled output, token states and the layers that it was asked for."""

    def __init__(self, *, layers=()):
        super().__init__()
        self.layers = tuple(layers)

    def forward(self, batch):
        pooled = super().forward(batch).pooled
        states = torch.stack([pooled, 3 * pooled], dim=1)
        return TokenStates(
            states=states,
            mask=torch.ones(states.shape[:2], dtype=torch.bool),
            pooled=pooled,
            layers={layer: states + layer for layer in self.layers},
        )


def plain(tmp_path, **options):
    return Matcher(metadata=None, store=tmp_path / "store.sqlite", **options)


def test_one_backbone_with_several_poolers_runs_once(tmp_path, small_pairs):
    pairs = small_pairs(6)
    backbone = Layers(layers=[2])
    poolers = ["native", "mean", ("mean", {"layer": 2})]
    matcher = plain(tmp_path, backbone=backbone, pooler=poolers, learner="ridge")
    data = matcher.paired_features(pairs)
    assert backbone.seen == 12
    names = [block.name for block in data.blocks]
    assert names == ["Layers/native", "Layers/mean", "Layers/mean layer 2"]
    assert len(matcher.extraction_requests(pairs.people)) == 1
    native, mean, layer = (data.a[:, block.columns] for block in data.blocks)
    assert np.allclose(native, mean, atol=1e-6)  # unit length, and the mean is 2 * native
    assert not np.allclose(mean, layer, atol=0.1)
    assert np.array_equal(matcher.features([pairs.profiles[i] for i in pairs.ids_a]), data.a)
    assert backbone.seen == 12


def test_equal_specs_are_one_backbone_and_layers_of_poolers_are_returned(monkeypatch):
    monkeypatch.setattr(
        registry, "load", lambda kind, name: Layers if name == "x" else LOAD(kind, name)
    )
    backbones, poolers = build_backbones(
        ["x", ("x", {"layers": [5]}), "x"], ["native", "mean", ("mean", {"layer": 3})], "cpu"
    )
    assert backbones[0] is backbones[2]
    assert [backbone.layers for backbone in backbones] == [(3,), (5,), (3,)]
    backbones, _ = build_backbones("x", [("mean", {"layer": 7}), ("mean", {"layer": 4})], "cpu")
    assert backbones[0] is backbones[1]
    assert backbones[0].layers == (4, 7)
    assert len(poolers) == 3


def test_a_head_of_several_backbones_is_saved_served_and_weighted(tmp_path, small_pairs):
    pairs = small_pairs(30)
    options = {"backbone": ["descriptor", ("descriptor", {"size_px": 56})]}
    matcher = plain(tmp_path, **options, learner="ridge").fit(pairs)
    # Random photos predict nothing: a head of all blocks stands for what `best` learns
    data = matcher.paired_features(pairs)
    heads = linear_bases(data, data.blocks, lambda _: {})
    assert [label for label in heads if "whitened" in label] == [
        "descriptor/native: whitened",
        "descriptor/native 2: whitened",
    ]
    head = StackedHead.joined(heads, np.arange(1.0, 9.0), np.ones(8))
    head.block_shares = block_shares(data, head)
    matcher.head = head
    matcher.save(tmp_path / "saved")
    loaded = Matcher.load(tmp_path / "saved", store=tmp_path / "store.sqlite")
    assert loaded.head.block_shares == head.block_shares
    assert loaded.head.block_shares.keys() == {"descriptor/native", "descriptor/native 2"}
    people = [pairs.profiles[i] for i in pairs.ids_b]
    query = pairs.profiles["a3"]
    lists = [one.recommend(query, one.gallery(people), 5) for one in (matcher, loaded)]
    before, after = ([(one.profile.id, one.score) for one in best] for best in lists)
    assert before == after
    weighted = plain(tmp_path, **options, weights=[1.0, 0.5], learner="ridge")
    second = data.blocks[1].columns
    assert np.allclose(weighted.paired_features(pairs).a[:, second], 0.5 * data.a[:, second])


def test_poolers_of_the_command_line_have_options_of_their_own():
    named = parts_of(
        backbones=["qwen3-vl-2b"], poolers=["mean", "mean layer=14"], settings=["pooler.layer=7"]
    )
    assert named["pooler"] == [("mean", {"layer": 7}), ("mean", {"layer": 14})]
    with pytest.raises(ConfigurationError, match=r"got 'pooler\.layer'"):
        parts_of(poolers=["mean layer"])
