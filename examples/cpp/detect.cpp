// Finds classes in an image, without Python.
//
//   ./detect BUNDLE IMAGE [CLASS ...]     # such as: ./detect bundle/ photo.ppm cat "fire truck"
#include <contrastzsd/detector.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <vector>
#ifdef WITH_OPENCV
#include <opencv2/imgcodecs.hpp>
#endif

struct Picture {
  std::vector<std::uint8_t> pixels;  // (height, width, 3)
  std::int64_t height = 0, width = 0;
  contrastzsd::Color color = contrastzsd::Color::kRgb;
};

Picture read(const std::string& path) {
  Picture picture;
#ifdef WITH_OPENCV
  const cv::Mat image = cv::imread(path);
  if (image.empty()) throw contrastzsd::ImageError(path + ": OpenCV cannot read this image.");
  picture = {{image.datastart, image.dataend}, image.rows, image.cols, contrastzsd::Color::kBgr};
#else
  constexpr std::int64_t kMostSide = 32'768;  // pixels
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int most = 0;
  file >> magic >> picture.width >> picture.height >> most;
  if (!file || magic != "P6" || most != 255 || picture.width < 1 || picture.height < 1)
    throw contrastzsd::ImageError(path +
                                  ": no binary PPM without comments; build with OpenCV, or "
                                  "convert it: ffmpeg -i photo.jpg photo.ppm");
  if (std::max(picture.width, picture.height) > kMostSide)
    throw contrastzsd::ImageError(path + ": its header says " + std::to_string(picture.width) +
                                  " x " + std::to_string(picture.height) +
                                  " pixels; a side may have " + std::to_string(kMostSide) +
                                  ". Make the image smaller.");
  file.get();  // one blank ends the header
  const std::streamoff start = file.tellg();
  const std::streamoff bytes = 3 * picture.width * picture.height;
  file.seekg(0, std::ios::end);
  if (!file || file.tellg() - start < bytes)
    throw contrastzsd::ImageError(path + ": the file ends early; write or copy it again.");
  file.seekg(start);
  picture.pixels.resize(std::size_t(bytes));
  if (!file.read(reinterpret_cast<char*>(picture.pixels.data()), bytes))
    throw contrastzsd::ImageError(path + ": the file cannot be read.");
#endif
  return picture;
}

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s BUNDLE IMAGE [CLASS ...]\n", argv[0]);
    return 2;
  }
  contrastzsd::DetectorOptions options;
  options.classes.assign(argv + 3, argv + argc);  // none: the bundle's own
  contrastzsd::Detector detector(argv[1], options);
  std::fprintf(stderr, "%s\n", detector.description().c_str());

  const Picture picture = read(argv[2]);
  const contrastzsd::Detections found =
      detector({picture.pixels.data(), picture.height, picture.width, picture.color});
  for (const contrastzsd::Detection& object : found)
    std::printf("%-16s %.4f  %7.1f %7.1f %7.1f %7.1f\n", object.class_name.c_str(), object.score,
                object.box.x1, object.box.y1, object.box.x2, object.box.y2);
  if (found.near_miss)
    std::printf("nothing found; the best region scores %.2g, for '%s'\n", found.near_miss->second,
                found.near_miss->first.c_str());
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
