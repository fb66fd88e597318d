"""Teach names to a second look, from an image classifier and photographs that have one name each.

Nothing here runs for hours: the classifier stays as it is. What is computed is where a name lies
among its features (kernel regression from the vectors of the names it knows to its weights) and
which probability a dot product stands for (logistic regression on photographs).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zsd_core.config import ScoringConfig
from zsd_core.errors import DataError
from zsd_core.files import shown
from zsd_core.learning.models.look import Look
from zsd_core.scoring.prototypes import PrototypeScorer
from zsd_core.semantics import unit_rows

__all__ = ["Taught", "load_look", "save_look", "teach"]

Floats = NDArray[np.float32]
RIDGE = 0.3  # of the kernel regression; the choice changes little
ODDS = 20  # wrong names for every right one, when probabilities are fitted


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """A second look that knows names.

    Attributes:
        look: the network.
        tensors: of ``PrototypeScorer``, ``center`` among them.
        names: of the classifier, T of them.
        info: how it was made, for the manifest: encoder, template, sources, size of regions.
    """

    look: Look
    tensors: Mapping[str, Floats]
    names: tuple[str, ...]
    info: Mapping[str, Any]


def teach(
    look: Look,
    names: Sequence[str],
    vectors: Floats,
    features: Floats,
    labels: NDArray[np.intp],
    scoring: ScoringConfig,
    *,
    seed: int = 0,
) -> dict[str, Floats]:
    """Fit what a scorer needs, and set the projection and the vectors of a look.

    Args:
        look: with the classifier's weights.
        names: of the classifier.
        vectors: ``(T, E)`` unit vectors of the names.
        features: ``(n, 1280)`` of photographs.
        labels: ``(n,)`` positions in ``names``.
        scoring: the options of "prototypes".
        seed: of the wrong names that are drawn.

    Returns:
        The tensors of ``PrototypeScorer``.

    Raises:
        DataError: fewer photographs than features are kept.
    """
    width = look.projection.out_features
    if len(features) <= width:
        raise DataError(
            f"teach: {len(features)} photographs have a name that the classifier knows; keeping "
            f"{width} features takes more of them."
        )
    unit = unit_rows(features)
    _, _, directions = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
    directions = directions[:width].astype(np.float32)  # (V, 1280)
    center = vectors.mean(0)
    centred = unit_rows(vectors - center)
    weights = look.classifier.weight.detach().numpy().astype(np.float64)
    targets = unit_rows(unit_rows(weights) @ directions.T)  # (T, V)
    kernel = _kernel(centred.astype(np.float64) @ centred.T, scoring)
    alphas = np.linalg.solve(kernel + RIDGE * np.eye(len(kernel)), targets)
    with torch.no_grad():
        look.projection.weight.copy_(torch.from_numpy(directions))
        look.vectors.copy_(torch.from_numpy(centred))
    tensors = {
        "background": np.zeros(vectors.shape[1], np.float32),
        "center": center.astype(np.float32),
        "taught.vectors": centred.astype(np.float32),
        "taught.weights": alphas.astype(np.float32),
        "name_scale": np.array([1, 0], np.float32),
        "example_scale": np.array([1, 0], np.float32),
    }
    scorer = PrototypeScorer(tensors, scoring)
    embedded = _embed(look, features)
    rng = np.random.default_rng(seed)
    rows = scorer.prototypes_of(centred.astype(np.float32))
    tensors["name_scale"] = _logistic(embedded, rows[:, :-1], labels, labels, rng)
    first, rest = _one_example(labels, rng)
    examples = np.zeros_like(rows[:, :-1])
    visual = embedded[:, :width]
    examples[labels[first], :width] = visual[first]
    present = labels[first]
    tensors["example_scale"] = _logistic(embedded[rest], examples, labels[rest], present, rng)
    return tensors


def _kernel(cosines: NDArray[Any], scoring: ScoringConfig) -> NDArray[Any]:
    fading = np.exp((cosines - 1) / scoring.kernel_width)
    return np.asarray(cosines + scoring.kernel_weight * fading)


def _embed(look: Look, features: Floats) -> Floats:
    """``[z, e]`` of pooled features ``(n, 1280)``."""
    with torch.no_grad():
        given = torch.from_numpy(features)
        visual = look.projection(given)
        visual = visual / visual.norm(dim=1, keepdim=True)
        named = look.classifier(given).softmax(1) @ look.vectors
        return torch.cat([visual, named], 1).numpy()


def _one_example(
    labels: NDArray[np.intp], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split the photographs of every name into one example and all others."""
    order = rng.permutation(len(labels))
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    chosen = order[first[counts > 1]]
    known = np.isin(labels, labels[chosen])
    known[chosen] = False
    return chosen, np.flatnonzero(known)


def _logistic(
    embedded: Floats,
    rows: Floats,
    labels: NDArray[np.intp],
    present: NDArray[np.intp],
    rng: np.random.Generator,
) -> Floats:
    """Slope and bias with which dot products of photographs and classes become logits."""
    right = np.einsum("np,np->n", embedded, rows[labels])
    others = rng.choice(present, (len(labels), ODDS))
    wrong = np.einsum("np,nkp->nk", embedded, rows[others])[others != labels[:, None]]
    values = torch.from_numpy(np.concatenate([right, wrong]).astype(np.float64))
    truth = torch.cat([torch.ones(len(right)), torch.zeros(len(wrong))]).double()
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = line[0] * values + line[1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        loss.backward()
        return loss

    optimizer.step(closure)
    return line.detach().numpy().astype(np.float32)


def save_look(path: str | Path, taught: Taught) -> None:
    """Write a second look: its weights, the scorer's tensors and how it was made, in one file."""
    from safetensors.numpy import save

    look = {f"look.{k}": v.numpy() for k, v in taught.look.state_dict().items()}
    tensors = look | {f"scorer.{k}": np.ascontiguousarray(v) for k, v in taught.tensors.items()}
    metadata = {"names": json.dumps(taught.names), "info": json.dumps(dict(taught.info))}
    Path(path).write_bytes(save(tensors, metadata))


def _check_texts(names: object, info: object) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"names is {shown(names)}, must be a list of texts")
    if not isinstance(info, dict):
        raise ValueError(f"info is {shown(info)}, must be a mapping")


def _kind(tensor: torch.Tensor | None) -> str:
    """Type and shape of a tensor, for comparisons and messages."""
    return "missing" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"


def load_look(path: str | Path) -> Taught:
    """Read what ``save_look`` wrote.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        names, info = json.loads(metadata["names"]), json.loads(metadata["info"])
        state = {k[5:]: torch.from_numpy(v) for k, v in tensors.items() if k.startswith("look.")}
        scorer = {k[7:]: v for k, v in tensors.items() if k.startswith("scorer.")}
        _check_texts(names, info)
        sizes = len(names), state["projection.weight"].shape[0], state["vectors"].shape[1]
        if 0 in sizes:
            raise ValueError("it has no names, no features or no vectors")
        with torch.device("meta"):  # takes no memory, however large the file says it is
            wanted = Look(*sizes).state_dict()
        for key in wanted.keys() | state.keys():
            own, other = _kind(wanted.get(key)), _kind(state.get(key))
            if own != other:
                raise ValueError(f"{key} is {other}, must be {own}")
        look = Look(*sizes)
        look.load_state_dict(state)
    except Exception as error:  # safetensors, numpy and torch raise many kinds
        raise DataError(
            f"{path}: cannot be read as a second look ({error}); name what zsd_core.teach wrote."
        ) from error
    return Taught(look.eval(), scorer, tuple(names), info)
