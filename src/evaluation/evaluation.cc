#include "evaluation/evaluation.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/ops/argmax.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/log_softmax.h"
#include "absl/strings/str_cat.h"
#include "c10/core/InferenceMode.h"
#include "evaluation/streamed_model.h"
#include "llmc/parallel.h"
#include "model/torch_tensor.h"

namespace llmc {
namespace {

// Tokens whose logits exist at once, per thread. Fixed, because the bits of a
// product may depend on its number of rows.
constexpr int64_t kPieceTokens = 128;

// Sums over the predicted tokens of one window.
struct WindowSums {
  double nll = 0;
  double against_nll = 0;
  double kl = 0;
  double same_top1 = 0;
};
constexpr int64_t kSumsPerWindow = 4;

absl::Status CheckRequest(const EvaluationRequest& request) {
  if (request.windows.empty()) {
    return absl::InvalidArgumentError("evaluation: no windows, expected at least one");
  }
  for (const std::vector<int32_t>& window : request.windows) {
    if (window.size() < 2) {
      return absl::InvalidArgumentError(
          absl::StrCat("evaluation: a window of ", window.size(), " tokens, expected 2 or more"));
    }
  }
  if (request.compute_dtype != DType::kF32 && request.compute_dtype != DType::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat("evaluation: compute dtype ",
                                                   SafetensorsName(request.compute_dtype),
                                                   ", expected F32 or BF16"));
  }
  return absl::OkStatus();
}

double Sum(const at::Tensor& x) { return x.to(at::kDouble).sum().item<double>(); }

// [n] ids from `window`, beginning at `first`.
at::Tensor Ids(const std::vector<int32_t>& window, int64_t first, int64_t n) {
  at::Tensor ids = at::empty({n}, at::kLong);
  std::copy_n(window.begin() + first, n, ids.mutable_data_ptr<int64_t>());
  return ids;
}

at::Tensor TargetNll(const at::Tensor& log_probs, const at::Tensor& targets) {
  return -log_probs.gather(-1, targets.unsqueeze(-1));
}

// The model, its head, and the states of the windows of one batch.
struct Side {
  const StreamedModel* model = nullptr;
  const Head* head = nullptr;
  std::vector<at::Tensor> states;

  at::Tensor LogProbs(int64_t window, int64_t first, int64_t n) const {
    const at::Tensor rows = states[window].narrow(0, first, n);
    return at::log_softmax(model->Logits(*head, rows), -1);
  }
};

void AddPiece(const Side& side, const Side* against, int64_t window, const at::Tensor& targets,
              int64_t first, WindowSums& sums) {
  const int64_t n = targets.size(0);
  const at::Tensor log_q = side.LogProbs(window, first, n);
  sums.nll += Sum(TargetNll(log_q, targets));
  if (against == nullptr) return;
  const at::Tensor log_p = against->LogProbs(window, first, n);
  sums.against_nll += Sum(TargetNll(log_p, targets));
  sums.kl += Sum(log_p.exp() * (log_p - log_q));
  sums.same_top1 += Sum(at::argmax(log_p, -1) == at::argmax(log_q, -1));
}

WindowSums SumWindow(const Side& side, const Side* against, int64_t index,
                     const std::vector<int32_t>& window) {
  WindowSums sums;
  const int64_t predicted = static_cast<int64_t>(window.size()) - 1;
  for (int64_t first = 0; first < predicted; first += kPieceTokens) {
    const int64_t n = std::min(kPieceTokens, predicted - first);
    AddPiece(side, against, index, Ids(window, first + 1, n), first, sums);
  }
  return sums;
}

// Evaluates this rank's windows and shares the sums of every window.
class Evaluation {
 public:
  Evaluation(const EvaluationRequest& request, const StreamedModel& model,
             const StreamedModel* against)
      : request_(request),
        model_(model),
        against_(against),
        sums_(request.windows.size() * kSumsPerWindow, 0) {}

  absl::Status Run() {
    const std::vector<size_t> mine = MyWindows();
    const size_t per_batch = WindowsPerBatch();
    num_batches_ = static_cast<int64_t>((mine.size() + per_batch - 1) / per_batch);
    LLMC_ASSIGN_OR_RETURN(const Head head, model_.LoadHead());
    std::optional<Head> against_head;
    if (against_ != nullptr) {
      LLMC_ASSIGN_OR_RETURN(against_head, against_->LoadHead());
    }
    for (size_t first = 0; first < mine.size(); first += per_batch) {
      const size_t n = std::min(per_batch, mine.size() - first);
      LLMC_RETURN_IF_ERROR(
          RunBatch({mine.data() + first, n}, head, against_head ? &*against_head : nullptr));
    }
    return absl::OkStatus();
  }

  // Bit patterns of kSumsPerWindow doubles per window, 0 where another rank's.
  std::vector<int64_t>& sums() { return sums_; }

 private:
  std::vector<size_t> MyWindows() const {
    const size_t rank = request_.collective ? request_.collective->rank() : 0;
    const size_t ranks = request_.collective ? request_.collective->world_size() : 1;
    std::vector<size_t> mine;
    for (size_t i = rank; i < request_.windows.size(); i += ranks) mine.push_back(i);
    return mine;
  }

  size_t WindowsPerBatch() const {
    size_t longest = 0;
    for (const std::vector<int32_t>& window : request_.windows) {
      longest = std::max(longest, window.size());
    }
    const int64_t models = against_ == nullptr ? 1 : 2;
    const int64_t bytes = static_cast<int64_t>(longest) * model_.spec().hidden_size *
                          ElementSize(request_.compute_dtype) * models;
    return static_cast<size_t>(std::max<int64_t>(1, request_.max_state_bytes / bytes));
  }

  void LayerDone() {
    ++layers_done_;
    const int64_t layers =
        model_.spec().num_hidden_layers + (against_ ? against_->spec().num_hidden_layers : 0);
    if (request_.progress) {
      request_.progress(static_cast<double>(layers_done_) /
                        static_cast<double>(layers * num_batches_));
    }
  }

  absl::StatusOr<Side> RunSide(const StreamedModel& model, const Head& head,
                               std::span<const std::vector<int32_t>* const> windows) {
    LLMC_ASSIGN_OR_RETURN(std::vector<at::Tensor> states,
                          model.FinalStates(windows, head, [this] { LayerDone(); }));
    return Side{&model, &head, std::move(states)};
  }

  absl::Status RunBatch(std::span<const size_t> indices, const Head& head,
                        const Head* against_head) {
    std::vector<const std::vector<int32_t>*> windows;
    for (const size_t index : indices) windows.push_back(&request_.windows[index]);
    LLMC_ASSIGN_OR_RETURN(const Side side, RunSide(model_, head, windows));
    std::optional<Side> other;
    if (against_ != nullptr) {
      LLMC_ASSIGN_OR_RETURN(other, RunSide(*against_, *against_head, windows));
    }
    return CatchTorch("logits", [&] {
      ParallelFor(static_cast<int64_t>(windows.size()), [&](int64_t i) {
        c10::InferenceMode no_gradients;
        Store(indices[i], SumWindow(side, other ? &*other : nullptr, i, *windows[i]));
      });
    });
  }

  void Store(size_t window, const WindowSums& sums) {
    int64_t* const out = sums_.data() + window * kSumsPerWindow;
    out[0] = std::bit_cast<int64_t>(sums.nll);
    out[1] = std::bit_cast<int64_t>(sums.against_nll);
    out[2] = std::bit_cast<int64_t>(sums.kl);
    out[3] = std::bit_cast<int64_t>(sums.same_top1);
  }

  const EvaluationRequest& request_;
  const StreamedModel& model_;
  const StreamedModel* against_;
  std::vector<int64_t> sums_;
  int64_t num_batches_ = 0;
  int64_t layers_done_ = 0;
};

EvaluationResult Summarise(const EvaluationRequest& request, const std::vector<int64_t>& sums) {
  WindowSums total;
  EvaluationResult result;
  for (size_t i = 0; i < request.windows.size(); ++i) {
    const int64_t* const window = sums.data() + i * kSumsPerWindow;
    total.nll += std::bit_cast<double>(window[0]);
    total.against_nll += std::bit_cast<double>(window[1]);
    total.kl += std::bit_cast<double>(window[2]);
    total.same_top1 += std::bit_cast<double>(window[3]);
    result.num_tokens += static_cast<int64_t>(request.windows[i].size()) - 1;
  }
  const double tokens = static_cast<double>(result.num_tokens);
  result.num_windows = static_cast<int64_t>(request.windows.size());
  result.mean_nll = total.nll / tokens;
  result.perplexity = std::exp(result.mean_nll);
  if (request.against) {
    result.kl_mean = total.kl / tokens;
    result.top1_agreement = total.same_top1 / tokens;
    result.against_perplexity = std::exp(total.against_nll / tokens);
  }
  return result;
}

// This rank's part, up to the sums.
absl::StatusOr<std::vector<int64_t>> SumMyWindows(const EvaluationRequest& request) {
  LLMC_RETURN_IF_ERROR(CheckRequest(request));
  const at::ScalarType dtype = TorchType(request.compute_dtype);
  LLMC_ASSIGN_OR_RETURN(const StreamedModel model,
                        StreamedModel::Open(request.model, dtype, request.quantize_activations));
  std::optional<StreamedModel> against;
  if (request.against) {
    LLMC_ASSIGN_OR_RETURN(
        against, StreamedModel::Open(*request.against, dtype, request.quantize_activations));
    if (against->spec().vocab_size != model.spec().vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat(request.against->string(), ": vocab_size ", against->spec().vocab_size,
                       ", expected ", model.spec().vocab_size, " as in ", request.model.string()));
    }
  }
  Evaluation evaluation(request, model, against ? &*against : nullptr);
  LLMC_RETURN_IF_ERROR(evaluation.Run());
  return std::move(evaluation.sums());
}

}  // namespace

absl::StatusOr<EvaluationResult> Evaluate(const EvaluationRequest& request) {
  const auto start = std::chrono::steady_clock::now();
  UseOneThreadPerOperation();
  absl::StatusOr<std::vector<int64_t>> sums = SumMyWindows(request);
  if (request.collective != nullptr) {
    LLMC_RETURN_IF_ERROR(request.collective->AgreeOnStatus(sums.status()));
    // Every sum is a bit pattern on one rank and 0 on the others.
    LLMC_RETURN_IF_ERROR(request.collective->AllReduceSum(*sums));
  }
  LLMC_RETURN_IF_ERROR(sums.status());
  EvaluationResult result = Summarise(request, *sums);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  result.seconds = elapsed.count();
  return result;
}

}  // namespace llmc
