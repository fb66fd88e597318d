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

__all__ = ["allows", "forbidding", "licence_of", "main", "reading_of"]

# Licences under which anyone may use a package for any purpose, by their SPDX identifier, their
# classifier or what else packages call them, each as a whole. Copyleft ones (MPL, LGPL) ask for
# something of whoever changes the package or links it into one file; nothing here does either.
FREE = frozenset(
    name.casefold()
    for name in (
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "BlueOak-1.0.0"),
        *("CC0-1.0", "CNRI-Python", "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0"),
        *("LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later"),
        *("PSF-2.0", "Python-2.0", "Unlicense", "ZPL-2.1", "Zlib"),
        "Apache Software License",
        "BSD License",
        "Boost Software License 1.0 (BSL-1.0)",
        "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication",
        "GNU Lesser General Public License v2 or later (LGPLv2+)",
        "GNU Lesser General Public License v3 (LGPLv3)",
        "GNU Lesser General Public License v3 or later (LGPLv3+)",
        "Historical Permission Notice and Disclaimer (HPND)",
        "ISC License (ISCL)",
        "MIT License",
        "MIT No Attribution License (MIT-0)",
        "Mozilla Public License 2.0 (MPL 2.0)",
        "Python Software Foundation License",
        "The Unlicense (Unlicense)",
        "Zope Public License",
        "zlib/libpng License",
        *("Apache 2.0", "Apache 2.0 License", "Apache License 2.0", "Apache License, Version 2.0"),
        *("3-Clause BSD License", "BSD", "BSD 3-Clause", "BSD 3-Clause License", "FreeBSD"),
        *("ISC License", "MPL 2.0", "PSF"),
    )
)
# Families of licences, not licences: they forbid nothing and allow nothing.
FAMILIES = ("License :: OSI Approved", "License :: DFSG approved")
# A line of free text that says one of these counts, whatever the classifiers say.
RESTRICTS = re.compile(r"non-?commercial|affero|\bA?GPL|proprietary", re.IGNORECASE)
# Packages whose metadata says nothing or something else, what it says, and what its licence is,
# which was read. Once a version says something else, it must be read again.
READ = {
    "atheris": ("", "Apache-2.0"),
    "locate": ("Other/Proprietary License", "MIT"),
    "sigstore-models": ("", "MIT"),
}
# NVIDIA's own packages, which say one of these or nothing; not so a package of such a name that
# says something else.
NVIDIA = re.compile(r"(nvidia|cuda|tensorrt)([-_].*)?", re.IGNORECASE)
OF_NVIDIA = (
    "LicenseRef-NVIDIA-Proprietary",
    "NVIDIA Proprietary Software",
    "Other/Proprietary License",
)
USE_OF_NVIDIA = (
    "NVIDIA's licence: free to use with NVIDIA's hardware; not shipped with this project"
)


def licence_of(values: metadata.PackageMetadata | Mapping[str, str]) -> str:
    """Licence of a package by its metadata: the expression, classifiers, or the text's start."""
    expression = values.get("License-Expression")
    if expression:
        return str(expression)
    get_all = getattr(values, "get_all", None)
    classifiers = [c for c in (get_all("Classifier") or ()) if "License ::" in c] if get_all else []
    named = [c.rsplit(" :: ", 1)[-1] for c in classifiers if c not in FAMILIES]
    text = str(values.get("License") or "").strip().splitlines()[:1]
    if not named or (text and RESTRICTS.search(text[0]) and not _same(text[0], named)):
        named += [line[:80] for line in text]
    return "; ".join(named)


def _same(text: str, named: Sequence[str]) -> bool:
    """Whether free text says, shorter, what a classifier of it says: both are proprietary."""
    proprietary = (*OF_NVIDIA, "Proprietary")
    return text in proprietary and "Other/Proprietary License" in named


def reading_of(name: str, stated: str) -> str:
    """Licence of a package that its metadata does not say, but a person has read; "" if none."""
    known = READ.get(name.lower().replace("_", "-"))
    if known and known[0] == stated:
        return known[1]
    of_nvidia = not stated or stated in OF_NVIDIA
    return USE_OF_NVIDIA if of_nvidia and NVIDIA.fullmatch(name) else ""


def allows(licence: str) -> bool:
    """Whether a licence is known to allow every use: each that must be kept, one of a choice.

    Args:
        licence: an SPDX expression, or names of classifiers with ";" between them, which all count.
    """
    licence = licence.strip()
    if " ".join(licence.casefold().split()) in FREE:
        return True
    for separator, combine in ((";", all), (" OR ", any), (" AND ", all)):
        parts = _outside_brackets(licence, separator)
        if len(parts) > 1:
            return combine(allows(part) for part in parts)
    if licence.startswith("(") and licence.endswith(")"):
        return allows(licence[1:-1])
    base, exception, _ = licence.partition(" WITH ")  # an exception allows more, never less
    return bool(exception) and allows(base)


def _outside_brackets(text: str, separator: str) -> list[str]:
    parts = [""]
    for piece in text.split(separator):
        if parts[-1].count("(") > parts[-1].count(")"):
            parts[-1] += separator + piece
        else:
            parts.append(piece)
    return parts[1:]


def forbidding(packages: Mapping[str, str]) -> list[str]:
    """Packages whose licence is not known to allow every use, by name and licence."""
    return sorted(
        name
        for name, licence in packages.items()
        if not allows(licence) and not reading_of(name, licence)
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
        stated = packages[name]
        print(line.format(name, reading_of(name, stated) or stated or "not stated"))
    bad = forbidding(packages)
    for name in bad:
        print(f"error: {name}: {packages[name] or 'no licence stated'}; read it", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
