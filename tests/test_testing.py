"""Conformance checks accept correct parts and explain what is wrong with broken parts."""

import numpy as np
import pytest
import torch
from conftest import HashBackbone

from pairmatch import (
    Backbone,
    ContrastiveLoss,
    MetadataGenerator,
    Pooler,
    ProjectionHead,
    Refusal,
    TokenStates,
)
from pairmatch.core import registry
from pairmatch.core.interfaces import FittedHead, Learner
from pairmatch.core.types import Usage
from pairmatch.learning.losses import InfoNCELoss
from pairmatch.metadata import Metadata
from pairmatch.testing import (
    check_backbone,
    check_head,
    check_learner,
    check_loss,
    check_metadata_generator,
    check_pooler,
)


@pytest.mark.parametrize("name", ["mlp", "linear", "residual", "identity"])
def test_built_in_heads_conform(name):
    check_head(registry.load("heads", name))


@pytest.mark.parametrize("name", ["infonce", "sigmoid", "triplet"])
def test_built_in_losses_conform(name):
    check_loss(registry.create("losses", name))


@pytest.mark.parametrize("name", ["mean", "eos", "image-mean", "text-mean", "native"])
def test_built_in_poolers_conform(name):
    check_pooler(registry.create("poolers", name))
    if name != "native":
        check_pooler(registry.create("poolers", (name, {"layer": 3})))


@pytest.mark.parametrize("name", ["frozen", "centred", "whitened", "cca", "ridge", "popularity"])
def test_built_in_learners_conform(name):
    check_learner(registry.create("learners", name))


def test_the_contrastive_learner_conforms():
    check_learner(registry.create("learners", ("contrastive", {"training": {"epochs": 1}})))


class FunctionHead(ProjectionHead):
    """A head without weights that applies a function."""

    trainable = False

    def __init__(self, function, width=6):
        super().__init__()
        self.function = function
        self.width = width
        self.eval()

    def project(self, h, side):
        return self.function(h, side)


class FixedLearner(Learner):
    """A learner that returns the result of a function."""

    def __init__(self, fitted):
        self.fitted = fitted

    def fit(self, train, validation=None, *, seed=0):
        return self.fitted(train)


def identity(h, side):
    return h


def learner_of(function, width=6):
    return FixedLearner(lambda train: FittedHead(FunctionHead(function, width)))


def test_a_correct_learner_of_an_unregistered_head_conforms():
    check_learner(learner_of(identity))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda h, side: h.double(), "must return float32"),
        (lambda h, side: h[:2], "one vector per person: 5, got 2"),
        (lambda h, side: h[:, : 6 if side == "a" else 4], "projects side b to 4"),
        (lambda h, side: h.sum(1), r"\[people, width\]"),
        (lambda h, side: torch.randn(h.shape), "equal seeds"),
        (lambda h, side: h - h.mean(0) + 1e-3, "depends on the rest of the batch"),
        (lambda h, side: h * float("nan"), "must have unit length"),
    ],
)
def test_broken_heads_of_learners_fail_with_the_reason(function, reason):
    with pytest.raises(AssertionError, match=reason):
        check_learner(learner_of(function))


def test_embeddings_of_zeros_are_accepted():
    check_learner(learner_of(lambda h, side: h * (h[:, :1] > 0)))


def test_heads_with_their_own_embedding_are_checked():
    class Unscaled(FunctionHead):
        def embed(self, features, side, *, rows=8192):
            return np.asarray(features, np.float32)

    class Doubles(FunctionHead):
        def embed(self, features, side, *, rows=8192):
            return super().embed(features, side).astype(float)

    class Modifies(FunctionHead):
        def embed(self, features, side, *, rows=8192):
            vectors = super().embed(features, side)
            features *= 2
            return vectors

    for head, reason in (
        (Unscaled, "unit length"),
        (Doubles, "embed must return float32"),
        (Modifies, "embed modifies its argument"),
    ):
        with pytest.raises(AssertionError, match=reason):
            check_learner(FixedLearner(lambda train, head=head: FittedHead(head(identity))))


def modify(train):
    train.matches[0] = train.matches[1]
    return FittedHead(FunctionHead(identity))


@pytest.mark.parametrize(
    ("fitted", "reason"),
    [
        (lambda train: identity, "must return a FittedHead, got function"),
        (lambda train: FittedHead(identity), "must return a ProjectionHead, got function"),
        (lambda train: FittedHead(FunctionHead(identity).train()), "in evaluation mode"),
        (lambda train: FittedHead(FunctionHead(identity), ("0.3",)), "one mapping per epoch"),
        (lambda train: FittedHead(FunctionHead(identity), (), (3,)), "notes must be strings"),
        (modify, "modifies its arguments"),
    ],
)
def test_broken_results_of_learners_fail_with_the_reason(fitted, reason):
    with pytest.raises(AssertionError, match=reason):
        check_learner(FixedLearner(fitted))


def test_a_learner_must_accept_validation_pairs():
    class NoValidation(FixedLearner):
        def fit(self, train, *, seed=0):
            return self.fitted(train)

    with pytest.raises(TypeError, match="positional"):
        check_learner(NoValidation(lambda train: FittedHead(FunctionHead(identity))))


def test_a_registered_head_must_hold_all_its_weights(install):
    site = install("forgetful", {"pairmatch.heads": {"forgetful": "forgetful_head:Forgetful"}})
    (site / "forgetful_head.py").write_text(
        "from pairmatch import ProjectionHead\n"
        "class Forgetful(ProjectionHead):\n"
        "    trainable = False\n"
        "    def __init__(self, *, dim):\n"
        "        super().__init__()\n"
        "        self.dim = self.width = dim\n"
        "        self.mean = 0.0\n"
        "    def project(self, h, side):\n"
        "        return h - self.mean\n"
    )

    def fitted(train):
        from forgetful_head import Forgetful

        head = Forgetful(dim=train.dim)
        head.mean = 0.5
        return FittedHead(head.eval())

    with pytest.raises(
        AssertionError, match=r"differs after it is rebuilt from \('forgetful', {}\)"
    ):
        check_learner(FixedLearner(fitted))


def test_the_plugin_conforms(example_plugin):
    check_backbone(registry.create("backbones", "mean-color"))
    check_loss(registry.create("losses", "cosine-gap"))


class Good(Backbone):
    """A correct backbone; each broken backbone below changes a single detail."""

    default_pooler = "native"

    def __init__(self, *, width: int = 3):
        self.width = width

    @property
    def dim(self):
        return self.width

    def prepare(self, items):
        from pairmatch.io.images import load_image

        return [
            np.asarray(load_image(item.images[0]).resize((1, 1)), np.float32).ravel()
            for item in items
        ]

    def forward(self, batch):
        return TokenStates(pooled=torch.from_numpy(np.stack(batch)))

    def fingerprint(self):
        return {"backbone": "good"}


def broken(**changes):
    return type("Broken", (Good,), changes)()


COUNTER = iter(range(1000))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"default_pooler": "mean"}, "its default pooler must be 'native'"),
        ({"dim": property(lambda self: 4)}, r"pooled must be \[4, 4\], got \[4, 3\]"),
        ({"forward": lambda self, batch: torch.ones(4, 3)}, "must return TokenStates, got Tensor"),
        ({"forward": lambda self, batch: TokenStates()}, "returns neither states nor pooled"),
        (
            {
                "forward": lambda self, batch: TokenStates(
                    pooled=torch.from_numpy(np.stack(batch) - np.mean(batch))
                )
            },
            "depends on the rest of the batch",
        ),
        (
            {
                "forward": lambda self, batch: TokenStates(
                    pooled=torch.full((len(batch), 3), torch.nan)
                )
            },
            "not finite",
        ),
        (
            {
                "forward": lambda self, batch: TokenStates(
                    pooled=torch.zeros(len(batch), 3).add_(float(next(COUNTER)))
                )
            },
            "different output for the same input",
        ),
        (
            {"forward": lambda self, batch: TokenStates(states=torch.ones(len(batch), 2, 3))},
            "without a mask",
        ),
        ({"fingerprint": lambda self: {"at": next(COUNTER)}}, "differs between two calls"),
        ({"fingerprint": lambda self: {"what": object()}}, "only JSON values"),
        ({"fingerprint": lambda self: {}}, "is empty"),
        ({"length": lambda self, item: 0}, "at least 1, got 0"),
        (
            {"__init__": lambda self, *, size=3: setattr(self, "width", size)},
            "store its argument 'size'",
        ),
    ],
)
def test_broken_backbones_fail_with_the_reason(changes, reason):
    check_backbone(Good())
    with pytest.raises(AssertionError, match=reason):
        check_backbone(broken(**changes))


class Centered(Good):
    """A correct backbone that subtracts the mean width of training people's first photos."""

    learned = ("mean",)

    def __init__(self, *, mean=None):
        super().__init__()
        self.mean = mean

    def fit(self, items):
        return type(self)(mean=float(np.mean([item.images[0].width for item in items])))

    def forward(self, batch):
        pooled = super().forward(batch).pooled
        return TokenStates(pooled=pooled - 0.001 * self.mean)

    def fingerprint(self):
        return {"backbone": "centered", "mean": self.mean}


class FitsItself(Centered):
    def fit(self, items):
        self.mean = 1.0
        return self


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"learned": ()}, "fit is never called, because `learned` names no argument"),
        (
            {"learned": ("scale",)},
            r"learned names \['scale'\], which the constructor does not take",
        ),
        ({"fit": lambda self, items: 3}, "fit must return a Broken, got int"),
        ({"fit": FitsItself.fit}, "fit must not change the backbone itself"),
        ({"fingerprint": lambda self: {"backbone": "c"}}, "what fit learns is not in fingerprint"),
        (
            {"fingerprint": lambda self: {"is_fitted": self.mean is not None}},
            "equal fingerprints, but what was learned and the output differ",
        ),
        (
            {"fit": lambda self, items: type(self)(mean=np.random.default_rng().random())},
            "fit learns something else from the same people",
        ),
    ],
)
def test_backbones_that_learn_wrongly_fail_with_the_reason(changes, reason):
    check_backbone(Centered())
    with pytest.raises(AssertionError, match=reason):
        check_backbone(type("Broken", (Centered,), changes)())


def test_what_a_backbone_learned_must_survive_json():
    class InTuples(Centered):
        def fit(self, items):
            return type(self)(mean=(0.5, 0.5))

        def forward(self, batch):
            is_tuple = isinstance(self.mean, tuple)
            return TokenStates(pooled=Good.forward(self, batch).pooled + is_tuple)

    with pytest.raises(AssertionError, match="differs after what it learned is written as JSON"):
        check_backbone(InTuples())
    InTuples.fit = lambda self, items: type(self)(mean={1, 2})
    InTuples.fingerprint = lambda self: {"mean": repr(self.mean)}
    with pytest.raises(AssertionError, match="what fit learns must be JSON values"):
        check_backbone(InTuples())


def test_a_backbone_that_trains_fails():
    class Trains(Good):
        def forward(self, batch):
            with torch.inference_mode(False), torch.enable_grad():
                weight = torch.ones(3, requires_grad=True)
                return TokenStates(pooled=torch.from_numpy(np.stack(batch)) * weight)

    with pytest.raises(AssertionError, match="requires a gradient, but a backbone is frozen"):
        check_backbone(Trains())


def test_broken_poolers_fail():
    class PoolsPadding(Pooler):
        def pool(self, states):
            return states.states.mean(1)

        def fingerprint(self):
            return {"pooler": "bad"}

    with pytest.raises(AssertionError, match="padding changes the pooled vector"):
        check_pooler(PoolsPadding())

    class Guesses(PoolsPadding):
        def pool(self, states):
            return torch.ones(3, 5)

    with pytest.raises(AssertionError, match="must raise ConfigurationError"):
        check_pooler(Guesses())


def test_broken_heads_fail():
    class Wrong(ProjectionHead):
        treats_sides_alike = True

        def __init__(self, *, dim):
            super().__init__()
            self.dim, self.width = dim, 4
            self.layer = torch.nn.Linear(dim, 5)

        def project(self, h, side):
            return self.layer(h)

    with pytest.raises(AssertionError, match=r"output must be \[B, width = 4\], got \[6, 5\]"):
        check_head(Wrong)

    class Unequal(Wrong):
        def __init__(self, *, dim):
            super().__init__(dim=dim)
            self.width = 5

        def project(self, h, side):
            return self.layer(h) * (1 if side == "a" else 2)

    with pytest.raises(AssertionError, match="treats_sides_alike is true"):
        check_head(Unequal)


def test_broken_losses_fail():
    class Blind(ContrastiveLoss):
        """Cross-entropy that treats matches as negatives."""

        def loss(self, e_a, e_b, positives, unknown):
            target = positives.float().argmax(1)
            return torch.nn.functional.cross_entropy(e_a @ e_b.T, target)

    with pytest.raises(AssertionError, match="pushes a known match away"):
        check_loss(Blind())

    class Rises(Blind):
        def loss(self, e_a, e_b, positives, unknown):
            return (e_a @ e_b.T * positives).sum()

    with pytest.raises(AssertionError, match="does not fall"):
        check_loss(Rises())

    class Guesses(InfoNCELoss):
        def loss(self, e_a, e_b, positives, unknown):
            return super().loss(e_a, e_b, positives, torch.zeros_like(unknown))

    with pytest.raises(AssertionError, match="learns from open pairs"):
        check_loss(Guesses())


def test_metadata_generators():
    class Refuses(MetadataGenerator):
        schema = Metadata

        def generate(self, profiles, on_outcome=None, *, max_usd=None):
            for index, _ in enumerate(profiles):
                on_outcome(index, Refusal("refusal"), Usage())
            return [Refusal("refusal") for _ in profiles]

        def fingerprint(self):
            return {"generator": "refuses"}

    from pairmatch import Profile

    check_metadata_generator(Refuses(), [Profile("x"), Profile("y")])

    class Forgets(Refuses):
        def generate(self, profiles, on_outcome=None, *, max_usd=None):
            return super().generate(profiles, on_outcome)[:1]

    with pytest.raises(AssertionError, match="must call on_outcome once for every profile"):
        check_metadata_generator(Forgets(), [Profile("x"), Profile("y")])


def test_the_backbone_of_the_tests_conforms():
    check_backbone(HashBackbone())
