#include "simd.h"

#include <atomic>
#include <cstring>

namespace zsd {
namespace {

struct Available {
  const SimdKernels* list[4] = {};

  Available() {
    int count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) list[count++] = &kSimdAvx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list[count++] = &kSimdAvx2;
#endif
    list[count] = &kSimdBase;
  }
};

std::atomic<const SimdKernels*> chosen{nullptr};

}  // namespace

const SimdKernels* const* simd_available() {
  static const Available available;
  return available.list;
}

const SimdKernels& simd() {
  const SimdKernels* current = chosen.load(std::memory_order_relaxed);
  return current ? *current : *simd_available()[0];
}

bool set_simd(const char* name) {
  for (const SimdKernels* const* kernels = simd_available(); *kernels; ++kernels) {
    if (std::strcmp((*kernels)->name, name) != 0) continue;
    chosen = *kernels;
    return true;
  }
  return false;
}

}  // namespace zsd
