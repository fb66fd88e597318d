"""Sign a bundle, so that a device can require that nobody else has made or changed it.

    python -m export.sign --new-key key.pem
    python -m export.sign bundle/ --key key.pem
    python -m export.sign bundle/ --verify key.pem.pub

The signature is OpenSSF's model-signing, by a key and offline, and lies in the bundle as
``model.sig``. Keep the private key where no device is; devices get the public one, and require it:
``Detector("bundle/", require_signature="key.pem.pub")``. A change of the bundle removes the
signature: sign last.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from export.writing.replacing import check_replaceable, replacing
from runtime.bundle import Bundle, open_bundle
from runtime.signature import SIGNATURE, sign_folder
from zsd_core.commands import command, new_parser
from zsd_core.errors import ConfigError, require

__all__ = ["main", "new_key", "parse", "sign_bundle"]

PASSWORD = "CONTRASTZSD_KEY_PASSWORD"


def new_key(path: Path) -> Path:
    """Make a private key (P-256, PEM, readable to its owner only) and its public half beside it.

    Returns:
        File of the public key, ``path`` with ``.pub`` behind it.

    Raises:
        ConfigError: there is a file already.
    """
    require("cryptography", "sign")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = path.with_name(path.name + ".pub")
    for file in (path, public):
        if file.exists():
            raise ConfigError(f"{file} exists; name another file, keys are never replaced.")
    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file_:
        file_.write(secret)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, form))
    return public


def sign_bundle(path: str | os.PathLike[str], key: Path, password: str | None = None) -> Bundle:
    """Sign a bundle in place, a directory or a zip; an older signature is replaced.

    Of a directory, only the file of the signature is written.

    Raises:
        BundleError: it cannot be opened or written, or holds files that its manifest does not list.
        ConfigError: the key cannot be used.
        MissingPackageError: model-signing is not installed.
    """
    bundle = open_bundle(path)
    check_replaceable(bundle.path)
    if bundle.path.is_dir():
        sign_folder(bundle.root, key, password, bundle.hashes)
    else:
        with replacing(bundle.path) as root:
            for name in bundle.hashes:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle.root / name, root / name)
            sign_folder(root, key, password, bundle.hashes)
    return open_bundle(path)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("export.sign", __doc__)
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", help="directory or zip, signed in place")
    add("--key", type=Path, metavar="PEM", help=f"private key; its password: {PASSWORD}")
    add("--verify", type=Path, metavar="PEM", help="check the signature by this public key")
    add("--new-key", type=Path, metavar="PEM", help="make a key, and PEM.pub, first")
    args = parser.parse_args(argv)
    if (args.bundle is None) != (args.key is None and args.verify is None):
        parser.error("name a bundle and --key or --verify, or --new-key alone")
    if args.bundle is None and args.new_key is None:
        parser.error("nothing to do: name a bundle with --key or --verify, or --new-key")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 1 with a sentence on stderr."""
    args = parse(argv)
    if args.new_key:
        print(f"{args.new_key}: private key; {new_key(args.new_key)}: public key, for devices")
    if args.key:
        sign_bundle(args.bundle, args.key, os.environ.get(PASSWORD))
        print(f"{args.bundle}: signed, {SIGNATURE}")
    if args.verify:
        open_bundle(args.bundle, require_signature=args.verify)
        print(f"{args.bundle}: the signature holds for {args.verify}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
