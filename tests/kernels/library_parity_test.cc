#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "case_file.h"
#include "gtest/gtest.h"
#include "kernels/compress.h"
#include "kernels/weight_grid.h"

namespace llmc::kernels {
namespace {

struct Case {
  std::string name;
  QuantizationArgs args;
  Format format = Format::kDense;
  CompressOptions options;
  bool grid_from_weight = false;  // Otherwise the fixture's grid is not the observer's.
  WeightGridOptions grid_options;
  std::vector<std::string> stored;  // Suffixes.
};

// Compares one case after the other and counts.
class Comparison {
 public:
  explicit Comparison(const std::string& stem) : file_(stem + ".safetensors"), stem_(stem) {
    cases_ = ReadCases(stem + ".json");
  }

  void Run() {
    for (const auto& json : cases_) RunCase(json);
  }
  int compared() const { return compared_; }
  const std::vector<std::string>& mismatches() const { return mismatches_; }

 private:
  Case Parse(const nlohmann::json& json) const {
    Case c;
    c.name = json.at("name");
    c.args = ArgsFromJson(json.at("scheme").at("weights"));
    c.format = FormatFromName(json.at("format"));
    c.options.zero_added = json.at("flow") == "oneshot";
    c.grid_from_weight = json.at("variant").get<std::string>().starts_with("minmax");
    const std::string out = c.name + "/out.";
    for (const auto& [name, view] : file_.views()) {
      if (name.starts_with(out)) c.stored.push_back(name.substr(out.size()));
    }
    if (const TensorView* x = file_.Find(c.name + "/importance")) {
      c.grid_options.importance = {x->as<float>(), static_cast<size_t>(x->dim(0))};
    }
    if (c.name.starts_with("fused_")) c.grid_options.fused_absmax = FusedAbsMax();
    return c;
  }

  float FusedAbsMax() const {
    float absmax = 0;
    for (const auto& json : cases_) {
      const std::string name = json.at("name");
      if (!name.starts_with("fused_")) continue;
      const Extrema e = FindExtrema(file_.At(name + "/in.weight")).value();
      absmax = std::max({absmax, -e.min, e.max});
    }
    return absmax;
  }

  void Compare(const std::string& what, const TensorView& got, const TensorView& want) {
    ++compared_;
    const std::string difference = Difference(got, want);
    if (!difference.empty()) mismatches_.push_back(stem_ + ": " + what + ": " + difference);
  }

  WeightGrid FixtureGrid(const Case& c) const {
    WeightGrid grid;
    const auto copy = [&](const std::string& suffix) {
      const TensorView& view = file_.At(c.name + "/qparam." + suffix);
      HostTensor tensor(view.dtype, view.shape);
      std::copy(view.bytes.begin(), view.bytes.end(), tensor.bytes().begin());
      return tensor;
    };
    grid.scale = copy("weight_scale");
    if (!c.args.symmetric) grid.zero_point = copy("weight_zero_point");
    if (file_.Find(c.name + "/qparam.weight_global_scale") != nullptr) {
      grid.global_scale = *file_.At(c.name + "/qparam.weight_global_scale").as<float>();
    }
    return grid;
  }

  void CompareGrid(const Case& c, const WeightGrid& grid) {
    Compare(c.name + " scale", grid.scale.view(), file_.At(c.name + "/qparam.weight_scale"));
    if (!c.args.symmetric) {
      Compare(c.name + " zero point", grid.zero_point.view(),
              file_.At(c.name + "/qparam.weight_zero_point"));
    }
    if (grid.global_scale == 0) return;
    HostTensor global(DType::kF32, {1});
    *global.as<float>() = grid.global_scale;
    Compare(c.name + " global scale", global.view(),
            file_.At(c.name + "/qparam.weight_global_scale"));
  }

  void CompareStored(const Case& c, const std::string& how,
                     const std::vector<StoredTensor>& stored) {
    std::vector<std::string> suffixes;
    for (const StoredTensor& tensor : stored) {
      suffixes.push_back(tensor.suffix);
      if (const TensorView* want = file_.Find(c.name + "/out." + tensor.suffix)) {
        Compare(c.name + how + tensor.suffix, tensor.tensor.view(), *want);
      }
    }
    std::sort(suffixes.begin(), suffixes.end());
    std::vector<std::string> expected = c.stored;
    std::sort(expected.begin(), expected.end());
    if (suffixes != expected) mismatches_.push_back(c.name + ": other suffixes");
  }

  void RunCase(const nlohmann::json& json) {
    const Case c = Parse(json);
    const TensorView& weight = file_.At(c.name + "/in.weight");
    const WeightGrid fixture = FixtureGrid(c);
    if (c.grid_from_weight) {
      const auto grid = ComputeWeightGrid(weight, c.args, c.grid_options);
      ASSERT_TRUE(grid.ok()) << c.name << grid.status();
      CompareGrid(c, *grid);
      const auto fused =
          CompressRoundToNearest(weight, c.args, c.format, c.grid_options, c.options);
      ASSERT_TRUE(fused.ok()) << c.name << fused.status();
      CompareStored(c, " fused ", *fused);
    }
    const auto stored = CompressWeight(weight, fixture, c.args, c.format, c.options);
    ASSERT_TRUE(stored.ok()) << c.name << stored.status();
    CompareStored(c, " ", *stored);
    CompareDense(c, weight, fixture);
  }

  void CompareDense(const Case& c, const TensorView& weight, const WeightGrid& grid) {
    const TensorView* want = file_.Find(c.name + "/dequant.weight");
    if (want != nullptr) {
      const auto lookup = [&](absl::string_view suffix) {
        return file_.Find(c.name + "/out." + std::string(suffix));
      };
      const auto dense = DecompressWeight(lookup, c.args, c.format, weight.shape, {want->dtype});
      ASSERT_TRUE(dense.ok()) << c.name << dense.status();
      Compare(c.name + " dequantised", dense->view(), *want);
    }
    const TensorView* fake = file_.Find(c.name + "/fake.weight");
    if (fake == nullptr) return;
    const auto got = FakeQuantWeight(weight, grid, c.args, c.options);
    ASSERT_TRUE(got.ok()) << c.name << got.status();
    Compare(c.name + " fake", got->view(), *fake);
  }

  TensorFile file_;
  std::string stem_;
  nlohmann::json cases_;
  int compared_ = 0;
  std::vector<std::string> mismatches_;
};

// Every "*.json" of a folder.
std::vector<std::string> StemsIn(const std::filesystem::path& folder) {
  std::vector<std::string> stems;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    stems.push_back((folder / entry.path().stem()).string());
  }
  std::sort(stems.begin(), stems.end());
  return stems;
}

int ExpectAllEqual(const std::filesystem::path& folder) {
  int compared = 0;
  for (const std::string& stem : StemsIn(folder)) {
    Comparison comparison(stem);
    comparison.Run();
    compared += comparison.compared();
    for (const std::string& mismatch : comparison.mismatches()) ADD_FAILURE() << mismatch;
  }
  return compared;
}

TEST(LibraryParity, StoredFixtures_EveryTensorIsBitIdentical) {
  const std::filesystem::path folder = LLMC_SOURCE_DIR "/tests/kernels/testdata/quant";
  EXPECT_GT(ExpectAllEqual(folder), 500);
}

TEST(LibraryParity, AdversarialWeightsThroughThePythonLibrary_EveryTensorIsBitIdentical) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "llmc_library_parity";
  std::filesystem::create_directories(folder);
  const std::string command = LLMC_SOURCE_DIR "/.venv/bin/python " LLMC_SOURCE_DIR
                                              "/tests/kernels/make_library_cases.py " +
                              folder.string();
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_GT(ExpectAllEqual(folder), 1000);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace llmc::kernels
