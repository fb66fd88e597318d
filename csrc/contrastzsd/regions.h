// Where regions come from, one file a source, and which of them the head sees.
#pragma once

#include <cstdint>
#include <vector>

#include "contrastzsd/config.h"
#include "contrastzsd/pipeline.h"
#include "contrastzsd/tensor.h"

namespace contrastzsd {

// Throws BundleError unless a network's output has this shape; -1 is any size above 0.
void expect_shape(const char* stage, const char* output, const Tensor& tensor,
                  const std::vector<std::int64_t>& wanted);

// Each adds rois, batch_indices, objectness and logits to `found`, whose image_sizes are known.
// "anchors": scored, decoded and pruned.
void propose_anchors(const ProposalConfig& config, const Tensor& objectness, const Tensor& deltas,
                     Described& found);
// "queries": boxes (N, Q, 4) as shares of width and height, and logits (N, Q, Ks).
void take_offered(const ProposalConfig& config, const Tensor& boxes, const Tensor& logits,
                  Described& found);

// Positions of the regions that are worth a second look, ascending: those that others do not
// overlap, with at least this objectness, and the best of every image.
std::vector<std::int64_t> second_look(const RegionConfig& config, float least_objectness,
                                      const Described& found);

// The place in `found.looked` whose look holds for each region: that of the best region which it
// overlaps by more than the suppression of looks allows; L for none.
std::vector<std::int64_t> spoken_for(const RegionConfig& config, const Described& found);

}  // namespace contrastzsd
