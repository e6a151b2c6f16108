// Requests of clients and workers, as bytes on the wire.

#include "coordinator_world.h"
#include "readers.h"
#include "rpc/job_messages.h"
#include "service/job_filter.h"

namespace llmc::fuzz {

// A script of length-prefixed session messages over a coordinator with two jobs.
void Requests(absl::string_view bytes) {
  v1::CreateJobRequest create;
  if (create.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    (void)ToJobSpec(ToJob(create.job().spec()));
  }
  const std::string text(bytes);
  const auto filter = ParseJobFilter(text);
  if (filter.ok()) (void)(*filter)(create.job());
  (void)ReadToken("secret", "list ", text);

  CoordinatorWorld world;
  for (const char* id : {"a", "b"}) {
    world.Apply(world.coordinator.Create(world.Request(id), world.now)->change);
  }
  while (!bytes.empty()) {
    const size_t size = std::min<size_t>(bytes.size() - 1, static_cast<unsigned char>(bytes[0]));
    v1::SessionRequest message;
    const bool parsed = message.ParseFromArray(bytes.data() + 1, static_cast<int>(size));
    bytes.remove_prefix(1 + size);
    if (!parsed) continue;
    const Now now = world.now;
    Coordinator& coordinator = world.coordinator;
    if (message.has_attach()) {
      const auto attached = coordinator.Attach(message.attach(), now);
      if (attached.ok()) world.Apply(attached->change);
    }
    if (message.has_heartbeat()) {
      const auto beat = coordinator.Beat("i", message.heartbeat(), now);
      if (beat.ok()) world.Apply(beat->change);
      const auto lease = coordinator.NextLease("i", now);
      if (lease) world.Apply(lease->change);
    }
    if (message.has_steps()) {
      const auto change = coordinator.ReportSteps("i", message.steps(), now);
      if (change.ok()) world.Apply(*change);
    }
    if (message.has_finished()) {
      const auto change = coordinator.Finish("i", message.finished(), now);
      if (change.ok()) world.Apply(*change);
    }
    world.Wait(1000);
  }
  // The world reports a broken invariant as a failed expectation.
  if (testing::Test::HasFailure()) __builtin_trap();
}

}  // namespace llmc::fuzz
