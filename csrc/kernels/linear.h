// Rows times the transpose of a matrix that stays, as the layers and cosines of class vectors are.
//
//   weight  (M, D)  float  packed once
//   rows    (N, D)  float
//   output  (N, M)  float
//
// Meaning     output[n, m] = rows[n] . weight[m]
// Order       the sum over d of one (n, m) depends neither on the number of threads nor on the
//             other rows: a row alone has the bits it has among others, unlike in a BLAS.
// Threads     few rows stay in the caller's thread: waking another costs more than they do.
// Twin        zsd_core/kernels/reference.py::PackedLinear; change both in one commit.
#pragma once

#include <cstdint>
#include <vector>

namespace zsd {

struct SimdKernels;

class PackedLinear {
 public:
  PackedLinear(const float* weight, std::int64_t outputs, std::int64_t inputs);

  std::int64_t outputs() const { return outputs_; }
  void multiply(std::int64_t num_rows, const float* rows, float* output) const;

 private:
  void multiply_chunk(std::int64_t num_rows, const float* rows, float* output) const;

  const SimdKernels* kernels_;
  std::int64_t outputs_, inputs_;
  std::vector<float> weight_;          // (panels, D, columns)
  std::vector<std::int32_t> offsets_;  // (D,): d * columns
};

}  // namespace zsd
