"""The backbone `attributes`: columns, what is learned from whom, what a saved matcher reveals."""

import csv
import json
import re
import shlex
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pytest
import torch
from conftest import HashBackbone
from sklearn.impute import MissingIndicator
from sklearn.preprocessing import MultiLabelBinarizer, OneHotEncoder, StandardScaler
from typer.testing import CliRunner

from pairmatch import FeatureStore, Matcher, Pair, Pairs, Profile, TokenStates
from pairmatch.backbones.attributes import AttributesBackbone
from pairmatch.cli import app
from pairmatch.core.errors import ConfigurationError, DataError, NotFittedError
from pairmatch.core.types import Item
from pairmatch.experiments import sweep as sweeps
from pairmatch.features.extractor import ExtractionRequest, plan_extractions
from pairmatch.features.poolers import NativePooler
from pairmatch.matcher.records import without_folders
from pairmatch.testing import check_backbone


def items(values, name="x"):
    """People with one attribute; without it where the value is None."""
    return [Item(attributes={} if value is None else {name: value}) for value in values]


def fitted(values, **options):
    return AttributesBackbone(**options).fit(items(values))


def encode(backbone, values):
    """[N, P] columns for values of the attribute x."""
    return backbone.forward(backbone.prepare(items(values))).pooled.numpy()


def people(count, seed=0):
    """People of both sides with correlated attributes of all kinds, and gaps."""
    rng = np.random.default_rng(seed)
    profiles = []
    for number in range(count):
        taste = rng.random(3)
        for side in "ab":
            chosen = rng.random(3) < taste
            attributes = {
                "age": int(25 + 30 * taste[0] + rng.normal()),
                "hobbies": "; ".join(np.array(["hiking", "cooking", "art"])[chosen]),
                "region": str(rng.choice(["north", "south"])),
                "born": f"{rng.integers(1960, 2000)}-05-01",
                "smoker": bool(rng.random() < taste[1]),
                "religion": str(rng.choice(["faith one", "faith two"])),
            }
            if rng.random() < 0.3:
                del attributes["born"]
            profiles.append(Profile(f"{side}{number}", attributes=attributes))
    return profiles


def pairs_of(profiles):
    return Pairs.of(profiles, [Pair(f"a{i}", f"b{i}") for i in range(len(profiles) // 2)])


@pytest.mark.parametrize("options", [{}, {"leave_out": ["region", "smoker"]}])
def test_the_backbone_conforms(options):
    check_backbone(AttributesBackbone(**options))


def test_categories_are_those_of_one_hot_encoder_with_rare_ones_folded():
    values = ["north"] * 40 + ["south"] * 25 + ["east"] * 6 + ["west"] * 5 + ["island"]
    oracle = OneHotEncoder(
        min_frequency=10, handle_unknown="infrequent_if_exist", sparse_output=False
    )
    train = oracle.fit_transform(np.array(values)[:, None])
    backbone = fitted(values)
    assert backbone.encodings["x"]["shares"].keys() == {"north", "south"}
    tested = ["south", "island", "never seen", "north"]
    expected = oracle.transform(np.array(tested)[:, None]) - train.mean(0)
    assert np.allclose(encode(backbone, tested), expected, atol=1e-6)


def test_sets_are_those_of_multi_label_binarizer():
    rng = np.random.default_rng(0)
    names = ["art", "cooking", "hiking", "yoga"]
    sets = [{name for name in names if rng.random() < 0.5} or {"art"} for _ in range(80)]
    train = MultiLabelBinarizer().fit_transform(sets)
    variance = train.var(0).sum()
    assert variance < 1  # nothing is scaled
    expected = train - train.mean(0)
    for written in (sets, [sorted(s) for s in sets], ["; ".join(s) for s in sets]):
        assert np.allclose(encode(fitted(written), written), expected, atol=1e-6)
    many = [{f"{number}" for number in range(30) if rng.random() < 0.5} or {"0"} for _ in sets]
    assert encode(fitted(many), many).var(0).sum() == pytest.approx(1, abs=1e-5)


def test_numbers_are_those_of_standard_scaler_and_missing_indicator():
    rng = np.random.default_rng(0)
    values = np.where(rng.random(300) < 0.2, np.nan, rng.uniform(20, 60, 300))
    backbone = fitted([None if np.isnan(v) else float(v) for v in values])
    columns = encode(backbone, values)
    known = ~np.isnan(values)
    ordered = np.sort(values[known])
    tail = int(np.ceil(0.05 * len(ordered)))
    oracle = StandardScaler().fit(values.clip(ordered[tail], ordered[-1 - tail])[:, None])
    assert np.allclose(columns[known, 0], oracle.transform(values[:, None])[known, 0], atol=1e-5)
    assert not columns[~known, 0].any()
    missing = MissingIndicator().fit_transform(values[:, None]).astype(float)
    assert np.allclose(columns[:, 1:], missing - missing.mean(), atol=1e-6)


def test_an_outlier_neither_stretches_the_scale_nor_leaves_it():
    values = [float(age) for age in range(20, 60)] * 5
    columns = encode(fitted([*values, 1e9]), [30, 1e9, 1e308])
    assert np.allclose(columns[0], encode(fitted(values), [30]), atol=0.02)
    assert columns[1:, 0].tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    "others", [[], [0] * 400, [0] * 25], ids=["alone", "of nearly equal people", "of few people"]
)
def test_the_largest_value_cannot_be_read(others):
    values = [*others, *range(1, 13)]
    learned = fitted([*values, 123_456_789]).encodings["x"]
    assert learned == fitted([*values, 987_654_321]).encodings["x"]
    assert 0 < learned["scale"] < 10


def test_dates_are_ages_on_any_day():
    days = [date(1960 + number, 5, 1) for number in range(40)]
    texts = [day.isoformat() for day in days]
    times = [datetime(day.year, 5, 1, 23, tzinfo=UTC) for day in days]
    columns = encode(fitted(texts), texts)
    assert np.allclose(np.diff(columns[:, 0]), np.diff(columns[:, 0])[0], atol=1e-3)
    assert columns[0, 0] > 0 > columns[-1, 0]  # older is larger
    for values in (days, times, [f"{text} 10:00" for text in texts]):
        assert np.array_equal(encode(fitted(values), values), columns)
    assert encode(fitted(texts), ["1979-02-31", "soon", None, 7]).tolist() == [[0.0]] * 4


def test_odd_values_never_fail():
    numbers = fitted([*range(50), *[None] * 10])
    missing = encode(numbers, [None])[0]
    odd = ["tall", "", float("nan"), float("inf"), True, [], ["a", "b"], {}, 10**400, "\ud800"]
    assert (encode(numbers, odd) == missing).all()
    assert np.array_equal(
        encode(numbers, ["30", Decimal(30), np.float32(30)]), encode(numbers, [30] * 3)
    )
    choices = fitted(["yes"] * 20 + ["no"] * 20)
    none = encode(choices, [None])[0]
    assert not none.any()
    assert (encode(choices, [float("nan"), " ; ", [], {None}]) == none).all()
    unknown = encode(choices, ["maybe"])[0]
    odd = [3, 3.5, True, 10**30, "\ud800", [["deep"]], Decimal("0.1")]
    assert (encode(choices, odd) == unknown).all()
    assert np.array_equal(
        encode(choices, [" YES ", ["yes"], "yes;YES"]), encode(choices, ["yes"] * 3)
    )


def test_whole_numbers_are_one_category_however_they_are_written():
    backbone = fitted(["5"] * 20 + ["code x"] * 20)
    assert len(np.unique(encode(backbone, [5, 5.0, "5", Decimal("5.0")]), axis=0)) == 1


def test_attributes_that_training_people_did_not_have_change_nothing():
    backbone = fitted(list(range(40)))
    known = backbone.prepare([Item(attributes={"x": 3})])
    assert torch.equal(backbone.prepare([Item(attributes={"x": 3, "new": "value"})]), known)
    assert backbone.prepare([Item()]).tolist() == [[0.0]]


@pytest.mark.parametrize(
    "values",
    [
        [*range(9), *[None] * 31],  # 9 people have a value
        [7] * 31 + list(range(9)),  # 9 people differ from the others
        ["rare"] * 9 + ["common"] * 91,
        [True] * 9 + [False] * 91,
        [f"text {number}" for number in range(100)],
        [None] * 100,
    ],
)
def test_columns_tell_at_least_ten_people_from_ten_others(values):
    training = [Item(attributes={"x": value, "y": row % 2}) for row, value in enumerate(values)]
    learned = AttributesBackbone().fit(training).encodings
    x = learned.get("x", {})
    assert learned.keys() - {"x"} == {"y"}
    assert "mean" not in x
    assert not x.get("shares")
    with pytest.raises(DataError, match=r"at least 10 of them from 10 others \(attributes: \w+"):
        fitted([value for value in values if value is not None][:19] or [1])


def test_nothing_of_fewer_than_ten_people_is_in_a_saved_matcher(tmp_path):
    profiles = people(60)
    rare = [
        ("diagnosis", ["lupus", "asthma"]),
        ("salary", [987_654_321]),
        ("note", [f"secret {number}" for number in range(120)]),
        ("hobbies", ["falconry; hiking"] * 9),
    ]
    for name, values in rare:
        for profile, value in zip(profiles, values, strict=False):
            profile.attributes[name] = value
    matcher = Matcher(backbone="attributes", learner="ridge", store=tmp_path / "s.sqlite")
    matcher.fit(pairs_of(profiles)).save(tmp_path / "m")
    text = "".join(file.read_text() for file in (tmp_path / "m").glob("[mR]*"))
    text = re.sub("[0-9a-f]{64}", "", text)  # digests
    assert "hiking" in text
    for word in ("lupus", "asthma", "987", "secret", "falconry", "salary", "a17"):
        assert word not in text


def test_only_training_people_are_learned_from(tmp_path):
    profiles = people(80)
    for profile in profiles[100:]:
        profile.attributes.update(region="test land", age=400)
    train = Pairs.of(profiles[:100], [Pair(f"a{i}", f"b{i}") for i in range(50)])
    rest = Pairs.of(profiles[100:], [Pair(f"a{i}", f"b{i}") for i in range(50, 80)])
    options = {"backbone": "attributes", "learner": "ridge", "store": tmp_path / "s.sqlite"}
    matcher = Matcher(**options).fit(train, rest)
    assert matcher.backbones[0].encodings == Matcher(**options).fit(train).backbones[0].encodings
    learned = matcher.backbones[0].encodings
    matcher.evaluate(rest)
    assert matcher.backbones[0].encodings is learned
    assert "test land" not in json.dumps(learned)
    assert learned["age"]["mean"] < 60


def test_a_saved_matcher_gives_identical_vectors(tmp_path):
    profiles = people(60)
    train = pairs_of(profiles)
    # Names that mean something in the record of a matcher, and values that look like paths
    for number, profile in enumerate(profiles):
        profile.attributes.update(device=number % 3, title="/lead" if number % 2 else "/dev/null")
    backbone = ("attributes", {"leave_out": ["religion"]})
    matcher = Matcher(backbone=backbone, learner="ridge", store=tmp_path / "s.sqlite").fit(train)
    matcher.save(tmp_path / "m")
    loaded = Matcher.load(tmp_path / "m", store=tmp_path / "other.sqlite")
    assert np.array_equal(loaded.features(profiles), matcher.features(profiles))
    assert np.array_equal(loaded.embed(profiles), matcher.embed(profiles))
    assert loaded.backbones[0].encodings == matcher.backbones[0].encodings
    assert {"device", "title"} <= loaded.backbones[0].encodings.keys()
    assert loaded.backbones[0].leave_out == ("religion",)
    used = "encodings of age, born, device, hobbies, region, smoker, title"
    assert used in (tmp_path / "m" / "README.md").read_text()
    assert loaded.summary()["Backbone"] == f"attributes (leave_out=('religion',)); {used}"


def test_what_goes_to_the_hub_is_what_was_learned(tmp_path):
    profiles = people(30)
    for number, profile in enumerate(profiles):
        profile.attributes["title"] = "/lead" if number % 2 else "/dev/null"
    matcher = Matcher(backbone="attributes", learner="ridge", store=tmp_path / "s.sqlite")
    matcher.fit(pairs_of(profiles)).save(tmp_path / "m")
    record = json.loads((tmp_path / "m" / "matcher.json").read_text())
    assert without_folders(record)["parts"]["backbones"] == record["parts"]["backbones"]


def test_a_failed_fit_keeps_the_earlier_matcher(tmp_path):
    train = pairs_of(people(40))
    matcher = Matcher(backbone="attributes", learner="ridge", store=tmp_path / "s.sqlite")
    matcher.fit(train)
    before = matcher.embed(train.people)
    with pytest.raises(DataError, match="can use no attribute of 6 training people"):
        matcher.fit(pairs_of(people(3)))
    assert np.array_equal(matcher.embed(train.people), before)
    earlier = matcher.backbones[0]
    matcher.fit(pairs_of(people(50, seed=1)))
    assert matcher.backbones[0].encodings != earlier.encodings


def test_features_of_two_fits_are_never_mixed(tmp_path):
    store = FeatureStore(tmp_path / "s.sqlite")
    profiles = [Profile(str(age), attributes={"x": age}) for age in range(40)]
    young, old = fitted(list(range(40))), fitted(list(range(40, 80)))
    for backbone in (young, old, young, old):
        columns = store.extract(profiles, backbone, [NativePooler()])[0]
        assert np.array_equal(columns, encode(backbone, list(range(40))))
    assert store.plan(profiles, old, [NativePooler()]).stored == 40


def test_the_key_covers_every_attribute_and_its_type(tmp_path):
    store = FeatureStore(tmp_path / "s.sqlite")
    backbone = fitted(["5"] * 20 + ["5.0"] * 20 + ["six"] * 20)
    values = ["5", 5.0, "5.0", 6, None, float("nan"), {"5", "six"}, {"six", "5"}, date(2000, 1, 1)]
    profiles = [Profile(str(row), attributes={"x": value}) for row, value in enumerate(values)]
    columns = store.extract(profiles, backbone, [NativePooler()])[0]
    assert np.array_equal(columns, encode(backbone, values))
    plan = store.plan(profiles, backbone, [NativePooler()])
    assert plan.inputs == 7  # None and NaN are one, and so is a set in any order
    assert store.plan(profiles, backbone, [NativePooler()]).stored == 7


def test_requests_share_a_pass_only_if_attributes_are_equal(tmp_path):
    store, backbone = FeatureStore(tmp_path / "s.sqlite"), fitted(list(range(40)))
    requests = [
        ExtractionRequest(
            store, [Profile("p", attributes={"x": value})], backbone, [NativePooler()]
        )
        for value in (1, 2, 2)
    ]
    assert len(plan_extractions(requests)) == 2


def test_other_backbones_keep_their_keys_when_attributes_change(tmp_path):
    backbone = HashBackbone()
    store = FeatureStore(tmp_path / "s.sqlite")
    store.extract([Profile("a", text="hi")], backbone, [NativePooler()])
    plan = store.plan([Profile("a", text="hi", attributes={"x": 1})], backbone, [NativePooler()])
    assert plan.stored == 1


def test_attributes_and_another_backbone_are_joined(tmp_path, small_pairs):
    pairs = small_pairs(24)
    profiles = [
        Profile(profile.id, profile.images, attributes={"age": 20 + row // 2})
        for row, profile in enumerate(pairs.people)
    ]
    profiles[3].attributes.clear()  # people without attributes are read, too
    matcher = Matcher(
        backbone=["descriptor", "attributes"], learner="ridge", store=tmp_path / "s.sqlite"
    )
    matcher.fit(Pairs.of(profiles, pairs.pairs))
    features = matcher.features(profiles)
    assert features.shape[1] == 1756 + matcher.backbones[1].dim
    assert np.allclose(np.linalg.norm(features[:, :1756], axis=1), 1, atol=1e-5)
    matcher.save(tmp_path / "m")
    for backbone in (None, [("descriptor", {"size_px": 112}), "attributes"]):
        loaded = Matcher.load(tmp_path / "m", backbone=backbone, store=tmp_path / "s.sqlite")
        assert np.array_equal(loaded.features(profiles), features)


def test_left_out_attributes_change_nothing(tmp_path):
    training = [Item(attributes=dict(profile.attributes)) for profile in people(40)]
    backbone = AttributesBackbone(leave_out=("religion", "age")).fit(training)
    assert backbone.encodings.keys() == {"born", "hobbies", "region", "smoker"}
    facts = dict(training[0].attributes)
    columns = backbone.prepare([Item(attributes=facts)])
    assert torch.equal(backbone.prepare([Item(attributes={**facts, "religion": "other"})]), columns)
    assert AttributesBackbone(leave_out="religion, age").leave_out == ("religion", "age")
    with pytest.raises(ConfigurationError, match=r"'religon'\. Did you mean 'religion'"):
        AttributesBackbone(leave_out="religon").fit(training)
    with pytest.raises(
        ConfigurationError, match="fitted with smoker: to leave them out, fit again"
    ):
        AttributesBackbone(leave_out="smoker", encodings=backbone.encodings)


def test_before_fit_the_backbone_says_so(tmp_path):
    matcher = Matcher(backbone="attributes", head="identity", store=tmp_path / "s.sqlite")
    with pytest.raises(NotFittedError, match="learns scales and categories from training people"):
        matcher.evaluate(pairs_of(people(20)))
    with pytest.raises(NotFittedError):
        _ = matcher.backbones[0].dim


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0.0},
        {"scale": float("nan")},
        {"mean": "31"},
        {"kind": "formula"},
        {"missing": 1.5},
        {"more": 1},
    ],
)
def test_damaged_encodings_are_refused(change):
    learned = fitted(list(range(40))).encodings
    with pytest.raises(ConfigurationError, match="is not what `fit` returns: x"):
        AttributesBackbone(encodings={"x": {**learned["x"], **change}})


def test_cross_validation_and_sweeps_learn_from_all_people(tmp_path):
    pairs = pairs_of(people(40))
    matcher = Matcher(backbone="attributes", learner="ridge", store=tmp_path / "s.sqlite")
    result = matcher.cross_validate(pairs, ["frozen"], repeats=1)
    assert result.metrics("trained").mrr > result.metrics("chance").mrr
    assert matcher.backbones[0].encodings is None
    base = {"backbone": ["attributes"], "learner": "ridge", "metadata": None}
    grid = sweeps.grid(base, {})
    options = {"baselines": ("frozen",), "repeats": 1, "store": tmp_path / "s.sqlite"}
    assert sweeps.plan(pairs, grid, **options).to_extract == 0
    table = sweeps.sweep(pairs, grid, **options)
    assert table.metrics("frozen").mrr == result.metrics("frozen").mrr


def test_a_backbone_that_learns_from_texts_sees_the_prompt(tmp_path, small_pairs):
    class Longest(HashBackbone):
        """Divides lengths of texts by the longest of the training people."""

        learned = ("longest",)
        reads_images = False

        def __init__(self, *, longest=None):
            super().__init__(width=1)
            self.longest = longest

        def fit(self, items):
            return Longest(longest=max(len(item.text) for item in items))

        def prepare(self, items):
            return torch.tensor([[len(item.text) / self.longest] for item in items])

        def forward(self, batch):
            return TokenStates(pooled=batch)

        def fingerprint(self):
            return {"longest": self.longest}

    check_backbone(Longest())
    backbone = Longest()
    matcher = Matcher(
        backbone=backbone, metadata=None, learner="ridge", store=tmp_path / "s.sqlite"
    )
    matcher.fit(small_pairs(8))
    assert backbone.longest is None
    assert matcher.backbones[0].longest == len("Profile: text a0")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A pairs file of ids and a profiles file with attributes only."""
    folder = tmp_path_factory.mktemp("attributes")
    profiles = people(60)
    names = list(profiles[0].attributes)
    for file, header, rows in (
        ("people.csv", ["id", *names], [[p.id, *map(p.attributes.get, names)] for p in profiles]),
        ("pairs.csv", ["id_a", "id_b"], [[f"a{i}", f"b{i}"] for i in range(60)]),
    ):
        with (folder / file).open("w", newline="") as opened:
            csv.writer(opened).writerows([header, *rows])
    return folder


def test_attributes_alone_on_the_command_line(tables):
    def run(line, code=0):
        result = CliRunner().invoke(app, shlex.split(line))
        assert result.exit_code == code, result.output
        return result.output

    files = f"{tables / 'pairs.csv'} --profiles {tables / 'people.csv'}"
    matcher, store = tables / "m", f"--store {tables / 's'} --quiet"
    leave_out = "--set attributes.leave_out=religion,region"
    parts = f"--backbone attributes {leave_out} --learner metric"
    assert "60 pairs of 120 people" in run(f"fit {files} {parts} --output {matcher} {store}")
    record = json.loads((matcher / "matcher.json").read_text())
    learned = record["parts"]["backbones"][0]["learned"]["encodings"]
    assert learned.keys() == {"age", "born", "hobbies", "smoker"}
    assert "faith" not in (matcher / "matcher.json").read_text()
    assert "encodings of age, born" in (matcher / "report.html").read_text()
    assert "120 queries" in run(f"evaluate {matcher} {files} {store}")
    recommend = f"recommend {matcher} --gallery {tables / 'people.csv'} -k 2 {store}"
    person = '--attribute age=30 --attribute "hobbies=art; hiking" --id a0'
    assert "119 of 120 candidates" in run(f"{recommend} {person}")
    assert "needs a photo (--query), a text (--text) or attributes" in run(recommend, 2)
    assert "the query person has none: name them with --attribute" in run(f"{recommend} --text hi")
    assert "fitted with age" in run(
        f"evaluate {matcher} {files} {store} --set attributes.leave_out=age", 2
    )
