/*
 * cfg.h - settings as a table.
 *
 * One row gives a setting its name, default, type, range, help line and place in a
 * struct of the caller.  Three sources, later ones win: the defaults, an INI file
 * ([section] key = value, read with inih), --set section.key=value.  A bad name or
 * value is one line that names the source, the setting, the value and what is
 * allowed; the struct is then unchanged.
 */
#ifndef BASE_CFG_H
#define BASE_CFG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

enum cfg_type { CFG_I64, CFG_F64, CFG_BOOL, CFG_STR, CFG_CHOICE };

struct cfg_field {
    const char *name;     /* "optim.lr"; NULL ends the table */
    const char *fallback; /* default, as the user would write it */
    const char *help;     /* one line, with the unit */
    size_t offset;        /* in the caller's struct: int64_t, double, bool, char[], int */
    enum cfg_type type;
    double min, max;     /* inclusive; I64 and F64 */
    const char *choices; /* CHOICE: "gpt2|llama"; the index is stored, as int */
    size_t size;         /* STR: sizeof the char array */
    bool fixed;          /* may not change when a run is resumed */
};

/* clang-format off */
#define CFG_INT(S, m, n, d, lo, hi, h)  { n, d, h, offsetof(S, m), CFG_I64, lo, hi, NULL, 0, false }
#define CFG_REAL(S, m, n, d, lo, hi, h) { n, d, h, offsetof(S, m), CFG_F64, lo, hi, NULL, 0, false }
#define CFG_FLAG(S, m, n, d, h)         { n, d, h, offsetof(S, m), CFG_BOOL, 0, 0, "false|true", 0, false }
#define CFG_TEXT(S, m, n, d, h)         { n, d, h, offsetof(S, m), CFG_STR, 0, 0, NULL, sizeof ((S *)0)->m, false }
#define CFG_ONE_OF(S, m, n, d, c, h)    { n, d, h, offsetof(S, m), CFG_CHOICE, 0, 0, c, 0, false }
/* the same, for settings that a resumed run must share with its checkpoint */
#define CFG_INT_FIXED(S, m, n, d, lo, hi, h)  { n, d, h, offsetof(S, m), CFG_I64, lo, hi, NULL, 0, true }
#define CFG_REAL_FIXED(S, m, n, d, lo, hi, h) { n, d, h, offsetof(S, m), CFG_F64, lo, hi, NULL, 0, true }
#define CFG_TEXT_FIXED(S, m, n, d, h)         { n, d, h, offsetof(S, m), CFG_STR, 0, 0, NULL, sizeof ((S *)0)->m, true }
#define CFG_ONE_OF_FIXED(S, m, n, d, c, h)    { n, d, h, offsetof(S, m), CFG_CHOICE, 0, 0, c, 0, true }
/* clang-format on */

/* Fill *cfg with the defaults.  Fails (KR_ERR_ARG) only if the table itself is wrong. */
kr_status cfg_defaults(const struct cfg_field *table, void *cfg);

/* Apply one "name=value"; spaces around name and value are ignored.  `source` is what
 * the error line names ("--set", "run.ini:12").  KR_ERR_ARG: unknown name (the line
 * suggests the nearest one), trailing garbage, value out of range. */
kr_status cfg_set(const struct cfg_field *table, void *cfg, const char *text,
                  const char *source);

/* Apply INI text, all of it or none of it.  KR_ERR_ARG as above; a line that is no INI
 * is also KR_ERR_ARG and names its number; a key given twice is refused. */
kr_status cfg_read_text(const struct cfg_field *table, void *cfg, const char *text,
                        const char *source);

/* The same from a file.  KR_ERR_ARG also when it cannot be read or is over 1 MiB. */
kr_status cfg_read_file(const struct cfg_field *table, void *cfg, const char *path);

/* All settings as INI text that cfg_read_text takes back to the same values, bit for
 * bit (reals with 17 digits where fewer lose something).  Caller frees; NULL: no memory. */
char *cfg_print(const struct cfg_field *table, const void *cfg);

/* One value as the user would write it; returns buf. */
const char *cfg_value(const struct cfg_field *f, const void *cfg, char *buf, size_t size);

/* For --help: one line a setting: name, default, range or choices, help. */
void cfg_help(const struct cfg_field *table, FILE *out);

/* Log one error line, ending with why, for each setting that differs between a and b;
 * returns how many differ. */
int cfg_diff(const struct cfg_field *table, const void *a, const void *b,
             const char *name_a, const char *name_b, const char *why);
/* The same for `fixed` settings: a is what is there, b what is asked for. */
int cfg_diff_fixed(const struct cfg_field *table, const void *a, const void *b,
                   const char *name_a, const char *name_b);

#endif
