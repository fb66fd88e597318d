# The CUDA module, zsd_core/_compiled_cuda: apart from the CPU's, loaded only when asked for.
#
#   cmake -DZSD_CUDA=ON [-DZSD_CUDA_ARCHITECTURES=87] ...
#
# Off unless asked for, so that a build on a device never waits for nvcc; asked for where nvcc cannot
# be used, it is an error and no build without it. Each architecture is compiled ahead of time and
# keeps its PTX, which the tests interpret.
option(ZSD_CUDA "Build the CUDA module too" OFF)
set(ZSD_CUDA_ARCHITECTURES "75;80;86;87;89;90;100;110;120"
  CACHE STRING "Compute capabilities of the CUDA module; 87 is Orin, 110 Thor")
if(NOT ZSD_CUDA)
  return()
endif()

# What nvcc, or the lack of one, says to an empty program.
function(zsd_cuda_error result)
  set(nvcc "$ENV{CUDACXX}")
  if(NOT nvcc)
    find_program(nvcc nvcc NO_CACHE)
  endif()
  if(NOT nvcc)
    set(${result} "no nvcc is on the PATH" PARENT_SCOPE)
    return()
  endif()
  separate_arguments(command UNIX_COMMAND "${nvcc}")
  if(DEFINED ENV{CUDAHOSTCXX})
    list(APPEND command -ccbin "$ENV{CUDAHOSTCXX}")
  endif()
  set(probe "${CMAKE_BINARY_DIR}/zsd_cuda_probe")
  file(WRITE "${probe}.cu" "int main() { return 0; }\n")
  execute_process(
    COMMAND ${command} "${probe}.cu" -o "${probe}"
    RESULT_VARIABLE status OUTPUT_VARIABLE said ERROR_VARIABLE said)
  string(REGEX MATCH "[^\n]*error[^\n]*" said "${said}")
  if(NOT said)
    set(said "exit status: ${status}")
  endif()
  set(${result} "${nvcc} makes no program (${said})" PARENT_SCOPE)
endfunction()

include(CheckLanguage)
set(CMAKE_CUDA_ARCHITECTURES ${ZSD_CUDA_ARCHITECTURES})
if(NOT CMAKE_CUDA_COMPILER)
  unset(CMAKE_CUDA_COMPILER CACHE)  # that none was found is no reason not to look again
endif()
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  zsd_cuda_error(why)
  message(FATAL_ERROR
    "ZSD_CUDA=ON, but ${why}: name an nvcc that works with CUDACXX, or a host compiler that it "
    "takes with CUDAHOSTCXX, or build without the CUDA module by -DZSD_CUDA=OFF.")
endif()
enable_language(CUDA)

set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
pybind11_add_module(_compiled_cuda NO_EXTRAS
  csrc/cuda_bindings.cpp
  csrc/cuda_given_bindings.cpp
  csrc/kernels/cuda/all_finite.cu
  csrc/kernels/cuda/calibrate_scores.cu
  csrc/kernels/cuda/detect.cu
  csrc/kernels/cuda/fuse.cu
  csrc/kernels/cuda/preprocess.cu
  csrc/kernels/cuda/product_mlp.cu
  csrc/kernels/cuda/propose.cu
  csrc/kernels/cuda/roi_align.cu
  csrc/kernels/cuda/score_prototypes.cu
  csrc/kernels/cuda/second_look.cu
  csrc/kernels/cuda/spoken_for.cu
  csrc/kernels/cuda/top_regions.cu)
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
