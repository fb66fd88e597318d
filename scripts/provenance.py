"""Compare the files of the bundles that ship with what configs/provenance.json says of them.

python scripts/provenance.py
python scripts/provenance.py --renew
python scripts/provenance.py --add-to out/sbom.json

Every file must have the SHA-256 that stands there and the one that its bundle's manifest says.
``--renew`` writes the hashes anew after a bundle was made again; the origins and commands of a new
file are for a person to write. ``--add-to`` adds the files, and what they were made of, to a bill
of materials that cyclonedx_py has written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["component", "faults", "main", "with_weights"]

ROOT = Path(__file__).parents[1]
BUNDLES, PROVENANCE = Path("runtime/bundles"), Path("configs/provenance.json")
MODELS = (".onnx", ".bin", "scorer.safetensors")  # the rest of a bundle is data
SPDX = ("Apache-2.0",)  # of our origins' licences, those that have an identifier


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def faults(root: Path, provenance: Mapping[str, Any]) -> list[str]:
    """What differs between bytes, manifests and provenance; empty if nothing does."""
    found = []
    folders = {path.name: path for path in sorted((root / BUNDLES).iterdir()) if path.is_dir()}
    if other := set(folders) ^ set(provenance["bundles"]):
        return [f"{', '.join(sorted(other))}: a bundle in {BUNDLES} or {PROVENANCE}, not in both"]
    for bundle, folder in folders.items():
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))["files"]
        entries = provenance["bundles"][bundle]
        for name in sorted({path.name for path in folder.iterdir()} | set(entries)):
            if not (folder / name).exists() or name not in entries:
                found.append(f"{bundle}/{name}: in the bundle or in {PROVENANCE}, not in both")
                continue
            digest = sha256(folder / name)
            if digest != entries[name]["sha256"]:
                found.append(f"{bundle}/{name}: its SHA-256 is {digest}, not that of {PROVENANCE}")
            if name != "manifest.json" and digest != manifest.get(name, {}).get("sha256"):
                found.append(f"{bundle}/{name}: its SHA-256 is {digest}, not that of the manifest")
    return found


def component(bundle: str, file: str, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A file of a bundle as a CycloneDX component, with what it was made of as its ancestors."""
    entry = provenance["bundles"][bundle][file]
    origins = [provenance["origins"][name] for name in entry["origins"]]
    data = [provenance["data"][name] for name in entry["fitted_on"]]
    data += [provenance["data"][name] for origin in origins for name in origin["learned_from"]]
    commands = [provenance["commands"][name] for name in entry["made_by"]]
    return {
        "bom-ref": f"bundle:{bundle}/{file}",
        "type": "machine-learning-model" if file.endswith(MODELS) else "data",
        "name": f"{bundle}/{file}",
        "hashes": [{"alg": "SHA-256", "content": entry["sha256"]}],
        "licenses": _licences([origin["licence"] for origin in origins]),
        "pedigree": {"ancestors": [_ancestor(origin) for origin in origins]},
        "properties": [
            *({"name": "contrastzsd:made by", "value": command} for command in commands),
            *(
                {"name": "contrastzsd:learned from", "value": f"{one['name']} ({one['terms']})"}
                for one in data
            ),
        ],
    }


def _ancestor(origin: Mapping[str, Any]) -> dict[str, Any]:
    names = ("source", "address", "commit", "retrieved")
    values: dict[str, Any] = {
        "type": "data" if origin["sha256"] is None else "machine-learning-model",
        "name": origin["name"],
        "licenses": _licences([origin["licence"]]),
        "properties": [{"name": f"contrastzsd:{name}", "value": origin[name]} for name in names],
    }
    if origin["sha256"]:
        values["hashes"] = [{"alg": "SHA-256", "content": origin["sha256"]}]
    return values


def _licences(names: Sequence[str]) -> list[dict[str, Any]]:
    return [{"license": {"id" if name in SPDX else "name": name}} for name in dict.fromkeys(names)]


def with_weights(bill: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """A bill of materials with the files of every bundle, on which the project depends."""
    bundles = provenance["bundles"]
    added = [component(bundle, file, provenance) for bundle in bundles for file in bundles[bundle]]
    references = [one["bom-ref"] for one in added]
    root = bill["metadata"]["component"]["bom-ref"]
    dependencies = {one["ref"]: one for one in bill.get("dependencies", [])}
    needed = dependencies.get(root, {}).get("dependsOn", [])
    dependencies[root] = {"ref": root, "dependsOn": sorted({*needed, *references})}
    dependencies |= {reference: {"ref": reference} for reference in references}
    kept = [one for one in bill["components"] if one.get("bom-ref") not in references]
    return {**bill, "components": kept + added, "dependencies": list(dependencies.values())}


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, and write what was asked for; 1 if something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--renew", action="store_true", help="write the hashes anew")
    parser.add_argument("--add-to", type=Path, metavar="SBOM", help="add the files to this one")
    args = parser.parse_args(argv)
    provenance = json.loads((ROOT / PROVENANCE).read_text("utf-8"))
    if args.renew:
        for bundle, entries in provenance["bundles"].items():
            for name, entry in entries.items():
                entry["sha256"] = sha256(ROOT / BUNDLES / bundle / name)
        text = json.dumps(provenance, indent=1, ensure_ascii=False)
        (ROOT / PROVENANCE).write_text(text + "\n", "utf-8")
    if found := faults(ROOT, provenance):
        for fault in found:
            print(f"error: {fault}", file=sys.stderr)
        again = (
            "if a bundle was made again: python scripts/provenance.py --renew, and read the diff"
        )
        print(again, file=sys.stderr)
        return 1
    if args.add_to:
        bill = with_weights(json.loads(args.add_to.read_text("utf-8")), provenance)
        args.add_to.write_text(json.dumps(bill, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
