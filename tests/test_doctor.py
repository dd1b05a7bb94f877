"""The doctor reports the state of the installation with fixes, and never shows a key."""

from importlib.metadata import PackageNotFoundError

import numpy as np
from typer.testing import CliRunner

from pairmatch.cli import app, doctor
from pairmatch.cli.doctor import examine, format_checks
from pairmatch.io.store import Store


def by_subject(checks):
    return {check.subject: check for check in checks}


def test_every_missing_item_has_a_fix(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False
    )

    def not_installed(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", not_installed)
    checks = examine(tmp_path / "store.sqlite")
    assert all(check.fix for check in checks if check.state == "missing")
    checks = by_subject(checks)
    assert checks["onnx"].fix == "pip install 'pairmatch[onnx]'"
    assert "--set backbone.model=…" in checks["qwen3-vl-2b"].fix
    assert "4.3 GB" in checks["qwen3-vl-2b"].fix
    assert "not created yet" in checks["store"].found
    assert not (tmp_path / "store.sqlite").exists()


def test_every_extra_of_the_package_is_checked(tmp_path):
    from importlib.metadata import metadata

    for_users = set(metadata("pairmatch").get_all("Provides-Extra")) - {"dev", "docs"}
    assert {extra for extra, _, _ in doctor._EXTRAS} == for_users
    assert for_users <= set(by_subject(examine(tmp_path / "store.sqlite")))


def test_the_key_is_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    checks = examine(tmp_path / "store.sqlite")
    assert by_subject(checks)["API key"].state == "ok"
    assert "sk-very-secret" not in format_checks(checks)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert by_subject(examine(tmp_path / "store.sqlite"))["API key"].state == "note"


def test_the_store_is_summarized(tmp_path):
    with Store(tmp_path / "store.sqlite") as store:
        store.put_features({"k": np.ones(1000, np.float32)})
        store.link([("anna", "k")])
    assert "1 features of 1 people" in by_subject(examine(store.path))["store"].found
    (tmp_path / "bad.sqlite").write_text("no store" * 100)
    check = by_subject(examine(tmp_path / "bad.sqlite"))["store"]
    assert check.state == "missing"
    assert check.fix == "move the file away, or name another one with --store"


def test_names_claimed_twice_are_shown(install, tmp_path):
    install("usurper", {"pairmatch.losses": {"infonce": "usurper:Loss"}})
    text = format_checks(examine(tmp_path / "s"))
    assert "'infonce' (losses) is claimed by two distributions" in text


def test_the_command(tmp_path):
    result = CliRunner().invoke(app, ["doctor", "--store", str(tmp_path / "s.sqlite")])
    assert result.exit_code == 0
    assert result.output.splitlines()[0].startswith("✓ pairmatch")
