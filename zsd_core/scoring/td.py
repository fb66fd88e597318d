"""TD: a class is the words that describe it, and a region attends to those that it shows.

The class vector of this method is ``td_words`` word vectors, one behind the other, with zeros where
a description has fewer. Region and words are projected into one space; the dot products of a region
with the words of a class, weighted by their own softmax, are the class's logit, and the softmax
over background and classes its score.

References:
    Li et al., "Zero-shot Object Detection with Textual Descriptions", AAAI 2019: the attention of a
    region over the words of a class description, and the matching score of region and attended
    description.

Readings. Words come with their own vectors, each for itself, where the paper runs a recurrent
network over the sentence. One projection of a word serves attention and matching. Dot products are
divided by the root of the width before the attention's softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zsd_core import kernels as compiled_kernels
from zsd_core.config import ScoringConfig
from zsd_core.errors import ConfigError
from zsd_core.scoring.base import VectorScorer, softmax
from zsd_core.scoring.classes import ClassSet, Needed
from zsd_core.semantics import row_lengths

__all__ = ["NOTHING", "TdScorer", "make", "word_width"]

Floats = NDArray[np.float32]
NOTHING = -1e9  # attention logit of a word that is not there


def word_width(config: ScoringConfig) -> int:
    """Width of a word's vector.

    Raises:
        ConfigError: the class vector is not made of so many words, or would be centred as a whole.
    """
    width, rest = divmod(config.vector_dim, config.td_words)
    if rest or config.center:
        raise ConfigError(
            f"ScoringConfig.vector_dim is {config.vector_dim} with td_words {config.td_words} and "
            f"center {config.center}; method 'td' reads td_words vectors of one width behind each "
            "other, not centred: set vector_dim to a multiple of td_words, and center to false."
        )
    return width


class TdScorer(VectorScorer):
    """Attention over words; a prototype is M numbers and a 1 for each word, P = L (M + 1).

    Its tensors: ``background`` (E,), zeros; ``word.weight`` (M, W) of words of W numbers;
    ``region.weight`` (M, D), ``region.bias`` (M,); ``empty.weight`` (1, D), ``empty.bias`` (1,),
    the logit of the background.
    """

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        config: ScoringConfig,
        kernels: ModuleType = compiled_kernels,
        precision: str = "float32",
    ) -> None:
        self._width = word_width(config)
        super().__init__(tensors, config, kernels, precision)
        # BLAS would sum a row another way beside other rows.
        self._words = kernels.PackedLinear(self.tensors["word.weight"])

    @staticmethod
    def shapes() -> dict[str, str]:
        """See ``VectorScorer``."""
        return {
            "background": "E",
            "word.weight": "M W",
            "region.weight": "M D",
            "region.bias": "M",
            "empty.weight": "1 D",
            "empty.bias": "1",
        }

    def background(self) -> Floats:
        """Zeros: the background has no description."""
        return self.tensors["background"]

    def prototypes_of(self, vectors: Floats) -> Floats:
        """Projected words, each with a 1 behind it, or zeros."""
        words = np.ascontiguousarray(vectors.reshape(-1, self._width))  # (K L, W)
        lengths = row_lengths(words)
        there = (lengths > 0).astype(np.float32)
        units = words / np.where(lengths > 0, lengths, 1)
        rows = np.concatenate([self._words(units.astype(np.float32)), there], axis=1)
        return np.asarray(
            rows.reshape(len(vectors), self.config.td_words * rows.shape[1]), np.float32
        )

    def score(
        self,
        embeddings: Floats,
        objectness: Floats,
        classes: ClassSet,
        needed: Needed | None = None,
    ) -> Floats:
        """Scores ``(R, Ks + U)``; see ``Scorer``."""
        tensors, words = self.tensors, self.config.td_words
        regions = embeddings @ tensors["region.weight"].T + tensors["region.bias"]  # (R, M)
        width = regions.shape[1]
        rows = classes.prototypes[1:].reshape(-1, width + 1)  # (K L, M + 1)
        there = rows[:, -1].reshape(-1, words)  # (K, L)
        dots = (regions @ rows[:, :-1].T).reshape(len(regions), *there.shape)
        attention = softmax(dots / np.float32(width**0.5) + np.float32(NOTHING) * (1 - there))
        empty = embeddings @ tensors["empty.weight"].T + tensors["empty.bias"]  # (R, 1)
        logits = np.concatenate([empty, (attention * dots).sum(axis=2)], axis=1)
        return self.weighed(softmax(logits)[:, 1:], objectness, classes)


make = TdScorer
