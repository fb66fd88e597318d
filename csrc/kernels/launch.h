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

#include "detect.h"
#include "device_types.h"
#include "fuse.h"
#include "preprocess.h"
#include "propose.h"
#include "roi_align.h"

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
