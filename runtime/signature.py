"""Signatures of bundles, by OpenSSF's model-signing, with a key and offline.

The hashes of a manifest say that files are whole. Whoever changes a file can write its hash too; a
signature says who made the bundle. It covers every file of the bundle's directory, the manifest
included, and lies beside them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.cache_files import write_whole
from zsd_core.errors import BundleError, ConfigError, ZsdError, require

__all__ = ["SIGNATURE", "SIGNATURE_BYTES", "sign_folder", "verify_signature"]

SIGNATURE = "model.sig"  # model-signing's own name for it
SIGNATURE_BYTES = 4 << 20  # most; one has about 200 for every file


def sign_folder(
    root: Path,
    private_key: str | os.PathLike[str],
    password: str | None,
    hashes: Mapping[str, str],
) -> None:
    """Sign every file of a directory, and write the signature into it, in one step.

    Args:
        root: the directory.
        private_key: PEM file.
        password: of the key.
        hashes: SHA-256 of each file that is to be signed; there must be no other.

    Raises:
        BundleError: a file is another, or not one of these; or nothing can be written there.
        ConfigError: the key cannot be used.
        MissingPackageError: model-signing is not installed.
    """
    root, signing = root.resolve(), _library("signing")
    config, found = _hashing(root)
    try:
        signer = signing.Config().use_elliptic_key_signer(
            private_key=Path(private_key), password=password
        )
    except Exception as error:  # of cryptography, of many kinds
        raise ConfigError(
            f"{private_key} is not a private key of an elliptic curve in PEM that can be used "
            f"({error}). Make one: python -m export.sign --new-key {private_key}"
        ) from error
    with tempfile.TemporaryDirectory(prefix="contrastzsd-") as work:
        signer.set_hashing_config(config).sign(root, Path(work) / SIGNATURE)
        signature = (Path(work) / SIGNATURE).read_bytes()
    other = sorted(name for name in {*found, *hashes} if found.get(name) != hashes.get(name))
    if other:
        raise BundleError(
            f"{root}: {', '.join(other[:5])}: not what the manifest lists, so nothing is signed. "
            "Move other files elsewhere, and let nobody write to the bundle while it is signed."
        )
    try:
        write_whole(root / SIGNATURE, signature)
    except OSError as error:
        raise BundleError(f"{root}: cannot be written to: {error.strerror}.") from error


def verify_signature(
    bundle: Path, root: Path, public_key: str | os.PathLike[str]
) -> dict[str, str]:
    """Check that a bundle is exactly what the owner of a key signed.

    Args:
        bundle: for messages.
        root: directory of its files.
        public_key: PEM file of whom to trust.

    Returns:
        The SHA-256 of every file that is signed, in hexadecimal digits. A file that was read
        before, or is read later, is the signed one if its hash is here.

    Raises:
        BundleError: there is no signature, it is by another key, or a file was changed, added or
            removed since.
        ConfigError: the key cannot be read.
        MissingPackageError: model-signing is not installed.
    """
    root, verifying = root.resolve(), _library("verifying")
    place = root / SIGNATURE
    if not place.is_file() or place.stat().st_size > SIGNATURE_BYTES:
        raise BundleError(
            f"{bundle} is not signed, and a signature is required. Its hashes say that it is "
            "whole, not who made it; ask its maker for a signed one."
        )
    config, signed = _hashing(root)
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=Path(public_key))
    except Exception as error:  # of cryptography, of many kinds
        raise ConfigError(
            f"{public_key} is not a public key of an elliptic curve in PEM: {error}"
        ) from error
    try:
        verifier.set_hashing_config(config).verify(root, place)
    except ZsdError:
        raise
    except Exception as error:  # of the library, of protobuf and JSON
        raise BundleError(
            f"{bundle}: its signature does not hold for the key {public_key}: "
            f"{str(error) or type(error).__name__}. Do not use this bundle; ask its maker."
        ) from error
    return signed


def _hashing(root: Path) -> tuple[Any, dict[str, str]]:
    """How a directory is hashed, and the hashes, once the library has done so."""
    hashing, found = _library("hashing"), dict[str, str]()

    class Noting(hashing.Config):  # type: ignore[misc,name-defined]
        """Notes the hashes that the library signs or compares with the signed ones."""

        def hash(self, *arguments: Any, **options: Any) -> Any:
            files = super().hash(*arguments, **options)
            found.update((f.identifier, f.digest.digest_hex) for f in files.resource_descriptors())
            return files

    ignored = [root / SIGNATURE]
    config = Noting().set_allow_symlinks(True)
    return config.set_ignored_paths(paths=ignored, ignore_git_paths=False), found


def _library(module: str) -> Any:
    return require(f"model_signing.{module}", "sign")
