# The C++ library contrastzsd, for programs without Python: the kernels, a reader of bundles, and a
# Detector over ONNX Runtime or OpenVINO.
#
#   cmake -S . -B build/cpp -DZSD_PYTHON=OFF -DZSD_OPENVINO=ON -DCMAKE_INSTALL_PREFIX=/usr/local
#   cmake --build build/cpp && cmake --install build/cpp
#
# A program then says find_package(contrastzsd) and links contrastzsd::contrastzsd. Backends are
# built when asked for; one that is asked for and not found is an error. docs/cpp.md has the rest.
option(ZSD_OPENVINO "Build the Detector's OpenVINO backend" OFF)
option(ZSD_ONNXRUNTIME "Build the Detector's ONNX Runtime backend" OFF)
if(ZSD_CUDA)
  message(FATAL_ERROR "ZSD_CUDA=ON builds a Python module; leave it out with ZSD_PYTHON=OFF.")
endif()

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
list(PREPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}/modules")
find_package(nlohmann_json 3.10 CONFIG QUIET)
if(NOT nlohmann_json_FOUND)
  message(FATAL_ERROR "nlohmann_json is needed: apt-get install nlohmann-json3-dev")
endif()
set(CONTRASTZSD_OPENVINO ${ZSD_OPENVINO})
set(CONTRASTZSD_ONNXRUNTIME ${ZSD_ONNXRUNTIME})
macro(contrastzsd_find)
  find_package(${ARGV} REQUIRED)
endmacro()
include("${CMAKE_CURRENT_LIST_DIR}/contrastzsd-dependencies.cmake")

file(STRINGS pyproject.toml version REGEX "^version = ")
string(REGEX MATCH "[0-9.]+" version "${version}")

set(cpp csrc/contrastzsd)
add_library(contrastzsd STATIC
  ${cpp}/anchors.cpp
  ${cpp}/bundle.cpp
  ${cpp}/calibration.cpp
  ${cpp}/classes.cpp
  ${cpp}/config.cpp
  ${cpp}/conse_scorer.cpp
  ${cpp}/contrast_scorer.cpp
  ${cpp}/describe.cpp
  ${cpp}/detector.cpp
  ${cpp}/fields.cpp
  ${cpp}/files.cpp
  ${cpp}/manifest.cpp
  ${cpp}/networks.cpp
  ${cpp}/offered.cpp
  ${cpp}/onnx_file.cpp
  ${cpp}/pipeline.cpp
  ${cpp}/prototype_scorer.cpp
  ${cpp}/safetensors.cpp
  ${cpp}/scoring.cpp
  ${cpp}/stages.cpp
  ${cpp}/tensor.cpp
  ${cpp}/text.cpp
  ${cpp}/vocabulary.cpp)
add_library(contrastzsd::contrastzsd ALIAS contrastzsd)
set_target_properties(contrastzsd PROPERTIES POSITION_INDEPENDENT_CODE ON)
set_target_properties(zsd_kernels PROPERTIES EXPORT_NAME kernels)
target_compile_features(contrastzsd PUBLIC cxx_std_17)
target_compile_options(contrastzsd PRIVATE -Wall -Wextra)
target_include_directories(contrastzsd PUBLIC
  $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/csrc/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_include_directories(zsd_kernels PUBLIC $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(contrastzsd
  PUBLIC zsd_kernels
  PRIVATE OpenSSL::Crypto utf8proc::utf8proc $<BUILD_INTERFACE:nlohmann_json::nlohmann_json>)
if(ZSD_OPENVINO)
  target_sources(contrastzsd PRIVATE ${cpp}/openvino.cpp)
  target_compile_definitions(contrastzsd PRIVATE ZSD_OPENVINO)
  target_link_libraries(contrastzsd PRIVATE openvino::runtime)
endif()
if(ZSD_ONNXRUNTIME)
  target_sources(contrastzsd PRIVATE ${cpp}/onnxruntime.cpp)
  target_compile_definitions(contrastzsd PRIVATE ZSD_ONNXRUNTIME)
  target_link_libraries(contrastzsd PRIVATE onnxruntime::onnxruntime)
endif()
if(NOT ZSD_OPENVINO AND NOT ZSD_ONNXRUNTIME)
  message(STATUS "No backend: a Detector needs networks of the program's own "
    "(ZSD_OPENVINO=ON or ZSD_ONNXRUNTIME=ON build one).")
endif()

# Installed: contrastzsd/*.h is the library's interface, contrastzsd/kernels/*.h the operators'.
set(package "${CMAKE_INSTALL_LIBDIR}/cmake/contrastzsd")
install(DIRECTORY csrc/include/contrastzsd DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY csrc/kernels DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/contrastzsd
  FILES_MATCHING PATTERN "*.h" PATTERN cuda EXCLUDE
  PATTERN launch.h EXCLUDE PATTERN device_types.h EXCLUDE)
install(TARGETS contrastzsd zsd_kernels EXPORT contrastzsd-targets)
install(EXPORT contrastzsd-targets NAMESPACE contrastzsd:: DESTINATION ${package})
configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/contrastzsd-config.cmake.in
  "${CMAKE_CURRENT_BINARY_DIR}/contrastzsd-config.cmake" INSTALL_DESTINATION ${package})
write_basic_package_version_file(
  "${CMAKE_CURRENT_BINARY_DIR}/contrastzsd-config-version.cmake"
  VERSION ${version} COMPATIBILITY SameMinorVersion)
install(FILES
  "${CMAKE_CURRENT_BINARY_DIR}/contrastzsd-config.cmake"
  "${CMAKE_CURRENT_BINARY_DIR}/contrastzsd-config-version.cmake"
  ${CMAKE_CURRENT_LIST_DIR}/contrastzsd-dependencies.cmake
  DESTINATION ${package})
install(DIRECTORY ${CMAKE_CURRENT_LIST_DIR}/modules DESTINATION ${package})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/contrastzsd)
