# The CUDA module, zsd_core/_compiled_cuda: apart from the CPU's, loaded only when asked for.
#
#   cmake -DZSD_CUDA=ON [-DZSD_CUDA_ARCHITECTURES=87] ...
#
# Off unless asked for, so that a build on a device never waits for nvcc. Each architecture is
# compiled ahead of time and keeps its PTX, which the tests interpret.
option(ZSD_CUDA "Build the CUDA module where nvcc is found" OFF)
set(ZSD_CUDA_ARCHITECTURES "75;80;86;87;89;90;100;110;120"
  CACHE STRING "Compute capabilities of the CUDA module; 87 is Orin, 110 Thor")
if(NOT ZSD_CUDA)
  return()
endif()

include(CheckLanguage)
set(CMAKE_CUDA_ARCHITECTURES ${ZSD_CUDA_ARCHITECTURES})
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(STATUS "ZSD_CUDA: no nvcc found, the CUDA module is skipped (set CUDACXX to name it)")
  return()
endif()
enable_language(CUDA)

set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
pybind11_add_module(_compiled_cuda NO_EXTRAS
  csrc/cuda_bindings.cpp
  csrc/kernels/detect.cu
  csrc/kernels/fuse.cu
  csrc/kernels/preprocess.cu
  csrc/kernels/product_mlp.cu
  csrc/kernels/propose.cu
  csrc/kernels/roi_align.cu)
target_include_directories(_compiled_cuda
  PRIVATE csrc ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
set_target_properties(_compiled_cuda PROPERTIES
  CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
# No contraction to FMA: boxes are then decoded and compared as on the CPU. The tensor cores and
# fmaf do not depend on it.
target_compile_options(_compiled_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false --threads=2 -Xptxas=-warn-spills>)
string(REPLACE ";" " " zsd_cuda_list "${ZSD_CUDA_ARCHITECTURES}")
target_compile_definitions(_compiled_cuda PRIVATE "ZSD_CUDA_ARCHITECTURES=\"${zsd_cuda_list}\"")
install(TARGETS _compiled_cuda LIBRARY DESTINATION zsd_core)
