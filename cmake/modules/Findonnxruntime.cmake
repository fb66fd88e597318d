# ONNX Runtime: from Debian 13's libonnxruntime-dev, from an unpacked release (CMAKE_PREFIX_PATH), or
# wherever onnxruntime_INCLUDE_DIR and onnxruntime_LIBRARY say. The CMake files of releases are not
# used: several of them name folders that the archive does not have.
find_path(onnxruntime_INCLUDE_DIR onnxruntime_cxx_api.h PATH_SUFFIXES onnxruntime)
find_library(onnxruntime_LIBRARY onnxruntime)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(onnxruntime
  REQUIRED_VARS onnxruntime_LIBRARY onnxruntime_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "point CMAKE_PREFIX_PATH to an unpacked release of ONNX Runtime")
mark_as_advanced(onnxruntime_INCLUDE_DIR onnxruntime_LIBRARY)
if(onnxruntime_FOUND AND NOT TARGET onnxruntime::onnxruntime)
  add_library(onnxruntime::onnxruntime UNKNOWN IMPORTED)
  set_target_properties(onnxruntime::onnxruntime PROPERTIES
    IMPORTED_LOCATION "${onnxruntime_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${onnxruntime_INCLUDE_DIR}")
endif()
