#include "../calibrate_scores.h"

#include "thread_pool.h"

namespace zsd {

void calibrate_scores(const CalibrateParams& p, const float* scores, const float* parameters,
                      const float* floors, float* output) {
  parallel_for(p.regions, 32, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float* row = scores + r * p.classes;
      float* to = output + r * p.classes;
      for (std::int64_t c = 0; c < p.classes; ++c) {
        const float floor = floors ? floors[c] : 0.0f;
        to[c] = row[c] > floor ? calibrated(row[c], parameters + 3 * c) : 0.0f;
      }
    }
  });
}

}  // namespace zsd
