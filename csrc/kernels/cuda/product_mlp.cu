#include "product_mlp.cuh"

namespace zsd {

template cudaError_t launch_product_mlp(const ProductMlpArguments<float, float>&, cudaStream_t);
template cudaError_t launch_product_mlp(const ProductMlpArguments<half, half>&, cudaStream_t);
template cudaError_t launch_product_mlp(const ProductMlpArguments<bfloat16, bfloat16>&,
                                        cudaStream_t);
template cudaError_t launch_product_mlp(const ProductMlpArguments<half, std::int8_t>&,
                                        cudaStream_t);

}  // namespace zsd
