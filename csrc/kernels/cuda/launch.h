// The operators on a GPU: raw device pointers, a stream, a status. Nothing here synchronises or
// allocates, and every shape of a result is fixed before the launch, so that all of it can be
// captured in a CUDA graph; where the number of results depends on the data it is written to a
// `count` and the rows behind it are zero, but for their batch index: -1, an image that roi_align
// and detect pass over.
//
// Boxes are float32 x1 y1 x2 y2, pixels of the network input. T is float, half or bfloat16; sums
// are float for each.
// Includes    CUDA and the standard library only; ../cuda_bindings.cpp calls these.
#pragma once

#include "../calibrate_scores.h"
#include "../detect.h"
#include "../fuse.h"
#include "../offered.h"
#include "../preprocess.h"
#include "../propose.h"
#include "../prototypes.h"
#include "../roi_align.h"
#include "device_types.h"

namespace zsd {

// (R, D), (K, D) to (R, K): see product_mlp.cuh.
template <typename T, typename Weight = T>
struct ProductMlpArguments {
  const T* regions;           // (R, D)
  const T* prototypes;        // (K, D)
  const Weight* weight1;      // (M, D)
  const float* weight_scale;  // (M,), for int8: weight1 is slope * direction + scale * integer
  const float* slope;         // (M,), for int8; else unused, as weight_scale and direction
  const float* direction;     // (D,)
  const float* bias1;         // (M,)
  const float* weight2;       // (M,)
  const float* bias2;         // (1,)
  float* output;              // (R, K)
  int num_regions;
  int num_classes;
  int depth;   // D
  int hidden;  // M
};
template <typename T, typename Weight>
cudaError_t launch_product_mlp(const ProductMlpArguments<T, Weight>& params, cudaStream_t stream);

// Features, gradients and output of type T; the features' gradient is float and overwritten.
template <typename T>
cudaError_t launch_roi_align(const RoiAlignParams& params, const T* features, const float* rois,
                             const std::int32_t* batch_indices, T* output, cudaStream_t stream);
template <typename T>
cudaError_t launch_roi_align_backward(const RoiAlignParams& params, const T* gradient,
                                      const float* rois, const std::int32_t* batch_indices,
                                      float* features, cudaStream_t stream);

// Ks and U of its parameters are room; `in_use` says how many columns of each are classes.
struct FuseInput {
  const float* seen_logits;      // (R, 1 + Ks + U)
  const float* unseen_logits;    // (R, U), before the sigmoid
  const float* seen_similarity;  // (Ks, U)
  const float* objectness;       // (R,) or null
  const std::int32_t* in_use;    // (2,) of Ks and of U, or null: all
  bool rectify;                  // seen logits below 0 count as 0
};
cudaError_t launch_fuse(const FuseParams& params, const FuseInput& input, float* output,
                        cudaStream_t stream);

// In place if `output` is `scores`.
cudaError_t launch_calibrate_scores(const CalibrateParams& params, const float* scores,
                                    const float* parameters, float* output, cudaStream_t stream);

// `finite` becomes 0 if a number is NaN or infinite, and stays what it is otherwise.
struct FiniteInput {
  const float* values;         // (R, D)
  const std::int32_t* owners;  // (R,), negative for rows that do not count; or null: all do
  std::int64_t rows, width;    // R, D
};
cudaError_t launch_all_finite(const FiniteInput& input, std::int32_t* finite, cudaStream_t stream);

template <typename T>
cudaError_t launch_preprocess(const PreprocessParams& params, const std::uint8_t* image, T* output,
                              cudaStream_t stream);

// Room for every image's full share.
struct ProposeOutput {
  float* rois;                  // (B post_nms_top, 4)
  std::int32_t* batch_indices;  // (B post_nms_top,)
  float* scores;                // (B post_nms_top,)
  std::int32_t* count;          // (1,)
};
std::size_t propose_workspace(const ProposeParams& params);
cudaError_t launch_propose(const ProposeParams& params, const float* objectness,
                           const float* deltas, const float* anchors, const float* image_sizes,
                           const ProposeOutput& output, void* workspace, cudaStream_t stream);

// Room for every image's full share, like that of propose.
struct TopRegionsOutput {
  float* rois;                  // (B count, 4)
  std::int32_t* batch_indices;  // (B count,)
  float* objectness;            // (B count,)
  float* logits;                // (B count, Ks)
  std::int32_t* count;          // (1,)
};
std::size_t top_regions_workspace(const TopRegionsParams& params);
cudaError_t launch_top_regions(const TopRegionsParams& params, const float* boxes,
                               const float* logits, const float* image_sizes,
                               const TopRegionsOutput& output, void* workspace,
                               cudaStream_t stream);

// The regions' positions among all, and a copy of each for roi_align; rows behind `count` have
// position -1. `num_regions` is the count that top_regions wrote.
struct SecondLookOutput {
  std::int32_t* positions;      // (B count,)
  float* rois;                  // (B count, 4)
  std::int32_t* batch_indices;  // (B count,)
  std::int32_t* count;          // (1,)
};
std::size_t second_look_workspace(const SecondLookParams& params);
cudaError_t launch_second_look(const SecondLookParams& params, const float* rois,
                               const std::int32_t* batch_indices, const std::int32_t* num_regions,
                               const SecondLookOutput& output, void* workspace,
                               cudaStream_t stream);

struct SpokenForParams {
  std::int64_t regions, looked;  // R, L
  float limit;                   // IoU; from 1 on a look holds for its own region only
};
struct SpokenForInput {
  const Box* rois;                    // (R,)
  const std::int32_t* batch_indices;  // (R,)
  const std::int32_t* positions;      // (L,)
  const float* deltas;                // (L, 4)
};
cudaError_t launch_spoken_for(const SpokenForParams& params, const SpokenForInput& input,
                              std::int32_t* places, float* offsets, cudaStream_t stream);

// Ks and U of its parameters are room; `in_use` says how many columns of each are classes.
struct PrototypeInput {
  const float* logits;         // (R, Ks)
  const float* objectness;     // (R,)
  const float* embeddings;     // (L, P)
  const std::int32_t* places;  // (R,)
  const float* prototypes;     // (Ks + U, P)
  const float* thresholds;     // (Ks + U,)
  const std::int32_t* in_use;  // (2,) of Ks and of U, or null: all
};
std::size_t score_prototypes_workspace(const PrototypeParams& params);
cudaError_t launch_score_prototypes(const PrototypeParams& params, const PrototypeInput& input,
                                    float* output, void* workspace, cudaStream_t stream);

// At most this many regions in a call: one class's order of them lies in shared memory.
constexpr int kMostDetectRegions = 3500;
struct DetectOutput {
  float* boxes;                 // (B max_detections, 4)
  float* scores;                // (B max_detections,)
  std::int32_t* columns;        // (B max_detections,)
  std::int32_t* batch_indices;  // (B max_detections,)
  std::int32_t* count;          // (1,)
};
std::size_t detect_workspace(const DetectParams& params);
cudaError_t launch_detect(const DetectParams& params, const float* class_scores,
                          const float* deltas, const float* rois, const std::int32_t* batch_indices,
                          const float* image_sizes, const float* thresholds,
                          const DetectOutput& output, void* workspace, cudaStream_t stream);

}  // namespace zsd
