// Scores to probabilities: beta calibration, p = 1 / (1 + exp(-(a ln s - b ln(1 - s) + c))).
//
//   scores      (R, C)  float
//   parameters  (C, 3)  float  a, b, c of each column; a and b are not negative
//   floors      (C,)    float  or null: 0
//   output      (R, C)  float  may be `scores` itself
//
// Meaning     a score that is not above its floor, or not above 0, becomes 0; NaN too. The order of
//             a column's scores stays.
// Edges       1 - s counts as at least 2^-24, its smallest value below 1 in float.
// Twin        zsd_core/kernels/reference.py::calibrate_scores; change both in one commit.
// References  Kull et al., "Beta calibration", AISTATS 2017.
#pragma once

#include <cmath>
#include <cstdint>

#include "common.h"

namespace zsd {

struct CalibrateParams {
  std::int64_t regions, classes;  // R, C
};

ZSD_HD float calibrated(float score, const float* parameters) {
  if (!(score > 0.0f)) return 0.0f;
  const float rest = larger(1.0f - score, 0x1p-24f);
  const float logit = parameters[0] * logf(score) - parameters[1] * logf(rest) + parameters[2];
  return 1.0f / (1.0f + expf(-logit));
}

void calibrate_scores(const CalibrateParams& params, const float* scores, const float* parameters,
                      const float* floors, float* output);

}  // namespace zsd
