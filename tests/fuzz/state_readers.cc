// What llmc keeps beside its outputs, and an operator's file of tokens.

#include "checkpoint/journal.h"
#include "readers.h"
#include "report/run_report.h"
#include "report/step_stream.h"
#include "service/access.h"

namespace llmc::fuzz {

void StateFiles(absl::string_view bytes) {
  if (bytes.empty()) return;
  const int choice = static_cast<unsigned char>(bytes[0]) % 4;
  bytes.remove_prefix(1);
  if (choice == 0) {
    (void)ReadJournal(MemoryFile(bytes));
  } else if (choice == 1) {
    const absl::StatusOr<RunReport> report = ReportFromJson(bytes);
    if (!report.ok()) return;
    (void)ToHtml(*report);
    if (!ReportFromJson(ToJson(*report)).ok()) __builtin_trap();
  } else if (choice == 2) {
    const absl::StatusOr<StepEvent> event = StepEventFromJsonLine(bytes);
    if (!event.ok()) return;
    (void)ParseSolveNote(event->message);
    if (!StepEventFromJsonLine(ToJsonLine(*event)).ok()) __builtin_trap();
  } else {
    const auto tokens = TokenFile::Load(MemoryFile(bytes));
    if (tokens.ok()) (void)(*tokens)->Authenticate("Bearer secret");
  }
}

}  // namespace llmc::fuzz
