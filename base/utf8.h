/*
 * utf8.h - characters in bytes.
 *
 * Strict as Unicode's table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

/* The character at the start of `bytes` bytes: its length, 1 to 4, and *code.  0: there is
 * none, or it is malformed. */
int utf8_get(const char *at, size_t bytes, uint32_t *code);

/* The character that ends where `bytes` bytes do, in the same way. */
int utf8_get_last(const char *at, size_t bytes, uint32_t *code);

/* Writes it; returns its length. */
int utf8_put(char out[4], uint32_t code);

/* Bytes at the end that may be the start of a character of which more is to come; 0 to 3.
 * What is before them can be shown. */
size_t utf8_unfinished(const char *at, size_t bytes);

/* Append with U+FFFD for each longest malformed part (as WHATWG's decoder does). */
void utf8_repair(struct mem_text *out, const char *at, size_t bytes);

/* Append as the inside of a JSON string; malformed parts become U+FFFD. */
void utf8_json(struct mem_text *out, const char *at, size_t bytes);

/* The same, but malformed parts stay, for what must come back byte by byte. */
void utf8_json_kept(struct mem_text *out, const char *at, size_t bytes);

/* Unicode's White_Space. */
bool utf8_is_space(uint32_t code);

#endif
