#include <algorithm>

#include "contrastzsd/regions.h"
#include "kernels/propose.h"

namespace contrastzsd {

// Anchors, decoded and pruned.
void propose_anchors(const ProposalConfig& config, const Tensor& objectness, const Tensor& deltas,
                     Described& found) {
  const std::vector<float> anchors = config.anchors();
  const std::int64_t batch = std::int64_t(found.image_sizes.size() / 2);
  expect_shape("trunk", "objectness", objectness,
               {batch, std::int64_t(anchors.size() / 4), -1, -1});
  const std::vector<std::int64_t>& shape = objectness.shape;
  expect_shape("trunk", "deltas", deltas, {batch, 4 * shape[1], shape[2], shape[3]});
  const std::int64_t most = objectness.row();
  const zsd::ProposeParams params{batch,
                                  shape[1],
                                  shape[2],
                                  shape[3],
                                  std::min(config.pre_nms_top, most),
                                  std::min(config.post_nms_top, most),
                                  int(config.stride),
                                  config.nms_threshold,
                                  float(config.min_size)};
  const std::int64_t capacity = params.post_nms_top;
  const Tensor rois = Tensor::make({batch, capacity, 4}), scores = Tensor::make({batch, capacity});
  std::vector<std::int32_t> counts(std::size_t(batch), 0);
  zsd::propose(params, objectness.data.get(), deltas.data.get(), anchors.data(),
               found.image_sizes.data(), rois.data.get(), scores.data.get(), counts.data());
  for (std::int64_t b = 0; b < batch; ++b) {
    const float *own = rois.data.get() + b * rois.row(), *s = scores.data.get() + b * capacity;
    const std::int32_t count = counts[std::size_t(b)];
    found.rois.insert(found.rois.end(), own, own + 4 * count);
    found.objectness.insert(found.objectness.end(), s, s + count);
    found.batch_indices.insert(found.batch_indices.end(), std::size_t(count), std::int32_t(b));
  }
  found.logits = Tensor::make({found.regions(), 0});
}

}  // namespace contrastzsd
