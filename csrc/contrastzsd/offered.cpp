// Regions that a given detector offers: the best ones, and those worth a second look.
//
// Twin        zsd_core/kernels/offered.py; change both in one commit.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "contrastzsd/regions.h"
#include "contrastzsd/scoring.h"
#include "kernels/boxes.h"
#include "kernels/nms.h"

namespace contrastzsd {

void take_offered(const ProposalConfig& config, const Tensor& boxes, const Tensor& logits,
                  Described& found) {
  const std::int64_t batch = std::int64_t(found.image_sizes.size() / 2);
  expect_shape("trunk", "boxes", boxes, {batch, -1, 4});
  const std::int64_t queries = boxes.shape[1];
  expect_shape("trunk", "logits", logits, {batch, queries, -1});
  const std::int64_t classes = logits.shape[2];
  std::vector<const float*> kept;  // logits of each region
  for (std::int64_t b = 0; b < batch; ++b) {
    const float* own = logits.data.get() + b * logits.row();
    std::vector<float> best(static_cast<std::size_t>(queries));
    for (std::int64_t q = 0; q < queries; ++q)
      best[std::size_t(q)] = *std::max_element(own + q * classes, own + (q + 1) * classes);
    std::vector<std::int64_t> order = zsd::order_by_score(best.data(), queries);
    order.resize(std::size_t(std::min(queries, config.post_nms_top)));
    const float height = found.image_sizes[std::size_t(2 * b)];
    const float width = found.image_sizes[std::size_t(2 * b + 1)];
    for (const std::int64_t q : order) {
      const float* shares = boxes.data.get() + b * boxes.row() + 4 * q;
      float roi[4];
      for (std::size_t i = 0; i < 4; ++i)
        roi[i] = zsd::clip(shares[i], 1.0f) * (i % 2 ? height : width);
      if (!zsd::has_min_size({roi[0], roi[1], roi[2], roi[3]}, float(config.min_size))) continue;
      found.rois.insert(found.rois.end(), roi, roi + 4);
      found.batch_indices.push_back(std::int32_t(b));
      found.objectness.push_back(stable_sigmoid(best[std::size_t(q)]));
      kept.push_back(own + q * classes);
    }
  }
  found.logits = Tensor::make({found.regions(), classes});
  for (std::size_t r = 0; r < kept.size(); ++r)
    std::copy_n(kept[r], classes, found.logits.data.get() + std::int64_t(r) * classes);
}

std::vector<std::int64_t> second_look(const RegionConfig& config, float least_objectness,
                                      const Described& found) {
  std::vector<std::int64_t> chosen;
  const std::int64_t regions = found.regions();
  for (std::int64_t start = 0, end = 0; start < regions; start = end) {
    while (end < regions &&
           found.batch_indices[std::size_t(end)] == found.batch_indices[std::size_t(start)])
      ++end;
    zsd::BoxColumns boxes(end - start);  // they are in order, best first
    for (std::int64_t r = start; r < end; ++r) {
      const float* roi = found.rois.data() + 4 * r;
      boxes.push({roi[0], roi[1], roi[2], roi[3]});
    }
    std::vector<std::int64_t> kept(std::size_t(end - start));
    kept.resize(std::size_t(
        zsd::nms_sorted(boxes, config.look_nms, std::min(config.look, end - start), kept.data())));
    for (const std::int64_t position : kept)
      if (position == 0 || found.objectness[std::size_t(start + position)] >= least_objectness)
        chosen.push_back(start + position);
  }
  return chosen;
}

std::vector<std::int64_t> spoken_for(const RegionConfig& config, const Described& found) {
  const std::int64_t none = std::int64_t(found.looked.size());
  const float limit = zsd::iou_limit(config.look_nms);
  const auto box = [&](std::int64_t r) {
    const float* roi = found.rois.data() + 4 * r;
    return zsd::Box{roi[0], roi[1], roi[2], roi[3]};
  };
  std::vector<std::int64_t> places(std::size_t(found.regions()), none);
  for (std::int64_t r = 0; r < found.regions(); ++r) {
    for (std::int64_t place = 0; place < none && places[std::size_t(r)] == none; ++place) {
      const std::int64_t best = found.looked[std::size_t(place)];
      if (found.batch_indices[std::size_t(best)] != found.batch_indices[std::size_t(r)]) continue;
      const zsd::Box a = box(best), b = box(r);
      if (zsd::iou(a, b, zsd::area(a), zsd::area(b)) > limit) places[std::size_t(r)] = place;
    }
  }
  return places;
}

}  // namespace contrastzsd
