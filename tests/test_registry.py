"""Parts are loaded from entry points, and errors name the distribution."""

import sys

import pytest

from pairmatch.core import registry
from pairmatch.core.errors import ConfigurationError, PartError
from pairmatch.learning.heads import MLPHead
from pairmatch.learning.losses import InfoNCELoss


def write_module(folder, name, text):
    (folder / f"{name}.py").write_text(text)


def test_only_the_requested_part_is_imported(install):
    site = install(
        "several", {"pairmatch.losses": {"one": "several_one:One", "two": "several_two:Two"}}
    )
    for name in ("One", "Two"):
        write_module(
            site,
            f"several_{name.lower()}",
            f"from pairmatch.learning.losses import InfoNCELoss\nclass {name}(InfoNCELoss): pass\n",
        )
    registry.load("losses", "one")
    assert "several_one" in sys.modules
    assert "several_two" not in sys.modules


def test_a_broken_plugin_does_not_affect_other_parts(install):
    install("broken-dist", {"pairmatch.losses": {"broken": "no_such_module:Loss"}})
    assert isinstance(registry.create("losses", "infonce"), InfoNCELoss)
    assert any(plugin.name == "broken" for plugin in registry.plugins("losses"))
    with pytest.raises(
        PartError,
        match=r"loss 'broken' \(no_such_module:Loss, from broken-dist\) cannot be imported",
    ):
        registry.load("losses", "broken")


def test_incomplete_installations_do_not_affect_other_parts(install):
    site = install(
        "quits", {"pairmatch.losses": {"quits": "quits_mod:Loss", "module": "quits_mod"}}
    )
    write_module(site, "quits_mod", "raise SystemExit(3)")
    (site / "nameless-1.0.dist-info").mkdir()
    (site / "nameless-1.0.dist-info" / "entry_points.txt").write_text(
        "[pairmatch.losses]\nnameless = no_such:Loss\n"
    )
    with pytest.raises(PartError, match=r"from quits\) cannot be imported: SystemExit: 3"):
        registry.load("losses", "quits")
    with pytest.raises(PartError, match=r"from an unknown distribution\) cannot be imported"):
        registry.load("losses", "nameless")
    assert {"quits", "nameless", "infonce"} <= {plugin.name for plugin in registry.plugins()}
    assert registry.describe("losses", InfoNCELoss())[0] == "infonce"


def test_options_of_the_wrong_type_are_configuration_errors():
    with pytest.raises(
        ConfigurationError, match=r"The head 'mlp' cannot be built with width='wide': "
    ):
        registry.create("heads", ("mlp", {"width": "wide"}), dim=4)
    with pytest.raises(
        ConfigurationError, match=r"The loss 'infonce' cannot be built with temperature='hot': "
    ):
        registry.create("losses", ("infonce", {"temperature": "hot"}))


@pytest.mark.parametrize("options", [{}, {"temperature": 0.1}])
def test_constructors_that_fail_are_named_with_their_distribution(install, options):
    site = install("fails-dist", {"pairmatch.losses": {"fails": "fails_mod:Loss"}})
    write_module(
        site,
        "fails_mod",
        "from pairmatch.learning.losses import InfoNCELoss\n"
        "class Loss(InfoNCELoss):\n"
        "    def __init__(self, temperature=0.2):\n"
        "        open('/no/such/weights.bin')\n",
    )
    words = (
        r"The loss 'fails' \(from fails-dist\) cannot be built: FileNotFoundError: .*weights.bin"
    )
    with pytest.raises(PartError, match=words):
        registry.create("losses", ("fails", options))


def test_a_class_can_be_registered_by_a_module_that_does_not_define_it(install):
    site = install("package", {"pairmatch.losses": {"inner": "outer_package : InnerLoss"}})
    (site / "outer_package").mkdir()
    text = "from pairmatch.learning.losses import InfoNCELoss\nclass InnerLoss(InfoNCELoss): pass\n"
    write_module(site / "outer_package", "inner", text)
    write_module(site / "outer_package", "__init__", "from outer_package.inner import InnerLoss\n")
    loss = registry.create("losses", "inner")
    assert type(loss).__module__ == "outer_package.inner"
    assert registry.describe("losses", loss)[0] == "inner"


def test_a_name_claimed_twice_is_an_error_that_names_both_distributions(install):
    for name in ("first-dist", "second-dist"):
        install(name, {"pairmatch.poolers": {"same": f"{name.replace('-', '_')}:P"}})
    with pytest.raises(PartError, match=r"'same' is claimed by first-dist .* and second-dist"):
        registry.load("poolers", "same")


def test_a_claim_of_a_built_in_name_is_an_error(install):
    install("usurper", {"pairmatch.losses": {"infonce": "usurper:Loss"}})
    with pytest.raises(PartError, match=r"claimed by pairmatch .* and usurper"):
        registry.create("losses", "infonce")


def test_parts_that_do_not_implement_the_interface_are_errors(install):
    site = install(
        "wrong", {"pairmatch.losses": {"wrong": "wrong_mod:Thing", "half": "wrong_mod:Half"}}
    )
    write_module(
        site,
        "wrong_mod",
        "from pairmatch import ContrastiveLoss\n"
        "class Thing: pass\n"
        "class Half(ContrastiveLoss): pass\n",
    )
    with pytest.raises(
        PartError, match=r"from wrong\) does not implement `pairmatch.ContrastiveLoss`"
    ):
        registry.load("losses", "wrong")
    with pytest.raises(PartError, match=r"lacks methods of `pairmatch.ContrastiveLoss`: loss"):
        registry.load("losses", "half")


def test_misspelled_names_are_errors_with_a_suggestion():
    with pytest.raises(
        PartError,
        match=r"Unknown loss 'infonec'\. Did you mean 'infonce'\? Known: infonce, sigmoid",
    ):
        registry.create("losses", "infonec")
    with pytest.raises(
        ConfigurationError,
        match=r"Unknown option of loss 'infonce' 'temprature'\. Did you mean 'temperature'",
    ):
        registry.create("losses", ("infonce", {"temprature": 0.1}))
    with pytest.raises(
        ConfigurationError, match=r"'onnx' needs path \(command line: --set backbone.path=…\)"
    ):
        registry.create("backbones", "onnx")
    with pytest.raises(ConfigurationError, match="A part is"):
        registry.create("losses", ("infonce", 3))


def test_instances_are_checked_and_library_arguments_are_defaults():
    loss = InfoNCELoss()
    assert registry.create("losses", loss) is loss
    with pytest.raises(PartError, match=r"A pooler must implement `pairmatch\.Pooler`"):
        registry.create("poolers", loss)
    assert registry.create("heads", ("mlp", {"dim": 7}), dim=3).dim == 7
    assert registry.create("poolers", "mean", dim=3).layer is None


def test_a_part_can_be_rebuilt_from_its_description():
    name, options = registry.describe("losses", InfoNCELoss(temperature=0.3))
    assert (name, options) == (
        "infonce",
        {"temperature": 0.3, "directions": "a_to_b", "learn_temperature": False},
    )
    assert registry.describe("heads", MLPHead(dim=4, width=2))[1] == {
        "dim": 4,
        "width": 2,
        "hidden": None,
        "dropout": 0.0,
    }

    class Unregistered(InfoNCELoss):
        pass

    with pytest.raises(PartError, match="has no registered name"):
        registry.describe("losses", Unregistered())


def test_plugins_name_their_distribution(example_plugin):
    plugins = {plugin.name: plugin for plugin in registry.plugins("backbones")}
    assert plugins["mean-color"].distribution == "pairmatch-example"
    assert plugins["mean-color"].version == "1.2.3"
    assert plugins["descriptor"].distribution == "pairmatch"
    assert registry.provenance("losses", "cosine-gap") == ("pairmatch-example", "1.2.3")


def test_a_part_without_a_constructor_receives_no_arguments():
    assert (
        type(registry.create("metadata", "measured", device="cpu")).__name__ == "MeasuredMetadata"
    )
    assert registry.describe("learners", registry.create("learners", "frozen")) == ("frozen", {})
    with pytest.raises(ConfigurationError, match="option of metadata generator 'measured'"):
        registry.create("metadata", ("measured", {"size": 3}))
