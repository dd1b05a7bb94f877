"""Files of vectors: written whole, with what made them, and read as galleries."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pairmatch import Matcher, Pair, Pairs, Profile
from pairmatch.cli import app
from pairmatch.core.errors import ConfigurationError, DataError
from pairmatch.features.poolers import NativePooler
from pairmatch.gallery.export import QdrantTarget, export
from pairmatch.gallery.vectors import read_vectors, write_vectors
from pairmatch.matcher.embedding import embed_to_file


@pytest.fixture
def matcher(hash_backbone, tmp_path):
    people = {
        f"{side}{n}": Profile(f"{side}{n}", text=f"{side}{n}") for side in "ab" for n in range(6)
    }
    pairs = Pairs(people, [Pair(f"a{n}", f"b{n}") for n in range(6)])
    made = Matcher(
        backbone=hash_backbone, metadata=None, learner="cca", store=tmp_path / "store.sqlite"
    )
    return made.fit(pairs)


PEOPLE = [
    Profile("anna", text="x", attributes={"age": 31, "region": "north"}),
    Profile("ben \U0001f600", text="y", attributes={"age": 52.5, "smoker": True}),
    Profile("c", text="z"),
]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".npz"])
@pytest.mark.parametrize("kind", ["embedding", "feature"])
def test_a_file_holds_what_the_matcher_computes(matcher, tmp_path, suffix, kind):
    path = tmp_path / f"v{suffix}"
    assert embed_to_file(matcher, PEOPLE, path, kind=kind, side="b") == 3
    assert path.stat().st_mode & 0o777 == 0o600
    gallery = read_vectors(path)
    expected = matcher.embed(PEOPLE, side="b") if kind == "embedding" else matcher.features(PEOPLE)
    np.testing.assert_array_equal(gallery.embeddings, expected)
    assert gallery.side == "b"
    assert [profile.attributes for profile in gallery] == [p.attributes for p in PEOPLE]
    assert gallery.ids == [p.id for p in PEOPLE]
    if kind == "embedding":
        assert len(matcher.recommend(PEOPLE[0], gallery, 5)) == 2
    else:
        with pytest.raises(ConfigurationError, match="another head"):
            matcher.recommend(PEOPLE[0], gallery, 5)


def test_vectors_of_two_matchers_are_not_mixed(matcher, tmp_path):
    for kind in ("embedding", "feature"):
        embed_to_file(matcher, PEOPLE, tmp_path / f"{kind}.parquet", kind=kind)
    with QdrantTarget(tmp_path / "q") as target:
        export(read_vectors(tmp_path / "embedding.parquet"), target)
        with pytest.raises(ConfigurationError, match="holds other embeddings"):
            export(read_vectors(tmp_path / "feature.parquet"), target)


class Scaled(NativePooler):
    """Native features times a factor."""

    def __init__(self, factor):
        self.factor = factor

    def pool(self, states):
        return self.factor * super().pool(states)

    def fingerprint(self):
        return {"pooler": "scaled", "factor": self.factor}


def test_features_of_other_poolers_weights_or_prompts_are_others(hash_backbone, tmp_path):
    both = {"pooler": [Scaled(1), Scaled(2)]}
    options = [
        {"pooler": Scaled(1)},
        {"pooler": Scaled(2)},
        {"pooler": Scaled(1), "prompt": "{text}!"},
        both,
        {**both, "weights": [1.0, 2.0]},
    ]

    def made_by(changed):
        path = tmp_path / "v.parquet"
        given = {"backbone": hash_backbone, "metadata": None, "store": tmp_path / "s.sqlite"}
        embed_to_file(Matcher(**given, **changed), PEOPLE, path, kind="feature")
        return read_vectors(path).made_by

    different = [made_by(changed) for changed in options]
    assert len(set(different)) == len(options)
    assert [made_by(changed) for changed in options] == different


def test_features_without_a_store_take_one_pass_for_all_poolers(hash_backbone, tmp_path):
    matcher = Matcher(
        backbone=hash_backbone,
        pooler=[Scaled(2), "native"],
        metadata=None,
        store=tmp_path / "s.sqlite",
    )
    fresh = matcher.pipeline.fresh_features(PEOPLE)
    assert hash_backbone.seen == len(PEOPLE)
    np.testing.assert_array_equal(fresh, matcher.features(PEOPLE))


def test_rules_choose_the_people(matcher, tmp_path):
    assert embed_to_file(matcher, PEOPLE, tmp_path / "v.parquet", where="age > 40") == 1
    with pytest.raises(ConfigurationError, match="no person to embed: age > 90"):
        embed_to_file(matcher, PEOPLE, tmp_path / "w.parquet", where="age > 90")
    assert sorted(path.name for path in tmp_path.glob("*.parquet")) == ["v.parquet"]


def test_a_failed_run_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "v.parquet"
    about = {"kinds": {}, "side": "b", "kind": "embedding", "made_by": None}
    chunk = (["a"], [{}], np.ones((1, 2), np.float32))
    write_vectors(path, [chunk], **about)
    before = path.read_bytes()

    def failing():
        yield chunk
        raise RuntimeError("the machine stops")

    with pytest.raises(RuntimeError):
        write_vectors(path, failing(), **about)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"ends in \.parquet, \.arrow, \.npz"):
        read_vectors(tmp_path / "v.csv")
    for suffix in (".parquet", ".arrow", ".npz"):
        path = tmp_path / f"other{suffix}"
        path.write_bytes(b"no vectors")
        with pytest.raises(DataError, match="no file of vectors"):
            read_vectors(path)


def test_the_commands(tmp_path):
    table = tmp_path / "people.csv"
    table.write_text("id,age,region\nanna,31,north\nben,52,south\nanna,1,north\n")
    run = CliRunner().invoke
    backbone = [
        "--backbone",
        "attributes",
        "--metadata",
        "none",
        "--store",
        str(tmp_path / "s.sqlite"),
    ]
    output = tmp_path / "vectors.parquet"
    call = ["embed", str(table), *backbone, "--output", str(output), "--quiet"]
    result = run(app, call)
    assert result.exit_code == 2
    assert "twice" in result.output
    rows = [f"p{n},{20 + n},{'north' if n % 2 else 'south'}\n" for n in range(40)]
    table.write_text("id,age,region\n" + "".join(rows))
    result = run(app, call)
    assert result.exit_code == 0, result.output
    assert pq.read_table(output)["id"].to_pylist() == [f"p{n}" for n in range(40)]
    result = run(app, ["export", str(output), "--to", f"qdrant:{tmp_path / 'q'}", "--quiet"])
    assert result.exit_code == 0, result.output
    assert "Exported 40 people" in result.output
    result = run(app, ["embed", str(table), "--kind", "embedding", "-o", str(output)])
    assert result.exit_code == 2
    assert "--matcher" in result.output
