"""The doctor: says what is there and how to mend what is not, and never shows a key."""

from importlib.metadata import PackageNotFoundError

import numpy as np
from typer.testing import CliRunner

from pairmatch.cli import app, doctor
from pairmatch.cli.doctor import examine, screen
from pairmatch.io.store import Store


def found(checks):
    return {check.subject: check for check in checks}


def test_every_missing_thing_has_its_mend(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False
    )

    def nothing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", nothing)
    checks = examine(tmp_path / "store.sqlite")
    assert all(check.mend for check in checks if check.state == "missing")
    by_name = found(checks)
    assert by_name["onnx"].mend == "pip install 'pairmatch[onnx]'"
    assert "--set backbone.model=…" in by_name["qwen3-vl-2b"].mend
    assert "4.3 GB" in by_name["qwen3-vl-2b"].mend
    assert "not made yet" in by_name["store"].found
    assert not (tmp_path / "store.sqlite").exists()


def test_every_extra_of_the_package_is_looked_for(tmp_path):
    from importlib.metadata import metadata

    for_users = set(metadata("pairmatch").get_all("Provides-Extra")) - {"dev", "docs"}
    assert {extra for extra, _, _ in doctor._EXTRAS} == for_users
    assert for_users <= set(found(examine(tmp_path / "store.sqlite")))


def test_the_key_is_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    checks = examine(tmp_path / "store.sqlite")
    assert found(checks)["API key"].state == "ok"
    assert "sk-very-secret" not in screen(checks)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert found(examine(tmp_path / "store.sqlite"))["API key"].state == "note"


def test_the_store_is_measured(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        store.put_features({"k": np.ones(1000, np.float32)})
        store.link([("anna", "k")])
    assert "1 features of 1 people" in found(examine(store.path))["store"].found
    (tmp_path / "bad.sqlite").write_text("no store" * 100)
    bad = found(examine(tmp_path / "bad.sqlite"))["store"]
    assert (bad.state, bad.mend) == ("missing", "move it away, it will be made anew")


def test_names_claimed_twice_are_shown(install, tmp_path):
    install("usurper", {"pairmatch.losses": {"infonce": "usurper:Loss"}})
    assert "'infonce' (losses) is claimed twice" in screen(examine(tmp_path / "s"))


def test_the_command(tmp_path):
    result = CliRunner().invoke(app, ["doctor", "--store", str(tmp_path / "s.sqlite")])
    assert result.exit_code == 0
    assert result.output.splitlines()[0].startswith("✓ pairmatch")
