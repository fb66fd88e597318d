#include "simd.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <atomic>
#include <cstring>

namespace zsd {
namespace {

#if defined(__x86_64__)
// The 256-bit instructions; not every compiler knows their name in __builtin_cpu_supports.
bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

struct Available {
  const SimdKernels* list[6] = {};

  Available() {
    int count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && avx2;
    if (avx512 && __builtin_cpu_supports("avx512vnni")) list[count++] = &kSimdAvx512Vnni;
    if (avx512) list[count++] = &kSimdAvx512;
    if (avx2 && has_avx_vnni()) list[count++] = &kSimdAvx2Vnni;
    if (avx2) list[count++] = &kSimdAvx2;
#elif defined(__aarch64__) && defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) list[count++] = &kSimdNeonDot;
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
