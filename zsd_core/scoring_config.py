"""Options of the scoring methods; a part of the model's configuration, ``zsd_core.config``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zsd_core.errors import ConfigError
from zsd_core.options import check_max, check_not_negative, check_positive

__all__ = ["ScoringConfig"]

Activation = Literal["softmax", "sigmoid", "raw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringConfig:
    """The visual-semantic alignment: p_v, p_s, g_s, g_u, S and how eq. 14 reads them.

    Attributes:
        method: the scoring method, a file of ``zsd_core/scoring``: "contrastzsd"; "conse",
            "cosine", "hre", "pl", "blc" and "td", which the paper compares with; or "prototypes",
            for a head that is an image classifier.
        learned: the training half, a file of ``zsd_core/learning/models/scorers``, where it is not
            of the method's name: "sb" and "san" learn "cosine" in two ways.
        vector_dim: E, width of a class vector (300 word2vec, 384 MiniLM, 64 aPY).
        joint_dim: D, width of the joint space.
        hidden_dim: M, hidden width of g_s and g_u.
        contrast_dim: width of h_v's output, training only.
        seen_activation: last layer of g_s: "linear", or "relu" as eq. 6 says (it can start dead).
        fusion: o_s in eq. 14: "softmax" (default), "sigmoid" or "raw".
        similarity_temperature: of the softmax in S; 1 is the paper's formula.
        seen_scale: multiplies the final scores of seen classes; 1 is the paper's, 1,000 the
            most. Above 1, scores of a bundle without calibration can exceed 1.
        objectness_power: final scores are multiplied by objectness ** power; 0 is the paper's.
        seen_evidence: final scores of unseen classes are also multiplied by what the region's seen
            classes say of them, softmax(o_s of the seen) S; the paper has no such factor.
        background: where a_0 comes from: "rpn" (learned there too), "head" (learned by eq. 8
            alone) or "mean" (fixed at the mean of the seen vectors).
        background_unit: a_0 is scaled to unit length before use.
        center: the mean of the seen vectors is subtracted from every class vector, which is then
            scaled to unit length again; sentence encoders give all names a large common part.
        conse_top: how many of a region's most probable seen classes "conse" and "hre" combine.
        blc_stages: of "blc": stages of the cascade.
        td_words: of "td": words of a description, whose vectors make up a class vector.
        cosine_background: of "cosine": a region that is nearest to the background has no class.
        kernel_weight: of "prototypes": how much more alike near names are than their cosine says.
        kernel_width: of "prototypes": distance, as 1 - cosine, at which this fades.
        evidence: of "prototypes": weight of what the classifier's own names say of a class.
        contest: of "prototypes": how much an unseen class that the look prefers takes from the
            trunk's own classes; 0 takes nothing.
        contest_margin: of "prototypes": by how much, in logits, it must be ahead to take half.
        rivalry: of "prototypes": how much a seen class that the look finds likely takes from the
            logits of the unseen ones; 0 takes nothing.
    """

    method: str = "contrastzsd"
    learned: str = ""
    vector_dim: int = 300
    joint_dim: int = 2048
    hidden_dim: int = 1024
    contrast_dim: int = 512
    seen_activation: Literal["linear", "relu"] = "linear"
    fusion: Activation = "softmax"
    similarity_temperature: float = 1.0
    seen_scale: float = 1.0
    objectness_power: float = 0.0
    seen_evidence: bool = False
    background: Literal["rpn", "head", "mean"] = "head"
    background_unit: bool = True
    center: bool = False
    conse_top: int = 10
    blc_stages: int = 3
    td_words: int = 8
    cosine_background: bool = False
    kernel_weight: float = 3.0
    kernel_width: float = 0.4
    evidence: float = 0.2
    contest: float = 0.0
    contest_margin: float = 0.0
    rivalry: float = 0.0

    def __post_init__(self) -> None:
        check_positive(
            self,
            "kernel_width",
            "vector_dim",
            "joint_dim",
            "hidden_dim",
            "contrast_dim",
            "conse_top",
            "blc_stages",
            "td_words",
            "similarity_temperature",
            "seen_scale",
        )
        check_not_negative(self, "objectness_power", "kernel_weight", "evidence")
        check_not_negative(self, "contest", "rivalry")
        check_max(self, 1 << 20, "vector_dim", "joint_dim", "hidden_dim", "contrast_dim")
        check_max(self, 1 << 20, "conse_top", "blc_stages", "td_words")
        check_max(self, 1000, "seen_scale")
        if self.center and self.background == "mean":
            raise ConfigError(
                "ScoringConfig.background is 'mean', which is zero once center is True; learn a_0 "
                "with background: head."
            )
