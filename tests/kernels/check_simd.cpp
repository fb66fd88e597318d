// The vector paths against plain double loops, for machines that only an emulator offers.
//
// Prints one line per path and check; exits with 1 when an error is too large.

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "kernels/cpu/simd.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/linear.h"
#include "kernels/product_mlp.h"
#include "kernels/roi_align.h"

namespace {

using Vector = std::vector<float>;

std::mt19937 generator(0);

Vector random_vector(std::int64_t size, float low, float high) {
  std::uniform_real_distribution<float> uniform(low, high);
  Vector values(static_cast<std::size_t>(size));
  for (float& value : values) value = uniform(generator);
  return values;
}

bool report(const char* what, double error, double limit) {
  std::printf("%s %s: %.1e, limit %.0e\n", zsd::simd().name, what, error, limit);
  return error <= limit;
}

bool check_linear() {
  const int count = 31, inputs = 301, outputs = 37;
  const Vector rows = random_vector(count * inputs, -1, 1);
  const Vector weight = random_vector(outputs * inputs, -1, 1);
  const zsd::PackedLinear linear(weight.data(), outputs, inputs);
  Vector together(count * outputs), alone(count * outputs);
  linear.multiply(count, rows.data(), together.data());
  for (int n = 0; n < count; ++n) linear.multiply(1, &rows[n * inputs], &alone[n * outputs]);
  double worst = 0;
  for (int n = 0; n < count; ++n)
    for (int m = 0; m < outputs; ++m) {
      double sum = 0;
      for (int d = 0; d < inputs; ++d) sum += double(rows[n * inputs + d]) * weight[m * inputs + d];
      worst = std::max(worst, std::abs(sum - together[n * outputs + m]));
    }
  return report("linear", worst, 1e-4) & report("a row alone", together == alone ? 0 : 1, 0);
}

bool check_product_mlp(zsd::MlpPrecision precision, double limit) {
  const int regions = 29, classes = 3, joint = 1100, hidden = 37;
  const Vector r = random_vector(regions * joint, 0, 1), w1 = random_vector(hidden * joint, -1, 1);
  Vector p = random_vector(classes * joint, -0.3f, 1);
  for (float& value : p) value = value < 0 ? 0 : value;
  const Vector b1 = random_vector(hidden, -1, 1), w2 = random_vector(hidden, -0.05f, 0.05f);
  const float b2 = 0.5f;
  const zsd::PackedMlp packed({w1.data(), b1.data(), w2.data(), &b2, joint, hidden}, precision);
  Vector output(regions * classes);
  zsd::product_mlp(regions, classes, r.data(), p.data(), {{&packed, 0, output.data()}});
  double worst = 0;
  for (int i = 0; i < regions; ++i)
    for (int k = 0; k < classes; ++k) {
      double logit = b2;
      for (int m = 0; m < hidden; ++m) {
        double sum = b1[m];
        for (int d = 0; d < joint; ++d)
          sum += double(r[i * joint + d]) * p[k * joint + d] * w1[m * joint + d];
        logit += w2[m] * (sum > 0 ? sum : 0);
      }
      worst = std::max(worst, std::abs(logit - output[i * classes + k]));
    }
  const bool int8 = precision == zsd::MlpPrecision::kInt8;
  return report(int8 ? "product_mlp int8" : "product_mlp float32", worst, limit);
}

bool check_roi_align() {
  const zsd::RoiAlignParams p{1, 19, 9, 13, 5, 3, 7, 0.25f, 2};
  const Vector features = random_vector(19 * 9 * 13, -1, 1);
  Vector rois = random_vector(5 * 4, 0, 20);
  for (int i = 0; i < 5; ++i)
    for (int c = 2; c < 4; ++c) rois[4 * i + c] += 25;
  const std::vector<std::int32_t> images(5, 0);
  Vector output(5 * 19 * 21);
  zsd::roi_align(p, 1, features.data(), rois.data(), images.data(), output.data());
  double worst = 0, product = 0, transposed = 0;
  for (int i = 0; i < 5; ++i) {
    const float* roi = &rois[4 * i];
    const auto y = zsd::roi_axis<double>(roi[1], roi[3], 0.25, 3, 9, 2);
    const auto x = zsd::roi_axis<double>(roi[0], roi[2], 0.25, 7, 13, 2);
    for (int c = 0; c < 19; ++c) {
      const std::vector<double> plane(&features[c * 117], &features[c * 117] + 117);
      for (int bin = 0; bin < 21; ++bin) {
        double mean = 0;
        for (int s = 0; s < 4; ++s)
          mean += zsd::sample_bilinear(plane.data(), 9, 13, y.position(bin / 7, s / 2),
                                       x.position(bin % 7, s % 2)) /
                  4;
        worst = std::max(worst, std::abs(mean - output[(i * 19 + c) * 21 + bin]));
      }
    }
  }
  // The backward is the transpose: <g, A f> = <A' g, f>.
  const Vector gradient = random_vector(5 * 19 * 21, -1, 1);
  Vector map(19 * 9 * 13);
  zsd::roi_align_backward(p, gradient.data(), rois.data(), images.data(), map.data());
  for (std::size_t i = 0; i < output.size(); ++i) product += double(gradient[i]) * output[i];
  for (std::size_t i = 0; i < map.size(); ++i) transposed += double(map[i]) * features[i];
  return report("roi_align", worst, 1e-5) &
         report("roi_align_backward", std::abs(product - transposed), 1e-3);
}

}  // namespace

int main() {
  bool good = true;
  zsd::set_num_threads(2);
  for (const zsd::SimdKernels* const* path = zsd::simd_available(); *path; ++path) {
    zsd::set_simd((*path)->name);
    good &= check_linear();
    good &= check_product_mlp(zsd::MlpPrecision::kFloat32, 1e-3);
    good &= check_product_mlp(zsd::MlpPrecision::kInt8, 0.1);
    good &= check_roi_align();
  }
  return good ? 0 : 1;
}
