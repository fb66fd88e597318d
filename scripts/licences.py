"""Licences of every package that an environment holds; one that may forbid use is an error.

python scripts/licences.py
python scripts/licences.py --markdown
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata

__all__ = ["forbidding", "licence_of", "main"]

# Licences under which anyone may use a package for any purpose. Copyleft ones (MPL, LGPL) ask for
# something of whoever changes the package or links it into one file; nothing here does either.
FREE = re.compile(
    r"\b(Apache|(Free)?BSD|ZPL|MIT|ISC|PSF|PSFL|Python Software Foundation|MPL|Mozilla|LGPL|"
    r"Lesser General|Zlib|Unlicense|CC0|HPND|Public Domain|0BSD|CNRI|BSL-1\.0|Boost|MIT-CMU|"
    r"Artistic|Blue ?Oak)",
    re.IGNORECASE,
)
# Packages whose metadata says nothing or something else; the licence of each was read.
READ = {
    "atheris": "Apache-2.0",
    "locate": "MIT",
    "sigstore-models": "MIT",
    **dict.fromkeys(
        ("nvidia", "cuda", "tensorrt"),
        "NVIDIA's licence: free to use with NVIDIA's hardware; not shipped with this project",
    ),
    "gensim": "LGPL-2.1: used as it comes",
}


def licence_of(values: metadata.PackageMetadata | Mapping[str, str]) -> str:
    """Licence of a package by its metadata: the expression, classifiers, or the text's start."""
    expression = values.get("License-Expression")
    if expression:
        return str(expression)
    get_all = getattr(values, "get_all", None)
    classifiers = [c for c in (get_all("Classifier") or ()) if "License ::" in c] if get_all else []
    named = [c.rsplit(" :: ", 1)[-1] for c in classifiers if c != "License :: OSI Approved"]
    text = str(values.get("License") or "").strip()
    return "; ".join(named) or (text.splitlines()[0][:80] if text else "")


def forbidding(packages: Mapping[str, str]) -> list[str]:
    """Packages whose licence is not known to allow every use, by name and licence."""
    return sorted(
        name
        for name, licence in packages.items()
        if not FREE.search(licence) and not any(name.lower().startswith(known) for known in READ)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the licences of this environment; 1 if one may forbid use."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="as a table")
    args = parser.parse_args(argv)
    packages = {str(d.metadata["Name"]): licence_of(d.metadata) for d in metadata.distributions()}
    line = "| {} | {} |" if args.markdown else "{}: {}"
    if args.markdown:
        print("| package | licence |\n| --- | --- |")
    for name in sorted(packages, key=str.lower):
        known = next((why for start, why in READ.items() if name.lower().startswith(start)), "")
        print(line.format(name, packages[name] or known or "not stated"))
    bad = forbidding(packages)
    for name in bad:
        print(f"error: {name}: {packages[name] or 'no licence stated'}; read it", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
