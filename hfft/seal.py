"""Seal: a finished run with the hash of each of its files, so that a change or an addition is noticed; also signed.

The manifest is that of checkpoints (`hfft/checkpoint.py`). A signature is OpenSSF Model Signing's, by the library
model-signing (https://github.com/sigstore/model-transparency), which other tools verify too; without one a manifest
tells damage, and not who wrote it.
"""

import hashlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hfft import __version__, checkpoint
from hfft.messages import CheckpointError, InputError, MachineError, announce, first_line, warn

SIGNATURE = "model.sig"
APART = ("checkpoint-*", "exports", ".*", "runs", "logs", checkpoint.MANIFEST, SIGNATURE)  # below a run, no part of it
READ = (  # what a library would load where it lies beside a model: weights, code, configs, templates
    "*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "*.distcp",
    "*.py", "*.json", "*.jinja", "*.model", "*.yaml",
)  # fmt: skip


def seal(folder: str | Path, *, key: str | Path | None = None) -> dict[str, Any]:
    """Write the manifest of a run or an export, and with a private key its signature; {"files", "signature"}.

    Checkpoints and exports have manifests of their own. Raises CheckpointError where there is nothing to seal.
    """
    folder = Path(folder)
    if not folder.is_dir() or not any(_names(folder)):
        raise CheckpointError(f"{folder}: no folder with files in it; name a run or one of its exports")
    (folder / SIGNATURE).unlink(missing_ok=True)  # of what lay here before
    names = sorted(name for name in _names(folder) if not (folder / name).is_symlink())
    checkpoint.seal(folder, {"hfft": __version__}, names=names)
    if key is not None:
        _sign(folder, Path(key))
    return {"files": len(names), "signature": key is not None}


def of_export(made: Any) -> None:
    """Seal what an export has made, where it is a folder."""
    if isinstance(made, str | Path) and Path(made).is_dir():
        seal(made)


def verify(folder: str | Path, *, public_key: str | Path | None = None) -> dict[str, Any]:
    """{"files", "signature"} of a folder that is as it was sealed. Raises CheckpointError naming a file that is not.

    With a public key the signature must be that key's. Files that were added count where a library would load them.
    """
    folder = Path(folder)
    if not (folder / checkpoint.MANIFEST).is_file():
        raise CheckpointError(f"{folder}: has no {checkpoint.MANIFEST}; `hfft seal` writes one")
    wrong = checkpoint.trouble(folder)
    if wrong:
        raise CheckpointError(f"{folder}: {wrong}")
    known = checkpoint.about(folder)["files"]
    for name in sorted(_names(folder)):
        if name not in known and any(fnmatchcase(Path(name).name, pattern) for pattern in READ):
            raise CheckpointError(f"{folder}: {name} was added since it was sealed; remove it")
        if name not in known:
            warn(f"{folder}: {name} was added since it was sealed")
    if public_key is not None:
        _verify(folder, Path(public_key))
    elif (folder / SIGNATURE).is_file():
        announce(f"{folder}: signed; give --public-key to verify by whom")
    return {"files": len(known), "signature": public_key is not None}


def manifest(files: dict[str, Path | bytes]) -> bytes:
    """The manifest of files as they are pushed, some of them changed on the way."""
    known = {}
    for name, content in sorted(files.items()):
        data = content if isinstance(content, bytes) else None
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        digest = checkpoint.digest(content) if isinstance(content, Path) else hashlib.sha256(data or b"").hexdigest()
        known[name] = {"bytes": size, "sha256": digest}
    return checkpoint.text_of({"hfft": __version__, "files": known}).encode()


def _names(folder: Path) -> Iterator[str]:
    """All files of a run but those of its checkpoints and exports; links too, which no run has."""
    for path in folder.iterdir():
        if any(fnmatchcase(path.name, pattern) for pattern in APART):
            continue
        inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
        yield from (each.relative_to(folder).as_posix() for each in inside if each.is_symlink() or not each.is_dir())


# ---- signatures ------------------------------------------------------------------------------------------------------
def _library() -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise MachineError(
            f"signatures need another library; pip install 'hfft[sign]' ({first_line(error)})"
        ) from error
    return model_signing


def _sign(folder: Path, key: Path) -> None:
    """Sign the files that the manifest lists, and it."""
    if not key.is_file():
        raise InputError(f"--sign: no file {str(key)!r}; name a private key (openssl ecparam -name prime256v1 -genkey)")
    library = _library()
    listed = {name.split("/")[0] for name in checkpoint.about(folder)["files"]} | {checkpoint.MANIFEST}
    apart = [path.name for path in folder.iterdir() if path.name not in listed]
    hashing = library.hashing.Config().set_ignored_paths(paths=apart, ignore_git_paths=True)
    config = library.signing.Config().set_hashing_config(hashing)
    try:
        config.use_elliptic_key_signer(private_key=key).sign(folder, folder / SIGNATURE)
    except Exception as error:  # of its own, of cryptography's and of OpenSSL's
        raise InputError(f"--sign: {str(key)!r} cannot sign: {first_line(error)}") from error


def _verify(folder: Path, key: Path) -> None:
    """What was signed must be there as it was; what was added the manifest, which is signed, has told."""
    if not key.is_file():
        raise InputError(f"--public-key: no file {str(key)!r}; name the signer's public key")
    if not (folder / SIGNATURE).is_file():
        raise CheckpointError(f"{folder}: has no {SIGNATURE}, so nobody has signed it")
    config = _library().verifying.Config().set_ignore_unsigned_files(True)
    try:
        config.use_elliptic_key_verifier(public_key=key).verify(folder, folder / SIGNATURE)
    except Exception as error:  # of its own, of cryptography's and of OpenSSL's
        raise CheckpointError(
            f"{folder}: {SIGNATURE} is not this key's for these files: {first_line(error)}"
        ) from error
