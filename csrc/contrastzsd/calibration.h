// Scores that are probabilities; the C++ half of zsd_core/calibration.py.
#pragma once

#include <cstdint>
#include <vector>

#include "contrastzsd/config.h"

namespace contrastzsd {

// (seen + unseen, 3) a, b, c of every column, what zsd::calibrate_scores reads; empty: nothing
// changes.
std::vector<float> curves_of(const CalibrationConfig& config, std::int64_t seen,
                             std::int64_t unseen);

// Scores before calibration that `thresholds` (C,) on probabilities ask for: one up to its floor
// becomes no probability above its threshold, so scoring can leave it out.
std::vector<float> floors_of(const CalibrationConfig& config, const std::vector<float>& thresholds,
                             std::int64_t seen);

}  // namespace contrastzsd
