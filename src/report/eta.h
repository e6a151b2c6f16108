// When the remaining layers will be done, from the times of the finished ones.
#ifndef LLMC_SRC_REPORT_ETA_H_
#define LLMC_SRC_REPORT_ETA_H_

#include <cstdint>
#include <optional>
#include <vector>

namespace llmc {

// The median, over the newest half of the run, of the mean time per layer in a
// sliding quarter of it: one slow layer does not move it, and layers that finish
// in bursts (several ranks) do not either. Layers that a resumed run only replays
// are not told to it.
class EtaEstimator {
 public:
  // The first layer began at `time_s`. Later calls are ignored.
  void Start(double time_s);

  // A layer finished at `time_s`; times that go backwards are clamped.
  void Finish(double time_s);

  // Seconds per layer; nothing before one layer has finished.
  std::optional<double> SecondsPerLayer() const;

  // Seconds from `now_s` until `remaining` more layers are done, >= 0. The time
  // already spent on the current layer is taken off, up to one layer's time.
  std::optional<double> Remaining(int64_t remaining, double now_s) const;

 private:
  std::vector<double> finished_s_;  // Start first, then every finish.
};

}  // namespace llmc

#endif  // LLMC_SRC_REPORT_ETA_H_
