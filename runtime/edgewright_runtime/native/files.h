/* Files: read whole, written in one step, known by digest. */
#pragma once

#include <optional>
#include <string>

namespace edgewright {

bool is_file(const std::string &path);
bool is_folder(const std::string &path);

/* What a file holds; nothing, and the reason in `errno`, where it cannot be read. */
std::optional<std::string> read_file(const std::string &path);

/* What is in a text file of the system; empty where it cannot be read. */
std::string read_or_empty(const std::string &path);

/* Write a file beside its place and move it there, folders included; false, and the reason in `errno`, on failure. */
bool write_file(const std::string &path, const std::string &content);

/* Write all of it; false, and the reason in `errno`, where that fails. */
bool write_all(int file, const std::string &content);

/* The sha-256 of a file's bytes; nothing where it cannot be read. */
std::optional<std::string> file_digest(const std::string &path);

/* The place as it is called from any folder. */
std::string absolute(const std::string &path);

/* What stands behind the last slash, or before it. */
std::string name_of(const std::string &path);
std::string folder_of(const std::string &path);

/* `text` without spaces (and whatever else is `dropped`) at both ends. */
std::string stripped(const std::string &text, const std::string &dropped = " \t\r\n");

/* An environment variable; empty where it is not set. */
std::string setting(const char *name);

}  // namespace edgewright
