/*
 * fuzz_settings.c - settings of any text: taken whole and printed back to the same values,
 * or refused with nothing changed.
 *
 * The first line, if it ends in a newline, is a --set; the rest is a settings file.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "trainer/run/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* settings.c also asks for devices; none is opened here */
kr_status kern_device_check(const char *name) { return (void)name, KR_OK; }
const char *kern_device_default(void) { return "cpu"; }

/* What is printed reads back to the same text. */
static void must_come_back(const struct settings *s)
{
    struct settings again;
    char *one = cfg_print(settings_table, s), *two;

    if (!one || cfg_defaults(settings_table, &again) != KR_OK) abort();
    if (cfg_read_text(settings_table, &again, one, "printed") != KR_OK) abort();
    two = cfg_print(settings_table, &again);
    if (!two || strcmp(one, two) != 0) abort();
    if (cfg_diff_fixed(settings_table, s, &again, "one", "two") != 0) abort();
    mem_free(one);
    mem_free(two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct settings s, before;
    char *text = malloc(size + 1), *line, *file;
    char *end;

    if (!text) abort();
    log_mute(true);
    memcpy(text, data, size);
    text[size] = '\0';
    line = text;
    end = strchr(text, '\n');
    file = end ? end + 1 : text;
    if (end) *end = '\0';
    memset(&s, 0, sizeof s);
    if (cfg_defaults(settings_table, &s) != KR_OK) abort();
    before = s;
    if (end && cfg_set(settings_table, &s, line, "--set") != KR_OK &&
        memcmp(&s, &before, sizeof s) != 0)
        abort();
    before = s;
    if (cfg_read_text(settings_table, &s, file, "file") != KR_OK &&
        memcmp(&s, &before, sizeof s) != 0)
        abort();
    must_come_back(&s);
    (void)settings_check(&s, 1);
    (void)settings_check(&s, 7);
    free(text);
    return 0;
}
