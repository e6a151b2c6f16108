#include "client/completion.h"

#include <iostream>
#include <map>

#include "absl/strings/match.h"

namespace llmc {
namespace {

const std::map<std::string, std::string>& Scripts() {
  static const auto* scripts = new std::map<std::string, std::string>{
      {"bash",
       "_llmc() { mapfile -t COMPREPLY < <(llmc __complete "
       "\"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null); }\n"
       "complete -o default -F _llmc llmc\n"},
      {"zsh",
       "#compdef llmc\n"
       "_llmc() { local -a found; found=(${(f)\"$(llmc __complete "
       "\"${(@)words[2,CURRENT]}\" 2>/dev/null)\"}); compadd -a found || _files; }\n"
       "compdef _llmc llmc\n"},
      {"fish",
       "complete -c llmc -a '(llmc __complete (commandline -opc)[2..] "
       "(commandline -ct) 2>/dev/null)'\n"}};
  return *scripts;
}

}  // namespace

void AddCompletion(CLI::App& app) {
  app.add_subcommand("completion", "script that completes llmc's words in a shell")
      ->add_option("SHELL", "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
}

int PrintCompletionScript(const CLI::App& app) {
  std::cout << Scripts().at(
      app.get_subcommand("completion")->get_option("SHELL")->as<std::string>());
  return 0;
}

int PrintCompletions(const CLI::App& app, const std::vector<std::string>& words) {
  const std::string last = words.empty() ? "" : words.back();
  const CLI::App* command = &app;
  if (words.size() > 1) {
    const auto found =
        app.get_subcommands([&words](const CLI::App* sub) { return sub->get_name() == words[0]; });
    if (found.empty()) return 0;
    command = found.front();
  }
  for (const CLI::App* sub : command->get_subcommands([](const CLI::App*) { return true; })) {
    if (absl::StartsWith(sub->get_name(), last)) std::cout << sub->get_name() << "\n";
  }
  if (!absl::StartsWith(last, "-")) return 0;
  for (const CLI::Option* option : command->get_options()) {
    for (const std::string& name : option->get_lnames()) {
      const std::string flag = "--" + name;
      if (absl::StartsWith(flag, last)) std::cout << flag << "\n";
    }
  }
  return 0;
}

}  // namespace llmc
