#include "contrastzsd/tensor.h"

#include <utility>

#include "kernels/cpu/block_cache.h"

namespace contrastzsd {

Tensor Tensor::make(std::vector<std::int64_t> shape) {
  Tensor result{std::move(shape), nullptr};
  const std::size_t bytes = std::size_t(result.size()) * sizeof(float);
  auto block = zsd::block_cache().take(bytes ? bytes : sizeof(float));
  result.data = std::shared_ptr<float>(static_cast<float*>(block.data),
                                       [block](float*) { zsd::block_cache().give(block); });
  return result;
}

}  // namespace contrastzsd
