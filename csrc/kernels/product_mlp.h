// Score of every (region, class) pair: element-wise product, then a two-layer MLP (eq. 6).
//
//   regions     (R, D)  float
//   prototypes  (K, D)  float
//   weight1     (M, D)  float, bias1 (M,), weight2 (M,), bias2 (1,)
//   output      (R, K)  float
//
// Meaning     output[r, k] = weight2 . relu(weight1 (regions[r] * prototypes[k]) + bias1) + bias2
// Memory      neither (R, K, D) nor (R, K, M) exists: the product is formed while a panel is
//             packed, the hidden layer is reduced where it is computed.
// Zeros       an entry of a prototype that is exactly 0 is skipped, exactly.
// Order       the sums over d of one (r, k, m) and over m of one (r, k) do not depend on the
//             number of threads nor on the other regions and classes.
// Shared      this contract and its twin, but no code: the loops of a CPU (cpu/product_mlp.cpp) and
//             of tensor cores (cuda/product_mlp.cuh) have nothing scalar in common.
// Twin        zsd_core/kernels/reference.py::product_mlp; change both in one commit.
#pragma once

#include <cstdint>
#include <vector>

#include "common.h"

namespace zsd {

// First and second layer as the model stores them.
struct MlpWeights {
  const float *weight1, *bias1, *weight2, *bias2;
  std::int64_t joint, hidden;  // D, M
};

struct SimdKernels;

// kInt8: as mlp_int8.h defines it; zeros are not skipped.
enum class MlpPrecision { kFloat32, kInt8 };

// weight1 in panels of hidden units, as the inner loop reads it: set once, asked many times.
class PackedMlp {
 public:
  PackedMlp(const MlpWeights& weights, MlpPrecision precision);

  std::int64_t joint() const { return joint_; }
  std::int64_t hidden() const { return hidden_; }
  MlpPrecision precision() const { return precision_; }

 private:
  friend class ProductMlpRun;
  void find_direction(const MlpWeights& weights);
  void pack_row_int8(const float* row, std::int64_t m);

  const SimdKernels* kernels_;
  MlpPrecision precision_;
  std::int64_t joint_, hidden_, panels_;
  std::vector<float> weight1_;             // (panels, D, columns), or
  std::vector<std::int8_t> weight1_int8_;  // (panels, D / 4, columns, 4), and
  std::vector<float> direction_;           // (D,), and
  std::vector<float> slopes_;              // (panels, columns), and
  std::vector<float> column_scales_;       // (panels, columns): the rest / weight1_int8
  std::vector<float> bias1_, weight2_;     // (panels, columns)
  float bias2_;
};

// One scorer's share of a call: the classes from `first_class` on, to output (R, K - first_class).
struct MlpOutput {
  const PackedMlp* mlp;
  std::int64_t first_class;
  float* output;
};

// Scores all outputs in one pass over the regions; D and precision of all must agree. With `wanted`
// (R, K), only pairs that are not 0 there are scored and written.
void product_mlp(std::int64_t num_regions, std::int64_t num_classes, const float* regions,
                 const float* prototypes, const std::vector<MlpOutput>& outputs,
                 const std::uint8_t* wanted = nullptr);

}  // namespace zsd
