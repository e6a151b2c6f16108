#include "cli/eval_options.h"

namespace llmc {

void AddEvalOptions(CLI::App& app, EvalRequest& request) {
  app.add_option("--model", request.model, "model directory, dense or compressed")
      ->required()
      ->type_name("DIR");
  app.add_option("--dataset", request.datasets, "held-out text")->required()->type_name("FILE...");
  app.add_option("--against", request.against, "dense model to compare with: KL, agreement")
      ->type_name("DIR");
  app.add_option("--text-column", request.text_column, "column that holds the text")
      ->capture_default_str();
  app.add_option("--max-seq-length", request.max_seq_length, "tokens of a window")
      ->check(CLI::Range(int64_t{2}, int64_t{16'777'216}))
      ->capture_default_str();
  app.add_option("--num-windows", request.num_windows, "windows to use; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--compute-dtype", request.compute_dtype, "type of the products")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
}

}  // namespace llmc
