#include "evaluation/evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <thread>

#include "llmc/file.h"
#include "nlohmann/json.hpp"

namespace llmc {
namespace {

struct Made {
  std::filesystem::path dir;
  nlohmann::json expected;
  std::vector<std::vector<int32_t>> windows;
  ~Made() { std::filesystem::remove_all(dir); }
};

const Made& Models() {
  static const std::unique_ptr<Made> made = [] {
    auto models = std::make_unique<Made>();
    char path[] = "/tmp/llmc_evaluation_XXXXXX";
    EXPECT_NE(mkdtemp(path), nullptr);
    models->dir = path;
    const std::string source = LLMC_SOURCE_DIR;
    const std::string command = source + "/.venv/bin/python " + source +
                                "/tests/evaluation/make_perplexity.py " + path + " >" + path +
                                "/log.txt 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << "see " << path << "/log.txt";
    models->expected = nlohmann::json::parse(*ReadFile(models->dir / "expected.json"));
    models->expected.at("windows").get_to(models->windows);
    return models;
  }();
  return *made;
}

EvaluationRequest Request() {
  EvaluationRequest request;
  request.model = Models().dir / "model";
  request.windows = Models().windows;
  return request;
}

EvaluationResult EvaluateOrFail(const EvaluationRequest& request) {
  absl::StatusOr<EvaluationResult> result = Evaluate(request);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *result : EvaluationResult();
}

TEST(Evaluate, OneModel_PerplexityOfTransformers) {
  const EvaluationResult result = EvaluateOrFail(Request());
  const double expected = Models().expected.at("mean_nll");
  EXPECT_NEAR(result.mean_nll, expected, 1e-5 * expected);
  EXPECT_DOUBLE_EQ(result.perplexity, std::exp(result.mean_nll));
  EXPECT_EQ(result.num_tokens, Models().expected.at("num_tokens"));
  EXPECT_EQ(result.num_windows, 5);
  EXPECT_FALSE(result.kl_mean.has_value());
}

TEST(Evaluate, AgainstAnother_DivergenceOfTransformers) {
  EvaluationRequest request = Request();
  request.against = Models().dir / "other";
  const EvaluationResult result = EvaluateOrFail(request);
  const double expected = Models().expected.at("kl_mean");
  EXPECT_NEAR(*result.kl_mean, expected, 1e-5 * expected);
  EXPECT_DOUBLE_EQ(*result.top1_agreement, Models().expected.at("top1_agreement").get<double>());
  EXPECT_NEAR(std::log(*result.against_perplexity),
              Models().expected.at("other_mean_nll").get<double>(), 1e-4);
}

TEST(Evaluate, AgainstItself_NoDivergence) {
  EvaluationRequest request = Request();
  request.against = request.model;
  const EvaluationResult result = EvaluateOrFail(request);
  EXPECT_EQ(*result.kl_mean, 0.0);
  EXPECT_EQ(*result.top1_agreement, 1.0);
  EXPECT_EQ(*result.against_perplexity, result.perplexity);
}

TEST(Evaluate, OneWindowPerBatch_SameBits) {
  EvaluationRequest request = Request();
  const double whole = EvaluateOrFail(request).mean_nll;
  std::vector<double> progress;
  request.max_state_bytes = 1;
  request.progress = [&](double fraction) { progress.push_back(fraction); };
  EXPECT_EQ(EvaluateOrFail(request).mean_nll, whole);
  EXPECT_EQ(progress.size(), 10u);
  EXPECT_EQ(progress.back(), 1.0);
  EXPECT_TRUE(std::is_sorted(progress.begin(), progress.end()));
}

TEST(Evaluate, SeveralRanks_SameBitsOnEveryRank) {
  const EvaluationResult alone = EvaluateOrFail(Request());
  for (const int world_size : {2, 3, 7}) {
    auto ranks = MakeThreadCollectives(world_size);
    std::vector<EvaluationResult> results(world_size);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < world_size; ++rank) {
      threads.emplace_back([&, rank] {
        EvaluationRequest request = Request();
        request.collective = ranks[rank].get();
        results[rank] = EvaluateOrFail(request);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const EvaluationResult& result : results) EXPECT_EQ(result.mean_nll, alone.mean_nll);
  }
}

TEST(Evaluate, BFloat16_NearFloat32) {
  EvaluationRequest request = Request();
  request.compute_dtype = DType::kBF16;
  const double expected = Models().expected.at("mean_nll");
  EXPECT_NEAR(EvaluateOrFail(request).mean_nll, expected, 0.02 * expected);
}

TEST(Evaluate, WrongRequests_SayWhatIsWrong) {
  const auto message = [](const EvaluationRequest& request) {
    const absl::Status status = Evaluate(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  EvaluationRequest request = Request();
  request.windows = {};
  EXPECT_THAT(message(request), testing::HasSubstr("no windows"));
  const std::vector<std::vector<int32_t>> one_token = {{1}};
  request.windows = one_token;
  EXPECT_THAT(message(request), testing::HasSubstr("a window of 1 tokens"));
  const std::vector<std::vector<int32_t>> outside = {{1, 160}};
  request.windows = outside;
  EXPECT_THAT(message(request), testing::HasSubstr("160"));
  const std::vector<std::vector<int32_t>> negative = {{-1, 3}};
  request.windows = negative;
  EXPECT_THAT(message(request), testing::HasSubstr("-1"));
  request.windows = Models().windows;
  request.compute_dtype = DType::kF16;
  EXPECT_THAT(message(request), testing::HasSubstr("compute dtype F16"));
}

TEST(Evaluate, MissingModel_NotFound) {
  EvaluationRequest request = Request();
  request.model = Models().dir / "absent";
  EXPECT_EQ(Evaluate(request).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace llmc
