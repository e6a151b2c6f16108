# cmake -DFOLDER=... -DOUTPUT=... -P EmbedPage.cmake: the files of the status page as
# C++ strings, so that the binary needs nothing beside it.
set(text "// Made from the files in src/service/page/.\n#include \"service/page.h\"\n\nnamespace llmc {\n")
foreach(pair PageHtml:index.html PageStyle:page.css PageScript:page.js)
  string(REPLACE ":" ";" pair ${pair})
  list(GET pair 0 name)
  list(GET pair 1 file)
  file(READ ${FOLDER}/${file} content)
  string(APPEND text "\nabsl::string_view ${name}() {\n  return R\"llmc_page(${content})llmc_page\";\n}\n")
endforeach()
string(APPEND text "\n}  // namespace llmc\n")
file(WRITE ${OUTPUT} "${text}")
