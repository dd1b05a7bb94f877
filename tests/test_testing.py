"""The conformance suites.

Built-ins and the example plugin pass, parts broken on purpose fail with the reason.
"""

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
from pairmatch.core.arrays import unit_rows
from pairmatch.core.interfaces import Learner
from pairmatch.core.types import Usage
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
def test_built_in_methods_conform(name):
    check_learner(registry.create("learners", name))


def test_built_in_methods_that_train_conform():
    check_learner(registry.create("learners", ("contrastive", {"training": {"epochs": 1}})))


def test_broken_methods_fail():
    class Broken(Learner):
        def __init__(self, project):
            self.project = project

        def fit(self, train, *, seed=0):
            return self.project

    random = np.random.default_rng(0)
    for project, words in (
        (lambda h, side: np.asarray(h, np.float32), "unit length"),
        (lambda h, side: unit_rows(h).astype(float), "float32"),
        (lambda h, side: unit_rows(h)[:2], "one vector per person"),
        (
            lambda h, side: unit_rows(h)[:, : 3 if side == "a" else 4],
            "unit length|different widths",
        ),
        (lambda h, side: unit_rows(h if side == "a" else h[:, :4]), "different widths"),
        (lambda h, side: unit_rows(random.normal(size=h.shape)), "equal seeds"),
        (lambda h, side: unit_rows(h - h.mean(0) + 1e-3), "who else"),
    ):
        with pytest.raises(AssertionError, match=words):
            check_learner(Broken(project))


def test_the_plugin_conforms(example_plugin):
    check_backbone(registry.create("backbones", "mean-colour"))
    check_loss(registry.create("losses", "cosine-gap"))


class Good(Backbone):
    """A correct backbone that the broken ones below change in one place."""

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
        ({"forward": lambda self, batch: TokenStates()}, "gives neither states nor pooled"),
        (
            {
                "forward": lambda self, batch: TokenStates(
                    pooled=torch.from_numpy(np.stack(batch) - np.mean(batch))
                )
            },
            "depends on who else is in the batch",
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
            "another output for the same input",
        ),
        (
            {"forward": lambda self, batch: TokenStates(states=torch.ones(len(batch), 2, 3))},
            "without a mask",
        ),
        ({"fingerprint": lambda self: {"at": next(COUNTER)}}, "differs from call to call"),
        ({"fingerprint": lambda self: {"what": object()}}, "JSON values alone"),
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


def test_a_backbone_that_trains_fails():
    class Trains(Good):
        def forward(self, batch):
            with torch.inference_mode(False), torch.enable_grad():
                weight = torch.ones(3, requires_grad=True)
                return TokenStates(pooled=torch.from_numpy(np.stack(batch)) * weight)

    with pytest.raises(AssertionError, match="requires a gradient; a backbone is frozen"):
        check_backbone(Trains())


def test_broken_poolers_fail():
    class LetsPaddingIn(Pooler):
        def pool(self, states):
            return states.states.mean(1)

        def fingerprint(self):
            return {"pooler": "bad"}

    with pytest.raises(AssertionError, match="lets padding enter"):
        check_pooler(LetsPaddingIn())

    class Guesses(LetsPaddingIn):
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
        """Cross-entropy that takes known matches for negatives."""

        def loss(self, e_a, e_b, positives):
            target = positives.float().argmax(1)
            return torch.nn.functional.cross_entropy(e_a @ e_b.T, target)

    with pytest.raises(AssertionError, match="pushes a known match away"):
        check_loss(Blind())

    class Rises(Blind):
        def loss(self, e_a, e_b, positives):
            return (e_a @ e_b.T * positives).sum()

    with pytest.raises(AssertionError, match="does not fall"):
        check_loss(Rises())


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


def test_the_fake_backbone_of_the_tests_conforms():
    check_backbone(HashBackbone())
