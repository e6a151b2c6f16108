// write_sample_pages FOLDER NAME...: writes FOLDER/NAME.html for each sample.

#include <cstdio>
#include <filesystem>

#include "llmc/file.h"
#include "sample_report.h"

int main(int argc, char** argv) {
  for (int i = 2; i < argc; ++i) {
    const std::filesystem::path path =
        std::filesystem::path(argv[1]) / (std::string(argv[i]) + ".html");
    const absl::Status status =
        llmc::WriteFileDurably(path, llmc::ToHtml(llmc::NamedSample(argv[i])));
    if (status.ok()) continue;
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    return 1;
  }
  return 0;
}
