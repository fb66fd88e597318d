#include "contrastzsd/calibration.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

namespace contrastzsd {
namespace {

constexpr CalibrationConfig::Curve kIdentity = {1, 1, 0};
constexpr double kSlack = 1e-5;  // of a threshold: the kernel computes in float, floors in double

double probability(const CalibrationConfig::Curve& curve, double score) {
  if (!(score > 0)) return 0;
  const double rest = std::max(1 - score, 0x1p-24);
  const double logit = curve[0] * std::log(score) - curve[1] * std::log(rest) + curve[2];
  return 1 / (1 + std::exp(-logit));
}

// A score up to which no probability exceeds a threshold, close to the largest such score.
float floor_of(const CalibrationConfig::Curve& curve, float threshold) {
  if (threshold < 0 || std::isinf(threshold))
    return std::copysign(std::numeric_limits<float>::infinity(), threshold);
  double low = 0, high = 1;
  const double wanted = double(threshold) * (1 - kSlack);
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (probability(curve, middle) <= wanted ? low : high) = middle;
  }
  return std::nextafter(float(low), 0.0f);
}

}  // namespace

std::vector<float> curves_of(const CalibrationConfig& config, std::int64_t seen,
                             std::int64_t unseen) {
  std::vector<float> result;
  if (!config.seen && !config.unseen) return result;
  for (std::int64_t c = 0; c < seen + unseen; ++c)
    for (const double number : (c < seen ? config.seen : config.unseen).value_or(kIdentity))
      result.push_back(float(number));
  return result;
}

std::vector<float> floors_of(const CalibrationConfig& config, const std::vector<float>& thresholds,
                             std::int64_t seen) {
  if (!config.seen && !config.unseen) return thresholds;
  std::vector<float> floors;
  std::map<float, float> known[2];  // of each role
  for (std::size_t c = 0; c < thresholds.size(); ++c) {
    const bool is_seen = std::int64_t(c) < seen;
    const auto [place, is_new] = known[is_seen].emplace(thresholds[c], 0.0f);
    if (is_new)
      place->second =
          floor_of((is_seen ? config.seen : config.unseen).value_or(kIdentity), thresholds[c]);
    floors.push_back(place->second);
  }
  return floors;
}

}  // namespace contrastzsd
