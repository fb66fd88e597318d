"""The data build of a vocabulary; no part of the package."""
