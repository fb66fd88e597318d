// From pixels to described regions: preprocess, trunk, propose, roi_align, head.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "contrastzsd/errors.h"
#include "contrastzsd/regions.h"
#include "contrastzsd/text.h"
#include "kernels/preprocess.h"
#include "kernels/roi_align.h"

namespace contrastzsd {
void expect_shape(const char* stage, const char* output, const Tensor& tensor,
                  const std::vector<std::int64_t>& wanted) {
  bool fits = tensor.shape.size() == wanted.size();
  for (std::size_t i = 0; fits && i < wanted.size(); ++i)
    fits = wanted[i] < 0 ? tensor.shape[i] > 0 : tensor.shape[i] == wanted[i];
  if (fits) return;
  const auto text = [](const std::vector<std::int64_t>& shape) {
    std::string result;
    for (const std::int64_t side : shape)
      result += (result.empty() ? "(" : ", ") + (side < 0 ? "any" : std::to_string(side));
    return result + ")";
  };
  throw BundleError(std::string("the ") + stage + "'s output '" + output + "' has shape " +
                    text(tensor.shape) + ", the manifest means " + text(wanted) +
                    ". Export the bundle again.");
}

void check_finite(const std::string& part, const Tensor& output) {
  const float* values = output.data.get();
  if (std::all_of(values, values + output.size(), [](float value) { return std::isfinite(value); }))
    return;
  throw BundleError("the " + part +
                    " gives numbers that are not finite, and nothing can be found by them. Either "
                    "a number became too large for fp16 (take precision='float32'), or the "
                    "weights are damaged: export the bundle again, from a checkpoint whose "
                    "evaluation is right.");
}

namespace {

constexpr std::int64_t kPortion = 24 << 20;  // bytes of region features that share a head run

void check_outputs(const char* stage, const std::vector<Tensor>& outputs, std::size_t count) {
  if (outputs.size() != count)
    throw BundleError(std::string("the ") + stage + " gave " + std::to_string(outputs.size()) +
                      " outputs, must give " + std::to_string(count) + ".");
}

// Pixels whose rows touch: the caller's where they do, else copied to `room`.
const std::uint8_t* contiguous(const Image& image, std::vector<std::uint8_t>& room) {
  const std::int64_t row = image.width * 3;
  if (image.row_bytes == 0 || image.row_bytes == row) return image.pixels;
  room.resize(std::size_t(image.height * row));
  for (std::int64_t y = 0; y < image.height; ++y)
    std::copy_n(image.pixels + y * image.row_bytes, row, room.data() + y * row);
  return room.data();
}

Tensor network_input(const PreprocessConfig& config, const std::vector<Image>& images,
                     std::vector<float>& image_sizes) {
  const auto padded = config.padded(config.resized(images[0].height, images[0].width));
  const Tensor input = Tensor::make({std::int64_t(images.size()), 3, padded[0], padded[1]});
  std::vector<std::uint8_t> room;
  for (std::size_t i = 0; i < images.size(); ++i) {
    const Image& image = images[i];
    const auto size = config.resized(image.height, image.width);
    zsd::PreprocessParams params{image.height, image.width, size[0],
                                 size[1],      padded[0],   padded[1],
                                 {},           {},          image.color == Color::kBgr};
    for (std::size_t c = 0; c < 3; ++c) {
      params.mean[c] = float(config.mean[c]);
      params.std[c] = float(config.std[c]);
    }
    zsd::preprocess(params, contiguous(image, room),
                    input.data.get() + std::int64_t(i) * input.row());
    image_sizes.insert(image_sizes.end(), {float(size[0]), float(size[1])});
  }
  return input;
}

void drop_below(float least, Described& found) {
  std::size_t kept = 0;
  for (std::size_t r = 0; r < found.objectness.size(); ++r) {
    const std::int32_t image = found.batch_indices[r];
    const bool first = kept == 0 || found.batch_indices[kept - 1] != image;  // its best
    if (!first && !(found.objectness[r] >= least)) continue;
    std::copy_n(found.rois.begin() + std::ptrdiff_t(4 * r), 4,
                found.rois.begin() + std::ptrdiff_t(4 * kept));
    const std::int64_t width = found.logits.shape[1];
    std::copy_n(found.logits.data.get() + std::int64_t(r) * width, width,
                found.logits.data.get() + std::int64_t(kept) * width);
    found.objectness[kept] = found.objectness[r];
    found.batch_indices[kept++] = image;
  }
  found.rois.resize(4 * kept);
  found.objectness.resize(kept);
  found.batch_indices.resize(kept);
  found.logits.shape[0] = std::int64_t(kept);
}

// `count` regions cut from every map.
std::vector<Tensor> cut(const RegionConfig& config, const std::vector<Tensor>& maps,
                        const float* rois, const std::int32_t* batch_indices, std::int64_t count) {
  std::vector<Tensor> patches;
  for (std::size_t i = 0; i < config.maps.size(); ++i) {
    const std::vector<std::int64_t>& shape = maps[i].shape;
    const int step = int(config.maps[i].bin_step);
    const zsd::RoiAlignParams params{shape[0],
                                     shape[1],
                                     shape[2],
                                     shape[3],
                                     count,
                                     config.output_size[0],
                                     config.output_size[1],
                                     float(1.0 / double(config.stride)),
                                     int(config.sampling_ratio)};
    patches.push_back(Tensor::make({count, shape[1], zsd::stepped(config.output_size[0], step),
                                    zsd::stepped(config.output_size[1], step)}));
    zsd::roi_align(params, step, maps[i].data.get(), rois, batch_indices,
                   patches.back().data.get());
  }
  return patches;
}

// The regions `found.looked` through the head. A large head sees them in portions, so that their
// features stay in the cache.
void look_at(Networks& networks, const ModelConfig& config, const std::vector<Tensor>& maps,
             Described& found, StageTimes& times) {
  const std::int64_t looked = std::int64_t(found.looked.size());
  std::vector<float> rois;
  std::vector<std::int32_t> images;
  for (const std::int64_t r : found.looked) {
    rois.insert(rois.end(), found.rois.begin() + 4 * r, found.rois.begin() + 4 * (r + 1));
    images.push_back(found.batch_indices[std::size_t(r)]);
  }
  std::int64_t floats = 0;
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const int step = int(config.regions.maps[i].bin_step);
    floats += maps[i].shape[1] * zsd::stepped(config.regions.output_size[0], step) *
              zsd::stepped(config.regions.output_size[1], step);
  }
  // The width of a second look is its scorer's to check.
  std::int64_t width = config.regions.look ? -1 : config.scoring.joint_dim;
  const std::int64_t portion = std::max<std::int64_t>(1, kPortion / (4 * floats));
  for (std::int64_t begin = 0; begin < looked; begin += portion) {
    const std::int64_t count = std::min(portion, looked - begin);
    std::vector<Tensor> patches, outputs;
    times.measure("roi_align", [&] {
      patches = cut(config.regions, maps, rois.data() + 4 * begin, images.data() + begin, count);
    });
    times.measure("head", [&] { outputs = networks.run("head", patches); });
    check_outputs("head", outputs, 2);
    expect_shape("head", "embeddings", outputs[0], {count, width});
    expect_shape("head", "deltas", outputs[1], {count, 4});
    for (const Tensor& output : outputs) check_finite("head", output);
    if (begin == 0) {
      width = outputs[0].shape[1];
      found.embeddings = Tensor::make({looked, width});
    }
    std::copy_n(outputs[0].data.get(), count * width, found.embeddings.data.get() + begin * width);
    for (std::int64_t i = 0; i < count; ++i)
      std::copy_n(outputs[1].data.get() + 4 * i, 4,
                  found.deltas.data.get() + 4 * found.looked[std::size_t(begin + i)]);
  }
}

// Adds the regions that the look of another one holds for, each with a copy of it.
void share_looks(const RegionConfig& config, Described& found) {
  const std::int64_t looked = std::int64_t(found.looked.size());
  if (looked == 0) return;
  const std::vector<std::int64_t> places = spoken_for(config, found);
  std::vector<std::int64_t> regions, from;
  for (std::int64_t r = 0; r < found.regions(); ++r) {
    if (places[std::size_t(r)] == looked) continue;
    regions.push_back(r);
    from.push_back(places[std::size_t(r)]);
  }
  const std::int64_t width = found.embeddings.shape[1];
  const Tensor shared = Tensor::make({std::int64_t(regions.size()), width});
  for (std::size_t i = 0; i < regions.size(); ++i)
    std::copy_n(found.embeddings.data.get() + from[i] * width, width,
                shared.data.get() + std::int64_t(i) * width);
  found.looked = regions;
  found.embeddings = shared;
}

}  // namespace

std::vector<std::string> network_stages(const ModelConfig&) { return {"trunk", "head"}; }

Described describe(Networks& networks, const ModelConfig& config, const std::vector<Image>& images,
                   float least_objectness, float look, StageTimes& times) {
  const RegionConfig& regions = config.regions;
  Described found;
  Tensor input;
  std::vector<Tensor> maps;
  times.measure("preprocess",
                [&] { input = network_input(config.preprocess, images, found.image_sizes); });
  times.measure("trunk", [&] { maps = networks.run("trunk", {input}); });
  const std::size_t count = regions.from_image() ? 0 : regions.maps.size();
  check_outputs("trunk", maps, count + 2);
  const Tensor last = maps.back(), before = maps[count];
  // What is no number in a map shows in the head.
  for (const Tensor* output : {&before, &last}) check_finite("trunk", *output);
  maps.resize(count);
  for (std::size_t i = 0; i < count; ++i)
    expect_shape("trunk", regions.maps[i].name.c_str(), maps[i],
                 {std::int64_t(images.size()), -1, -1, -1});
  if (regions.from_image()) maps = {input};
  times.measure("propose", [&] {
    if (config.proposals.source == "queries")
      take_offered(config.proposals, before, last, found);
    else
      propose_anchors(config.proposals, before, last, found);
    drop_below(least_objectness, found);
    if (regions.look) {
      if (look < kHidden) found.looked = second_look(regions, look, found);
    } else {
      found.looked.resize(found.objectness.size());
      std::iota(found.looked.begin(), found.looked.end(), 0);
    }
    found.deltas = Tensor::make({found.regions(), 4});
    std::fill_n(found.deltas.data.get(), found.deltas.size(), 0.0f);
  });
  look_at(networks, config, maps, found, times);
  if (regions.look) share_looks(regions, found);
  return found;
}

}  // namespace contrastzsd
