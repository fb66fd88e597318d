// Scores of the method "prototypes": the detector's own for seen classes, dot products for others.
//
//   logits      (R, Ks)      float  of the seen classes, as the detector gives them
//   objectness  (R,)         float
//   embeddings  (L, P)       float  of the looks
//   places      (R,)         int32  the look that holds for each region; -1: none
//   prototypes  (Ks + U, P)  float  a row for each class
//   thresholds  (Ks + U,)    float  infinity for a class that is not asked for
//   output      (R, Ks + U)  float
//
// Meaning     l(c) = embedding . prototype. Seen: seen_scale sigmoid(logit), and with a contest
// above
//             0, of a region that a look holds for, times
//               sigmoid(contest (contest_margin - (max_u l(u) - ln n - max(l(s), 0)))),
//             u being the n unseen classes that are asked for. Unseen:
//             sigmoid(l(u) - rivalry max_s max(l(s), 0)) times objectness ^ objectness_power, and 0
//             for regions that no look holds for.
// Twin        zsd_core/scoring/prototypes.py::PrototypeScorer.score; change both in one commit.
#pragma once

#include <cstdint>

namespace zsd {

struct PrototypeParams {
  std::int64_t regions, looked, seen, unseen, width;  // R, L, Ks, U, P
  float seen_scale, objectness_power;
  float contest, contest_margin, rivalry;
};

}  // namespace zsd
